//! What can be wrong with an image, one kind each, so that tests can ask for exactly the one.

use rimg_core::{Error, HostOffset, Location};

pub(crate) const FORMAT: &str = "qcow";

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("the file ends within the header")]
    HeaderTruncated,
    #[error("cluster size 2^{0} is not between 512 bytes and 64 KiB")]
    ClusterBits(u8),
    #[error("L2 tables of 2^{0} entries are not between 512 bytes and 64 KiB")]
    L2Bits(u8),
    #[error("encryption method {0} is unknown")]
    CryptMethod(u32),
    #[error("{0} bytes are no size of a disk")]
    DiskSize(u64),
    #[error("offset {0:#x} lies outside the file")]
    OutsideFile(u64),
    #[error("name of {0} bytes is too long or outside the file")]
    BackingName(u32),
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("a compressed cluster of no bytes")]
    NothingEncoded,
    #[error("the L2 table at {0:#x} is used by several entries, or for something else")]
    SharedTable(u64),
    #[error("offset {0:#x} leads into metadata")]
    Overlap(u64),
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

/// The kind of corruption that an error is about, when it comes from a qcow image.
#[cfg(test)]
pub(crate) fn kind_of(error: &Error) -> Option<&CorruptKind> {
    match error {
        Error::Corrupt { source, .. } => source.downcast_ref(),
        _ => None,
    }
}
