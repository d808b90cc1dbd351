//! What can be wrong with an image, one kind each, so that tests can ask for exactly the one.

use rimg_core::{Error, HostOffset, Location};

pub(crate) const FORMAT: &str = "vmdk";

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("the file ends within the header")]
    HeaderTruncated,
    #[error("{0:02x?} is not what was written: a transfer changed ends of lines")]
    EndOfLine([u8; 4]),
    #[error("a grain of {0} sectors is not a power of two of at most 64 MiB")]
    GrainSize(u64),
    #[error("{0} entries in a grain table are not between 1 and 512")]
    TableEntries(u32),
    #[error("a capacity of {0} sectors is beyond what a disk can be")]
    Capacity(u64),
    #[error("compression algorithm {0} is unknown or disagrees with the flags")]
    Compression(u16),
    #[error("sector {0:#x} lies behind the end of the file")]
    BehindEnd(u64),
    #[error("sector {0:#x} is beyond what a file can be")]
    OutOfRange(u64),
    #[error("table of {entries} entries is too small: {needed} are needed")]
    DirectoryTooSmall { entries: u64, needed: u64 },
    #[error("no footer: {0}")]
    Footer(&'static str),
    #[error("the marker is not that of {0}")]
    Marker(&'static str),
    #[error("the marker says sector {found:#x}, but the grain is at {expected:#x}")]
    MarkerSector { found: u64, expected: u64 },
    #[error("{0} bytes of compressed data are too many for a grain")]
    EncodedLength(u32),
    #[error("entry {0:#x} is none")]
    Entry(u64),
    #[error("entry {0:#x} is used by another grain")]
    Shared(u64),
    #[error("the grain at {0:#x} lies in metadata")]
    InMetadata(u64),
    #[error("{0:#x} is not the magic number")]
    Magic(u64),
    #[error("version {0:#x} is unknown")]
    Version(u64),
    #[error("value {0} is not possible")]
    Value(u64),
    #[error("the extent was not closed properly")]
    Journal,
    #[error("the descriptor is longer than {0} bytes")]
    DescriptorTooLong(u64),
    #[error("the descriptor does not begin with '# Disk DescriptorFile'")]
    NoDescriptor,
    #[error("line {0} is no line of a descriptor")]
    Line(usize),
    #[error("invalid extent line: {0}")]
    ExtentLine(String),
    #[error("truncated, expecting at least {0} bytes")]
    OverheadTruncated(u64),
    #[error("it is given twice, the second time in line {0}")]
    Twice(usize),
    #[error("it is missing")]
    Missing,
    #[error("'{0}' is not possible")]
    Text(String),
    #[error("the disk has no extents")]
    NoExtents,
    #[error("{0} extents are too many")]
    TooManyExtents(usize),
    #[error("the descriptor gives the extent {descriptor} sectors, its header {header}")]
    ExtentSize { descriptor: u64, header: u64 },
    #[error("the parent has the content ID {found:08x}: it is another, or was changed")]
    ParentChanged { found: u32 },
    #[error("the parent is no vmdk image")]
    ParentFormat,
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

/// The kind of corruption that an error is about, when it comes from a VMDK image.
#[cfg(test)]
pub(crate) fn kind_of(error: &Error) -> Option<&CorruptKind> {
    match error {
        Error::Corrupt { source, .. } => source.downcast_ref(),
        _ => None,
    }
}
