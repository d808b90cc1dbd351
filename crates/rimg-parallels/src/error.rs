//! What can be wrong with an image, one kind each, so that tests can ask for exactly the one.

use rimg_core::{Error, HostOffset, Location};

pub(crate) const FORMAT: &str = "parallels";

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("the file ends within the header")]
    HeaderTruncated,
    #[error("clusters of {0} sectors are empty or too large")]
    ClusterSectors(u32),
    #[error("{0} entries are too many")]
    CatalogTooLarge(u32),
    #[error("the file ends within the BAT")]
    BatTruncated,
    #[error("{0} sectors are no size of a disk")]
    DiskSize(u64),
    #[error("offset {0:#x} lies outside the data area")]
    OutsideFile(u64),
    #[error("the BAT has no entry for guest cluster {0}")]
    BehindBat(u64),
    #[error("{0} things are wrong that cannot be repaired")]
    NotRepaired(u64),
    #[error("the Format Extension does not hold together")]
    Extension,
    #[error("the descriptor has more than {0} bytes")]
    DescriptorTooLong(u64),
    #[error("not well-formed: {0}")]
    Xml(&'static str),
    #[error("{0}")]
    Descriptor(&'static str),
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

/// The kind of corruption that an error is about, when it comes from a Parallels image.
#[cfg(test)]
pub(crate) fn kind_of(error: &Error) -> Option<&CorruptKind> {
    match error {
        Error::Corrupt { source, .. } => source.downcast_ref(),
        _ => None,
    }
}
