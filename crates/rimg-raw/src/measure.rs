//! How large an image would become: as large as its disk.

use crate::SECTOR_BYTES;
use core::ops::Range;
use rimg_core::{Measure, Measured};

/// A disk of so many bytes.
#[derive(Debug)]
pub(crate) struct RawMeasure(u64);

impl RawMeasure {
    pub(crate) fn new(size_bytes: u64) -> Self {
        Self(size_bytes.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(u64::MAX))
    }
}

impl Measure for RawMeasure {
    fn add_data(&mut self, _range: Range<u64>) {}

    /// Holes count as well: what is measured is the length, whatever the file system makes of it.
    fn measured(&self) -> Measured {
        Measured { required_bytes: self.0, fully_allocated_bytes: self.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_sectors() {
        assert_eq!(RawMeasure::new(1000).measured().required_bytes, 1024);
        assert_eq!(RawMeasure::new((1 << 63) - 1).measured().fully_allocated_bytes, 1 << 63);
    }
}
