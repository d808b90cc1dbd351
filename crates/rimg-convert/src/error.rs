//! Why a conversion ended early.

use rimg_core::Error;
use std::error::Error as StdError;

/// Why a conversion ended early. `Display` never repeats the source: print the chain.
///
/// Of several failures it is the one at the lowest offset that is reported, whatever the number
/// of threads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The source does not say what lies there.
    #[error("error while reading block status at offset {at}")]
    Map {
        /// The guest offset in bytes, counted over all sources.
        at: u64,
        /// Why.
        source: Error,
    },
    /// The source cannot be read there.
    #[error("error while reading at byte {at}")]
    Read {
        /// The guest offset in bytes, counted over all sources.
        at: u64,
        /// Why.
        source: Error,
    },
    /// The target cannot be written there.
    #[error("error while writing at byte {at}")]
    Write {
        /// The guest offset in bytes.
        at: u64,
        /// Why.
        source: Error,
    },
    /// The target's metadata could not be written back, or not be read to begin with.
    #[error("error while {doing} the target")]
    Target {
        /// What was being done, as in "flushing".
        doing: &'static str,
        /// Why.
        source: Error,
    },
    /// All is in the base, but the overlay could not be emptied.
    #[error("error while emptying the overlay")]
    Empty {
        /// Why.
        source: Error,
    },
    /// The target cannot be written.
    #[error("target is read-only")]
    ReadOnly,
    /// Compression was asked for and the target's format has none.
    #[error("Compression not supported for this file format")]
    NoCompression,
    /// The sources together are larger than the target.
    #[error("output file is smaller than input file")]
    TargetTooSmall {
        /// What is there to be copied, in bytes.
        needed: u64,
        /// The target's size in bytes.
        size: u64,
    },
    /// Two options exclude each other, or a value is out of bounds.
    #[error("{0}")]
    Options(&'static str),
    /// There is no such image below, or none at all.
    #[error("Image does not have a backing file")]
    NoBacking,
    /// The image below, or what it is named in the image, cannot be changed.
    #[error("Could not change the backing file to '{name}'")]
    ChangeBacking {
        /// What it was to be.
        name: String,
        /// Why not.
        source: Error,
    },
    /// The format of an image that gets a backing file does not know such.
    #[error("Operation not supported")]
    NoOverlay,
    /// The work was cancelled from outside.
    #[error("interrupted")]
    Cancelled,
}

impl ConvertError {
    /// The `io::Error` at the bottom of the chain, where there is one.
    #[must_use]
    pub fn as_io(&self) -> Option<&std::io::Error> {
        let mut next = self.source();
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref() {
                return Some(io);
            }
            next = error.source();
        }
        None
    }
}
