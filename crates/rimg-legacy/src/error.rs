//! What can be wrong with an image, one kind each, so that tests can ask for exactly the one.

use rimg_core::{Error, HostOffset, Location};

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("the file of {0} bytes ends within it")]
    Truncated(u64),
    #[error("{0} is not between {1} and {2}")]
    OutOfRange(u64, u64, u64),
    #[error("{0} is no multiple of 512")]
    PartOfSector(u64),
    #[error("{found} entries are too few: the disk needs {needed}")]
    TooFew { found: u64, needed: u64 },
    #[error("offset {0:#x} is before {1:#x}, where the one before it is")]
    Backwards(u64, u64),
    #[error("{0} bytes of encoded data are too many for a block of {1}")]
    TooLong(u64, u64),
    #[error("offset {0:#x} with length {1:#x} is beyond what a file can be")]
    Overflow(u64, u64),
    #[error("no partition table was found")]
    NoTables,
    #[error("the property list is not well-formed: {0}")]
    Plist(&'static str),
    #[error("the resource fork is damaged")]
    ResourceFork,
    #[error("chunk type {0:#x} is unknown")]
    ChunkType(u32),
    #[error("the chunk at sector {0} overlaps the one before")]
    Overlap(u64),
    #[error("{length} bytes are not the {sectors} sectors of the chunk")]
    RawLength { length: u64, sectors: u64 },
    #[error("no chunk holds the disk from offset {0:#x} on")]
    Gap(u64),
}

impl CorruptKind {
    /// The full error: what is wrong, with which field of which structure, at which offset of the
    /// file.
    pub(crate) fn at(
        self,
        format: &'static str,
        structure: &'static str,
        field: &'static str,
        offset: u64,
    ) -> Error {
        Error::Corrupt {
            format,
            at: Location { structure, field, offset: HostOffset(offset) },
            source: Box::new(self),
        }
    }
}
