//! Writing: what the engine does.

use crate::image::QedImage;
use core::ops::Range;
use rimg_core::{ImageWrite, Result};

impl ImageWrite for QedImage {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        self.blocks.write_at(buf, at)
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.blocks.write_zeroes_at(range)
    }

    /// What has a place keeps it: it is punched, where the file system can.
    fn discard_at(&self, range: Range<u64>) -> Result<()> {
        self.blocks.discard_at(range)
    }

    fn flush(&self) -> Result<()> {
        self.blocks.flush()
    }

    fn finish(&self) -> Result<()> {
        self.blocks.finish()
    }

    fn places_in_order(&self) -> bool {
        true
    }

    fn is_zero_initialised(&self) -> bool {
        self.was_blank
    }

    fn relax_until_flush(&self) {
        self.blocks.relax_until_flush();
    }
}
