//! The open image.

use crate::info;
use crate::map::QcowMap;
use core::ops::Range;
use rimg_blocks::Blocks;
use rimg_core::{
    BlockImage, Check, CompressedWrite, Error, Extent, ImageInfo, ImageWrite, Limits, Overlay,
    Resize, Result, Storage,
};
use std::sync::Arc;

/// An open qcow image.
#[derive(Debug)]
pub(crate) struct QcowImage {
    pub(crate) blocks: Blocks<QcowMap>,
    pub(crate) backing: Option<Arc<dyn BlockImage>>,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    /// Nothing was allocated when the image was opened, and nothing lies below it.
    pub(crate) was_blank: bool,
    pub(crate) is_encrypted: bool,
}

/// What may be done with an open image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Metadata only.
    Inspect,
    /// The same, and metadata may be repaired.
    Repair,
    Read,
    Write,
}

impl QcowImage {
    fn check_access(&self) -> Result<()> {
        match self.access {
            Access::Read | Access::Write => Ok(()),
            Access::Inspect | Access::Repair => {
                Err(Error::Misuse("the image was opened for inspection only"))
            }
        }
    }
}

impl BlockImage for QcowImage {
    fn size_bytes(&self) -> u64 {
        self.blocks.size_bytes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.check_access()?;
        self.blocks.read_at(buf, at)
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.check_access()?;
        self.blocks.extent_at(range)
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(self.blocks.look(|map| info::describe(&map.header)))
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then(|| self.blocks.file())
    }

    fn backing(&self) -> Option<&Arc<dyn BlockImage>> {
        self.backing.as_ref()
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        (self.access == Access::Write).then_some(self)
    }

    fn compressor(&self) -> Option<&dyn CompressedWrite> {
        (self.access == Access::Write && !self.is_encrypted).then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        (self.access == Access::Write).then_some(self)
    }

    fn overlay(&self) -> Option<&dyn Overlay> {
        (self.access == Access::Write).then_some(self)
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<()> {
        if self.access == Access::Write { self.blocks.finish() } else { Ok(()) }
    }
}
