//! An image below that was not opened, on purpose.

use core::ops::Range;
use rimg_core::{BlockImage, Error, Extent, ImageInfo, Result, Storage};
use std::sync::Arc;

/// Stands in for an image below that is named but was not opened: whoever needs what it holds gets
/// an error, not zeroes. Formats give it to their [`Blocks`](crate::Blocks) and show it to nobody.
#[derive(Debug, Clone, Copy)]
pub struct LeftOut;

impl BlockImage for LeftOut {
    fn size_bytes(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, _buf: &mut [u8], _at: u64) -> Result<()> {
        Err(left_out())
    }

    fn extent_at(&self, _range: Range<u64>) -> Result<Extent> {
        Err(left_out())
    }

    fn info(&self) -> Result<ImageInfo> {
        Err(left_out())
    }

    fn file(&self, _index: u16) -> Option<&Arc<dyn Storage>> {
        None
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn left_out() -> Error {
    Error::Denied("the backing file was not opened".into())
}
