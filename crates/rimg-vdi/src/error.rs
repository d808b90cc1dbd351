//! What can be wrong with an image, one kind each, so that tests can ask for exactly the one.

use rimg_core::{Error, HostOffset, Location};

pub(crate) const FORMAT: &str = "vdi";

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("the file ends within the header")]
    HeaderTruncated,
    #[error("header length {0} is not possible")]
    HeaderLength(u32),
    #[error("image type {0} is unknown")]
    ImageType(u32),
    #[error("sector size {0} is not 512")]
    SectorSize(u32),
    #[error("block size {0} is not a power of two from 512 bytes to 1 GiB")]
    BlockSize(u32),
    #[error("{0} bytes of extra data with each block are not possible")]
    BlockExtra(u32),
    #[error("disk size {disk}, block map has room for {room}")]
    DiskSize { disk: u64, room: u64 },
    #[error(
        "block map at {at:#x}, with {len:#x} bytes, overlaps the header or the data at {data:#x}"
    )]
    MapPlace { at: u64, len: u64, data: u64 },
    #[error("the file ends within the block map")]
    MapTruncated,
    #[error("block {0} of the file lies behind its end")]
    BehindEnd(u32),
    #[error("block {0} of the file is used twice")]
    UsedTwice(u32),
    #[error("parent's UUID is {found}, the image was made over {wanted}")]
    ParentUuid { wanted: rimg_core::Uuid, found: rimg_core::Uuid },
}

impl CorruptKind {
    /// An error for this kind at `offset` of the file.
    pub(crate) fn at(self, structure: &'static str, field: &'static str, offset: u64) -> Error {
        let at = Location { structure, field, offset: HostOffset(offset) };
        Error::Corrupt { format: FORMAT, at, source: Box::new(self) }
    }
}
