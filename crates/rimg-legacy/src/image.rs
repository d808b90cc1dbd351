//! The open image, of any of the formats: pieces of the disk, one after the other, that are stored
//! somehow.

use crate::cache::ChunkCache;
use crate::compress::Coding;
use crate::{bochs, cloop, dmg};
use core::ops::Range;
use rimg_core::{
    BlockImage, Error, Extent, ExtentKind, FileOffset, HostOffset, ImageInfo, Result, Storage, num,
};
use std::sync::Arc;

/// Which piece of the disk is where. It does not change while the image is open.
#[derive(Debug)]
pub(crate) enum Map {
    Bochs(bochs::Table),
    Cloop(cloop::Table),
    Dmg(dmg::Table),
}

/// A piece of the disk. The caller asked for one of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Where it starts on the disk, in bytes.
    pub(crate) guest: u64,
    /// How long it is there, in bytes.
    pub(crate) len_bytes: u64,
    pub(crate) stored: Stored,
}

/// How a piece of the disk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Zero,
    /// As it is, at this offset.
    Raw(u64),
    /// Encoded as a whole.
    Encoded {
        coding: Coding,
        host: u64,
        len_bytes: u64,
    },
}

impl Map {
    pub(crate) const fn size_bytes(&self) -> u64 {
        match self {
            Self::Bochs(table) => table.size_bytes(),
            Self::Cloop(table) => table.size_bytes(),
            Self::Dmg(table) => table.size_bytes(),
        }
    }

    /// The piece that the byte `guest` of the disk, which is not past its end, is in.
    pub(crate) fn chunk(&self, file: &dyn Storage, guest: u64) -> Result<Chunk> {
        match self {
            Self::Bochs(table) => table.chunk(file, guest),
            Self::Cloop(table) => table.chunk(guest),
            Self::Dmg(table) => table.chunk(guest),
        }
    }
}

/// An image that can only be read.
#[derive(Debug)]
pub(crate) struct LegacyImage {
    format: &'static str,
    pub(crate) file: Arc<dyn Storage>,
    pub(crate) map: Map,
    pub(crate) cache: ChunkCache,
}

impl LegacyImage {
    pub(crate) fn new(format: &'static str, file: Arc<dyn Storage>, map: Map) -> Self {
        Self { format, file, map, cache: ChunkCache::default() }
    }

    /// Refuses what reaches past the end of the disk.
    fn check_range(&self, range: &Range<u64>) -> Result<()> {
        if range.start <= range.end && range.end <= self.size_bytes() {
            Ok(())
        } else {
            Err(Error::Misuse("range past the end of the disk"))
        }
    }
}

impl BlockImage for LegacyImage {
    fn size_bytes(&self) -> u64 {
        self.map.size_bytes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let end = at.checked_add(num::to_u64(buf.len()));
        self.check_range(&(at..end.ok_or(Error::Misuse("range past the end of the disk"))?))?;
        self.read(buf, at)
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.check_range(&range)?;
        if range.is_empty() {
            return Err(Error::Misuse("empty range"));
        }
        let chunk = self.map.chunk(self.file.as_ref(), range.start)?;
        let skipped = range.start.saturating_sub(chunk.guest);
        let kind = match chunk.stored {
            Stored::Zero => ExtentKind::Zero { allocation: None },
            Stored::Raw(host) => {
                let host = HostOffset(host.saturating_add(skipped));
                ExtentKind::Data(FileOffset { file: 0, host })
            }
            Stored::Encoded { .. } => ExtentKind::Opaque,
        };
        let wanted = range.end.saturating_sub(range.start);
        let rest = chunk.len_bytes.saturating_sub(skipped).max(1);
        Ok(Extent { len_bytes: rest.min(wanted), kind })
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo {
            format: self.format,
            virtual_size_bytes: self.size_bytes(),
            ..ImageInfo::default()
        })
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then_some(&self.file)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
