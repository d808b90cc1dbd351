//! The open image.

use crate::header::locator::ParentLocator;
use crate::info::identity_of;
use crate::map::VhdxMap;
use core::ops::Range;
use rimg_blocks::Blocks;
use rimg_core::{
    BlockImage, Check, Error, Extent, ImageInfo, ImageWrite, Overlay, Resize, Result, Storage,
};
use std::sync::Arc;

/// An open VHDX image.
#[derive(Debug)]
pub(crate) struct VhdxImage {
    pub(crate) blocks: Blocks<VhdxMap>,
    pub(crate) parent: Option<ParentLocator>,
    /// Metadata only: guest data cannot be made sense of.
    pub(crate) inspect_only: bool,
    /// The copies of what there is twice that were not as good as the ones in use.
    pub(crate) damaged: Damaged,
    /// No block was there when the image was opened.
    pub(crate) was_blank: bool,
}

/// Copies in the header section that do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Damaged {
    pub(crate) header: bool,
    /// Which of the two.
    pub(crate) region_tables: [bool; 2],
    /// The log had something that the file had not; it has it now.
    pub(crate) behind_log: bool,
}

impl VhdxImage {
    fn check_usable(&self) -> Result<()> {
        if self.inspect_only {
            return Err(Error::Misuse("the image was opened for inspection only"));
        }
        Ok(())
    }

    fn is_writable(&self) -> bool {
        self.blocks.is_writable() && !self.inspect_only
    }
}

impl BlockImage for VhdxImage {
    fn size_bytes(&self) -> u64 {
        self.blocks.size_bytes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.check_usable()?;
        self.blocks.read_at(buf, at)
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.check_usable()?;
        self.blocks.extent_at(range)
    }

    fn info(&self) -> Result<ImageInfo> {
        self.describe()
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then(|| self.blocks.file())
    }

    fn backing(&self) -> Option<&Arc<dyn BlockImage>> {
        self.blocks.below()
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.is_writable().then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.is_writable().then_some(self)
    }

    fn overlay(&self) -> Option<&dyn Overlay> {
        (self.is_writable() && self.parent.is_some()).then_some(self)
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<()> {
        if self.blocks.is_writable() { self.blocks.finish() } else { Ok(()) }
    }
}

impl ImageWrite for VhdxImage {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        self.blocks.write_at(buf, at)
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.blocks.write_zeroes_at(range)
    }

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
        self.blocks.places_in_order()
    }

    fn is_zero_initialised(&self) -> bool {
        self.was_blank
    }

    fn relax_until_flush(&self) {
        self.blocks.relax_until_flush();
    }
}

impl Overlay for VhdxImage {
    /// The parent is known by an identifier that only it has: naming another would need that.
    fn change_backing(&self, _name: Option<&str>, _format: Option<&str>) -> Result<()> {
        Err(crate::error::unsupported("changing the parent"))
    }

    /// What was in this layer went into the parent before: it is known by what it became.
    fn make_empty(&self) -> Result<()> {
        self.blocks.make_empty()?;
        self.accept_backing()
    }

    fn accept_backing(&self) -> Result<()> {
        let Some(parent) = self.blocks.below() else { return Ok(()) };
        match identity_of(&parent.info()?) {
            Some(guid) => self.blocks.alone(|map| {
                map.todo.linkage = Some(guid);
                Ok(())
            }),
            None => Ok(()),
        }
    }
}
