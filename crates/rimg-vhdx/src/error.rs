//! What can be wrong with an image, one kind each, so that tests can ask for exactly the one.

use crate::header::Guid;
use rimg_core::{Error, HostOffset, Location};

pub(crate) const FORMAT: &str = "vhdx";

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("the file ends within the header section")]
    HeaderSectionTruncated,
    #[error("signature {0:#x} is not the structure's")]
    Signature(u64),
    #[error("checksum is {found:#010x}, but the bytes have {computed:#010x}")]
    Checksum { found: u32, computed: u32 },
    #[error("{0} entries are too many")]
    EntryCount(u32),
    #[error("the region at {0:#x} of {1:#x} bytes does not lie at whole megabytes of the file")]
    RegionPlace(u64, u64),
    #[error("the region {0} is there twice")]
    RegionTwice(Guid),
    #[error("the region {0} is missing")]
    NoRegion(Guid),
    #[error("it lies on top of what is at {0:#x}")]
    Overlap(u64),
    #[error("the file ends at {len:#x}, before the region does at {end:#x}")]
    RegionTruncated { end: u64, len: u64 },
    #[error("the metadata item {0} is there twice")]
    ItemTwice(Guid),
    #[error("the metadata item {0} is missing")]
    NoItem(Guid),
    #[error("the metadata item {0} has {1} bytes")]
    ItemLength(Guid, u32),
    #[error("the metadata item {0} does not lie inside of the region")]
    ItemPlace(Guid),
    #[error("block size {0} is no power of two between 1 MiB and 256 MiB")]
    BlockSize(u32),
    #[error("sector size {0} is neither 512 nor 4096")]
    SectorSize(u32),
    #[error("disk size {0} is no multiple of the sector size, or larger than 64 TiB")]
    DiskSize(u64),
    #[error("region of {found:#x} bytes is too small: the disk needs {needed:#x}")]
    BatTooSmall { found: u64, needed: u64 },
    #[error("state {0} of a payload block is unknown")]
    PayloadState(u8),
    #[error("state {0} of a sector bitmap block is unknown")]
    BitmapState(u8),
    #[error("a block that is present in part needs a parent and a sector bitmap")]
    NoBitmap,
    #[error("offset {offset:#x} lies behind the end of the file, {len:#x}")]
    BehindEnd { offset: u64, len: u64 },
    #[error("the file ends at {len:#x}: data of it up to {end:#x} was lost")]
    FileTruncated { end: u64, len: u64 },
    #[error("an entry writes {len:#x} bytes at {at:#x}, where no metadata can be")]
    LogTarget { at: u64, len: u64 },
    #[error("its entries contradict each other too often to be searched")]
    LogMaze,
    #[error("text does not lie inside of the item, or is not UTF-16")]
    LocatorText,
    #[error("locator type {0} is unknown")]
    LocatorType(Guid),
    #[error("the key '{0}' is missing")]
    NoLocatorKey(&'static str),
    #[error("the parent is {found}, but the image was made over {wanted}: one of them changed")]
    Linkage { found: Guid, wanted: Guid },
    #[error("'{0}' is no GUID")]
    NotGuid(String),
}

impl CorruptKind {
    /// The full error: what is wrong, with which field, at which offset of the file.
    pub(crate) fn at(self, structure: &'static str, field: &'static str, offset: u64) -> Error {
        Error::Corrupt {
            format: FORMAT,
            at: Location { structure, field, offset: HostOffset(offset) },
            source: Box::new(self),
        }
    }
}

/// Something that the format can express and rimg, or this version of the format, does not have.
pub(crate) fn unsupported(feature: impl Into<String>) -> Error {
    Error::Unsupported { format: FORMAT, feature: feature.into() }
}
