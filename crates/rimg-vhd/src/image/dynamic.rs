//! Images that grow, with and without a parent.

use super::Access;
use crate::check;
use crate::error::FORMAT;
use crate::info;
use crate::map::VhdMap;
use crate::resize;
use core::ops::Range;
use rimg_blocks::Blocks;
use rimg_core::{
    BlockImage, Check, CheckSummary, Error, Extent, Finding, ImageInfo, ImageWrite, Overlay,
    Preallocation, Repair, Resize, Result, Storage,
};
use std::sync::Arc;

/// An open image that grows.
#[derive(Debug)]
pub(crate) struct DynamicImage {
    pub(crate) blocks: Blocks<VhdMap>,
    pub(crate) access: Access,
    /// The name of the image below, as this one has it.
    pub(crate) parent_name: Option<String>,
}

impl DynamicImage {
    fn refuse_inspection(&self) -> Result<()> {
        match self.access {
            Access::Read | Access::Write => Ok(()),
            Access::Inspect | Access::Repair => {
                Err(Error::Misuse("the image was opened for inspection only"))
            }
        }
    }

    /// Puts the footer where the file's data ends, and gives back what is behind it.
    fn end_file(&self) -> Result<()> {
        let (end, footer) = self.blocks.look(|map| (map.end(), map.footer_if_astray()));
        let Some(footer) = footer? else { return Ok(()) };
        let writer = self.blocks.file().writer().ok_or(Error::ReadOnly("its file is"))?;
        writer.write_all_at(&footer, end).map_err(Error::io("write footer", end))?;
        let len = end.saturating_add(rimg_core::num::to_u64(footer.len()));
        writer.set_len_bytes(len).map_err(Error::io("set file length", len))?;
        writer.sync().map_err(Error::io("make writes durable", 0))
    }
}

impl BlockImage for DynamicImage {
    fn size_bytes(&self) -> u64 {
        self.blocks.size_bytes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.refuse_inspection()?;
        self.blocks.read_at(buf, at)
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.refuse_inspection()?;
        self.blocks.extent_at(range)
    }

    fn info(&self) -> Result<ImageInfo> {
        let block_bytes = self.blocks.block_bytes();
        let footer = self.blocks.look(|map| map.footer);
        let parent = self.parent_name.as_deref();
        Ok(info::describe(&footer, self.size_bytes(), Some(block_bytes), parent))
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then(|| self.blocks.file())
    }

    fn backing(&self) -> Option<&Arc<dyn BlockImage>> {
        self.blocks.below()
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        if self.access == Access::Write { Some(&self.blocks) } else { None }
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        if self.access == Access::Write { Some(self) } else { None }
    }

    fn overlay(&self) -> Option<&dyn Overlay> {
        let has_parent = self.blocks.look(|map| map.has_parent());
        if self.access == Access::Write && has_parent { Some(self) } else { None }
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<()> {
        match self.access {
            Access::Write => {
                self.blocks.finish()?;
                // Nobody reads where blocks were any more.
                self.end_file()
            }
            _ => Ok(()),
        }
    }
}

impl Resize for DynamicImage {
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        self.blocks.resize(resize::checked_size(size_bytes, preallocation)?)
    }
}

impl Overlay for DynamicImage {
    /// Its header would have to name the UUID of the other as well.
    fn change_backing(&self, _name: Option<&str>, _format: Option<&str>) -> Result<()> {
        let feature = "another parent for an image that has one".to_owned();
        Err(Error::Unsupported { format: FORMAT, feature })
    }

    fn make_empty(&self) -> Result<()> {
        self.blocks.make_empty()
    }
}

impl Check for DynamicImage {
    fn check(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        check::check(self, repair, found)
    }
}
