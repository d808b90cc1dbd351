//! The open image.

use crate::check;
use crate::header::Header;
use crate::info;
use crate::map::VdiMap;
use core::ops::Range;
use rimg_blocks::Blocks;
use rimg_core::{
    BlockImage, Check, CheckSummary, Error, Extent, Finding, ImageInfo, ImageWrite, Limits, Repair,
    Resize, Result, Storage,
};
use std::sync::Arc;

/// An open image.
#[derive(Debug)]
pub(crate) struct VdiImage {
    pub(crate) blocks: Blocks<VdiMap>,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    /// The name of the image below, where somebody gave one.
    pub(crate) parent_name: Option<String>,
}

/// What an image was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// To say what it is, and to be checked.
    Inspect,
    /// To be repaired.
    Repair,
    Read,
    Write,
}

impl VdiImage {
    fn refuse_inspection(&self) -> Result<()> {
        match self.access {
            Access::Read | Access::Write => Ok(()),
            Access::Inspect | Access::Repair => {
                Err(Error::Misuse("the image was opened for inspection only"))
            }
        }
    }

    pub(crate) fn header(&self) -> Header {
        self.blocks.look(|map| map.header)
    }

    /// Gives back the end of the file that no block uses.
    fn cut_file(&self) -> Result<()> {
        let end = self.blocks.look(|map| map.data_end());
        let writer = self.blocks.file().writer().ok_or(Error::ReadOnly("its file is"))?;
        let len = writer.len_bytes().map_err(Error::io("read file length", 0))?;
        if len > end {
            writer.set_len_bytes(end).map_err(Error::io("set file length", end))?;
        }
        Ok(())
    }
}

impl BlockImage for VdiImage {
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
        Ok(info::describe(&self.header(), self.size_bytes(), self.parent_name.as_deref()))
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

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<()> {
        match self.access {
            Access::Write => {
                self.blocks.finish()?;
                // Nobody reads where blocks were any more.
                self.cut_file()
            }
            _ => Ok(()),
        }
    }
}

impl Check for VdiImage {
    fn check(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        check::check(self, repair, found)
    }
}
