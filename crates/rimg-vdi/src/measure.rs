//! How large an image would become.

use crate::create::new_header;
use crate::header::Header;
use crate::options::CreateOptions;
use core::ops::Range;
use rimg_core::{Measure, Measured, RawOptions, Result, UnitCount};

/// Counts the blocks that hold data.
#[derive(Debug)]
pub(crate) struct VdiMeasure {
    header: Header,
    is_static: bool,
    blocks: UnitCount,
}

impl VdiMeasure {
    pub(crate) fn new(size_bytes: u64, options: &RawOptions) -> Result<Self> {
        let options = CreateOptions::parse(options)?;
        let header = new_header(size_bytes, options)?;
        let blocks = UnitCount::new(header.block_bytes.into());
        Ok(Self { header, is_static: options.is_static, blocks })
    }

    fn bytes_with(&self, blocks: u64) -> u64 {
        self.header.data_offset.saturating_add(blocks.saturating_mul(self.header.stride()))
    }
}

impl Measure for VdiMeasure {
    fn add_data(&mut self, range: Range<u64>) {
        self.blocks.add(range);
    }

    fn measured(&self) -> Measured {
        let all = self.bytes_with(self.header.blocks.into());
        let required_bytes =
            if self.is_static { all } else { self.bytes_with(self.blocks.count()) };
        Measured { required_bytes, fully_allocated_bytes: all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_counts_once() {
        let mut measure = VdiMeasure::new(10 << 20, RawOptions::NONE).unwrap();
        measure.add_data(5..10);
        measure.add_data(100..200);
        measure.add_data((3 << 20) - 1..(4 << 20) + 1);
        let measured = measure.measured();
        assert_eq!(measured.required_bytes, 1024 + (4 << 20));
        assert_eq!(measured.fully_allocated_bytes, 1024 + (10 << 20));
    }
}
