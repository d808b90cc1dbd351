//! How large a volume would become: its header and all of its disk, whatever it holds.

use crate::options::CreateOptions;
use core::ops::Range;
use rimg_core::{Measure, Measured, RawOptions, Result};

#[derive(Debug)]
pub(crate) struct LuksMeasure(u64);

impl LuksMeasure {
    pub(crate) fn new(size_bytes: u64, options: &RawOptions) -> Result<Self> {
        let options = CreateOptions::parse(options)?;
        let header = options.volume.volume.header_bytes();
        let data = if options.detached_header { 0 } else { size_bytes };
        Ok(Self(header.saturating_add(data)))
    }
}

impl Measure for LuksMeasure {
    fn add_data(&mut self, _range: Range<u64>) {}

    fn measured(&self) -> Measured {
        Measured { required_bytes: self.0, fully_allocated_bytes: self.0 }
    }
}
