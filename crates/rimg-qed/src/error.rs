//! What can be wrong with an image, one kind each, so that tests can ask for exactly the one.

use rimg_core::{Error, HostOffset, Location};

pub(crate) const FORMAT: &str = "qed";

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("the file ends within the header")]
    HeaderTruncated,
    #[error("cluster size {0} is not a power of two between 4 KiB and 64 MiB")]
    ClusterBytes(u32),
    #[error("table size {0} is not a power of two between 1 and 16 clusters")]
    TableClusters(u32),
    #[error("{0} bytes are no size of a disk, or too large for tables of this size")]
    ImageSize(u64),
    #[error("offset {0:#x} is not a multiple of the cluster size")]
    Misaligned(u64),
    #[error("offset {0:#x} lies outside the file")]
    OutsideFile(u64),
    #[error("name of {0} bytes is empty, too long or outside the header")]
    BackingName(u32),
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("the L2 table at {0:#x} is used by several entries, or for something else")]
    SharedTable(u64),
    #[error("offset {0:#x} leads into metadata")]
    Overlap(u64),
    #[error("{0} things are wrong that cannot be repaired")]
    NotRepaired(u64),
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

/// The kind of corruption that an error is about, when it comes from a QED image.
#[cfg(test)]
pub(crate) fn kind_of(error: &Error) -> Option<&CorruptKind> {
    match error {
        Error::Corrupt { source, .. } => source.downcast_ref(),
        _ => None,
    }
}
