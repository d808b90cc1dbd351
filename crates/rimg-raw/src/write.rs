//! Writing.

use crate::image::{RawImage, range_of};
use core::ops::Range;
use rimg_core::{Error, ImageWrite, Result, Zeroing};
use std::sync::atomic::Ordering;

impl ImageWrite for RawImage {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        let range = range_of(buf, at)?;
        self.check_range(&range)?;
        if range.is_empty() {
            return Ok(());
        }
        let file = self.writable()?;
        file.note("write_aio");
        file.write_all_at(buf, self.host(at)).map_err(Error::io("write", at))?;
        self.grown_to(range.end);
        Ok(())
    }

    /// Punches a hole where the storage can.
    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range)?;
        if range.is_empty() {
            return Ok(());
        }
        self.writable()?
            .write_zeroes_at(self.host(range.start)..self.host(range.end), Zeroing::MayPunch)
            .map_err(Error::io("write zeroes", range.start))?;
        self.grown_to(range.end);
        Ok(())
    }

    fn discard_at(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range)?;
        let end = range.end.min(self.file_len.load(Ordering::Acquire));
        if range.start >= end {
            return Ok(());
        }
        self.writable()?
            .discard_at(self.host(range.start)..self.host(end))
            .map_err(Error::io("discard", range.start))
    }

    fn flush(&self) -> Result<()> {
        self.writable()?.sync().map_err(Error::io("flush", 0))
    }

    fn places_in_order(&self) -> bool {
        false
    }

    fn is_zero_initialised(&self) -> bool {
        RawImage::is_zero_initialised(self)
    }
}

impl RawImage {
    /// Notes that the file reaches to `end` at least: a write into the last, incomplete sector
    /// makes it longer.
    fn grown_to(&self, end: u64) {
        self.file_len.fetch_max(end, Ordering::AcqRel);
    }
}
