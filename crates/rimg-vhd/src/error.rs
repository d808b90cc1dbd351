//! What can be wrong with an image, one kind each, so that tests can ask for exactly the one.

use rimg_core::{Error, HostOffset, Location, Uuid};

/// The name that qemu-img knows the format by.
pub(crate) const FORMAT: &str = "vpc";

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("checksum is {found:#010x}, the bytes have {wanted:#010x}")]
    Checksum { found: u32, wanted: u32 },
    #[error("disk type {0} is unknown")]
    DiskType(u32),
    #[error("a disk of {disk} bytes does not fit a file of {file}")]
    FixedTooShort { disk: u64, file: u64 },
    #[error("the file ends within it")]
    Truncated,
    #[error("it does not start with its cookie")]
    Cookie,
    #[error("version {0:#x} is unknown")]
    Version(u32),
    #[error("block size {0} is not a power of two from 512 bytes to 1 GiB")]
    BlockSize(u32),
    #[error("{entries} entries are too few: {needed} are needed")]
    TableTooSmall { entries: u64, needed: u64 },
    #[error("{0} entries are more than a table can have")]
    TableTooLarge(u32),
    #[error("offset {0:#x} is inside the image's header")]
    InsideHeader(u64),
    #[error("the block at sector {0:#x} lies behind the end of the file")]
    BehindEnd(u32),
    #[error("the block at sector {0:#x} overlaps another or a table")]
    Overlap(u32),
    #[error("parent's UUID is {found}, the image was made over {wanted}")]
    ParentUuid { wanted: Uuid, found: Uuid },
    #[error("parent's time stamp is {found}, the image was made over one of {wanted}")]
    ParentTime { wanted: u32, found: u32 },
    #[error("the image does not name its parent")]
    NoParentName,
}

impl CorruptKind {
    /// An error for this kind at `offset` of the file.
    pub(crate) fn at(self, structure: &'static str, field: &'static str, offset: u64) -> Error {
        let at = Location { structure, field, offset: HostOffset(offset) };
        Error::Corrupt { format: FORMAT, at, source: Box::new(self) }
    }
}
