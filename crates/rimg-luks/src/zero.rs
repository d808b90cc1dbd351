//! Zeroes and discards.

use crate::image::LuksImage;
use crate::write::Data;
use core::ops::Range;
use rimg_core::Result;

impl LuksImage {
    /// Zeroes are data like any other: a hole in the file would be garbage on the disk.
    pub(crate) fn zero(&self, range: Range<u64>) -> Result<()> {
        let len = range.end.saturating_sub(range.start);
        self.write_data(Data::Zeroes(len), range.start)
    }

    /// Nothing: what the file system gave back would read as garbage, and tell who has the file
    /// which sectors are unused.
    pub(crate) fn discard(&self, _range: Range<u64>) -> Result<()> {
        self.writable().map(|_| ())
    }
}
