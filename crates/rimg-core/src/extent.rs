//! What lies behind a run of guest bytes.

use crate::{Codec, HostOffset};

/// A run of guest bytes that are all of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// How long the run is, in bytes; never 0.
    pub len_bytes: u64,
    /// What it is.
    pub kind: ExtentKind,
}

/// Where a byte of an image lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOffset {
    /// Which of the image's files: an index for [`BlockImage::file`](crate::BlockImage::file).
    pub file: u16,
    /// Where in that file.
    pub host: HostOffset,
}

/// What one layer says about a run of guest bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtentKind {
    /// Guest bytes as they are, contiguous in a file of the image.
    Data(FileOffset),
    /// One encoded cluster, or the rest of it: such a run never spans two.
    Encoded {
        /// Where the encoded bytes start.
        at: FileOffset,
        /// An upper bound of their length in bytes; what lies behind the stream's own end is not
        /// part of it.
        len_bytes: u64,
        /// What they are encoded with.
        codec: Codec,
    },
    /// Encrypted in a file of the image, or encoded as only its format knows: to be had by reading
    /// the image and in no other way.
    Opaque,
    /// Reads as zeroes, whatever lies below.
    Zero {
        /// The space reserved for the run, where there is some.
        allocation: Option<FileOffset>,
    },
    /// This layer says nothing: see the layer below, or zeroes where there is none.
    Backing {
        /// The space reserved for the run in this layer, where there is some.
        allocation: Option<FileOffset>,
    },
}

impl ExtentKind {
    /// The kind of what starts `by` bytes later in the same run.
    ///
    /// Encoded clusters keep their place: they can only be decoded whole.
    #[must_use]
    pub fn advanced(self, by: u64) -> Self {
        let shift = |at: FileOffset| FileOffset {
            file: at.file,
            host: HostOffset(at.host.0.saturating_add(by)),
        };
        match self {
            Self::Data(at) => Self::Data(shift(at)),
            Self::Zero { allocation } => Self::Zero { allocation: allocation.map(shift) },
            Self::Backing { allocation } => Self::Backing { allocation: allocation.map(shift) },
            Self::Encoded { .. } | Self::Opaque => self,
        }
    }
}
