//! The open image: its files, the parts of its disk, and who may do what with them.

use crate::descriptor::Descriptor;
use crate::error::FORMAT;
use crate::map::GrainMap;
use crate::overlay::Parent;
use crate::stream::Stream;
use core::ops::Range;
use rimg_blocks::Blocks;
use rimg_core::{
    BlockImage, Check, CompressedWrite, Error, Extent, ExtentKind, FileOffset, HostOffset,
    ImageInfo, ImageWrite, Limits, Overlay, Resize, Result, Storage,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An open VMDK image.
#[derive(Debug)]
pub(crate) struct VmdkImage {
    /// The image's own file first, then those of its extents.
    pub(crate) files: Vec<Arc<dyn Storage>>,
    /// In the order of the disk, without gaps.
    pub(crate) parts: Vec<Part>,
    pub(crate) size_bytes: AtomicU64,
    pub(crate) descriptor: Mutex<DescriptorState>,
    pub(crate) parent: Arc<Parent>,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    /// Nothing was mapped when the image was opened, and nothing lies below it.
    pub(crate) was_blank: bool,
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

/// The descriptor, and where it is kept.
#[derive(Debug)]
pub(crate) struct DescriptorState {
    /// COWD extents have none.
    pub(crate) descriptor: Option<Descriptor>,
    pub(crate) place: DescriptorPlace,
    /// The content ID was changed since the image was opened.
    pub(crate) cid_changed: bool,
    /// Nobody minds losing the whole image before the next flush.
    pub(crate) relaxed: bool,
}

/// Where a descriptor is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DescriptorPlace {
    /// It is the whole file.
    File,
    /// These bytes of the file are for it.
    Embedded(Range<u64>),
}

/// A part of the disk.
#[derive(Debug)]
pub(crate) struct Part {
    /// Where it starts on the disk, in bytes.
    pub(crate) start: u64,
    /// How long it is, in bytes. Resizing changes that of the last one.
    pub(crate) len: AtomicU64,
    pub(crate) body: Body,
    /// Which of the image's files holds it.
    pub(crate) file: u16,
    pub(crate) writable: bool,
}

/// How a part is stored.
#[derive(Debug)]
pub(crate) enum Body {
    /// As it is, from here in its file.
    Flat { at: u64 },
    /// It reads as zeroes.
    Zero,
    /// In grains.
    Grains(Box<Blocks<GrainMap>>),
    /// In compressed grains one behind the other.
    Stream(Box<Stream>),
    /// Its file was not opened, since only metadata is wanted.
    Absent,
}

impl Part {
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.len())
    }
}

impl VmdkImage {
    pub(crate) fn descriptor(&self) -> MutexGuard<'_, DescriptorState> {
        self.descriptor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses ranges past the end of the disk, and images whose data cannot be read.
    pub(crate) fn check_range(&self, range: &Range<u64>) -> Result<()> {
        if matches!(self.access, Access::Inspect | Access::Repair) {
            return Err(Error::Misuse("the image was opened for inspection only"));
        }
        if range.start <= range.end && range.end <= self.size_bytes() {
            Ok(())
        } else {
            Err(Error::Misuse("range past the end of the disk"))
        }
    }

    fn extent(&self, part: &Part, range: &Range<u64>) -> Result<Extent> {
        let local = range.start.saturating_sub(part.start)
            ..range.end.min(part.end()).saturating_sub(part.start);
        let len_bytes = local.end.saturating_sub(local.start);
        let at = |host| FileOffset { file: part.file, host: HostOffset(host) };
        let extent = match &part.body {
            Body::Flat { at: start } => {
                let host = start.saturating_add(local.start);
                let file = self.storage(part.file)?;
                let run = file.run_at(host).map_err(Error::io("look for holes", host))?;
                let kind = if run.is_data {
                    ExtentKind::Data(at(host))
                } else {
                    ExtentKind::Zero { allocation: Some(at(host)) }
                };
                return Ok(Extent { len_bytes: run.len_bytes.clamp(1, len_bytes), kind });
            }
            Body::Zero => {
                return Ok(Extent { len_bytes, kind: ExtentKind::Zero { allocation: None } });
            }
            Body::Absent => return Err(Error::Misuse("the extent was not opened")),
            Body::Grains(blocks) => blocks.extent_at(local)?,
            Body::Stream(stream) => stream.blocks.extent_at(local)?,
        };
        // What is file 0 to an extent is another to the image.
        let in_file = |place: FileOffset| FileOffset { file: part.file, ..place };
        let kind = match extent.kind {
            ExtentKind::Data(place) => ExtentKind::Data(in_file(place)),
            ExtentKind::Encoded { at, len_bytes, codec } => {
                ExtentKind::Encoded { at: in_file(at), len_bytes, codec }
            }
            ExtentKind::Zero { allocation } => {
                ExtentKind::Zero { allocation: allocation.map(in_file) }
            }
            other => other,
        };
        Ok(Extent { kind, ..extent })
    }

    pub(crate) fn storage(&self, file: u16) -> Result<&Arc<dyn Storage>> {
        self.files.get(usize::from(file)).ok_or(Error::Misuse("no such file"))
    }
}

/// The part that has the byte at `at`.
pub(crate) fn part_at(parts: &[Part], at: u64) -> Result<&Part> {
    let index = parts.partition_point(|part| part.end() <= at);
    parts.get(index).ok_or(Error::Misuse("range past the end of the disk"))
}

impl BlockImage for VmdkImage {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.read(buf, at)
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.check_range(&range)?;
        if range.is_empty() {
            return Err(Error::Misuse("empty range"));
        }
        self.extent(part_at(&self.parts, range.start)?, &range)
    }

    fn info(&self) -> Result<ImageInfo> {
        self.describe()
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        self.files.get(usize::from(index))
    }

    fn backing(&self) -> Option<&Arc<dyn BlockImage>> {
        self.parent.image.as_ref()
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        (self.access == Access::Write).then_some(self)
    }

    fn compressor(&self) -> Option<&dyn CompressedWrite> {
        let can = self.access == Access::Write && self.is_stream();
        can.then_some(self)
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
        if self.access == Access::Write { self.finish() } else { Ok(()) }
    }
}

pub(crate) fn unsupported(feature: impl Into<String>) -> Error {
    Error::Unsupported { format: FORMAT, feature: feature.into() }
}
