//! Errors, sorted by whose fault they are.

use crate::{Codec, DependencyRole, HostOffset};
use core::fmt;
use std::io;

/// The result of every fallible call of rimg.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause of an error, whatever its type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong. `Display` never repeats the source: print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage below the image failed.
    #[error("{op} at offset {at:#x}")]
    Io {
        /// What was being done, as in "read L2 table".
        op: &'static str,
        /// Where in the file, in bytes.
        at: u64,
        /// Why it failed.
        source: io::Error,
    },
    /// The bytes are not of this format at all.
    #[error("image is not in {format} format")]
    WrongFormat {
        /// The format's name.
        format: &'static str,
    },
    /// The image's bytes contradict its format.
    #[error("{format} image is corrupt: {at}")]
    Corrupt {
        /// The format's name.
        format: &'static str,
        /// Which field is wrong.
        at: Location,
        /// What is wrong with it.
        source: BoxError,
    },
    /// The image, or the request, needs something that rimg or the format does not do.
    #[error("unsupported {format} feature: {feature}")]
    Unsupported {
        /// The format's name.
        format: &'static str,
        /// The feature in words, from the image's own feature-name table where it has one.
        feature: String,
    },
    /// Going on would cost more than the caller allows.
    #[error("{what} needs {needed}, more than the limit of {limit}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// How much the image asks for.
        needed: u64,
        /// How much the caller allows.
        limit: u64,
    },
    /// A policy forbids it.
    #[error("{0}")]
    Denied(String),
    /// A creation or open option has a value that cannot be.
    #[error("{reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What is wrong with the value, as a sentence of its own.
        reason: String,
    },
    /// A file that the image refers to could not be opened.
    #[error("could not open {role} '{name}'")]
    Dependency {
        /// What the file is to the image.
        role: DependencyRole,
        /// Its name, as the image gives it.
        name: String,
        /// Why it could not be opened.
        source: Box<Error>,
    },
    /// The image was opened for reading only, or its format cannot be written.
    #[error("image is read-only: {0}")]
    ReadOnly(&'static str),
    /// An encoded cluster does not decode.
    #[error("cannot decode {codec} data at host offset {host}")]
    Decode {
        /// The cluster's codec.
        codec: Codec,
        /// Where the encoded bytes start.
        host: HostOffset,
        /// What the decoder said.
        source: BoxError,
    },
    /// The work was cancelled from outside.
    #[error("interrupted")]
    Cancelled,
    /// The caller's mistake; image bytes never cause it.
    #[error("misuse: {0}")]
    Misuse(&'static str),
}

impl Error {
    /// What [`ReadOnly`](Self::ReadOnly) says of an image that itself says that it is damaged.
    pub const MARKED_CORRUPT: &str = "it is marked corrupt";

    /// Adds what was being done, and where, to an I/O error: `.map_err(Error::io("read header", 0))`.
    pub fn io(op: &'static str, at: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, at, source }
    }

    /// A run-time option that a format does not have.
    #[must_use]
    pub fn unknown_open_option(format: &'static str, name: &str) -> Self {
        Self::InvalidOption {
            option: "options",
            reason: format!("Block format '{format}' does not support the option '{name}'"),
        }
    }

    /// The `io::Error` at the bottom of the chain, where there is one.
    #[must_use]
    pub fn as_io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Dependency { source, .. } => source.as_io(),
            _ => None,
        }
    }
}

/// The field that a corruption was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The on-disk structure, in the specification's words ("L2 table").
    pub structure: &'static str,
    /// The field of it.
    pub field: &'static str,
    /// Where the field lies in its file.
    pub offset: HostOffset,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} at offset {}", self.structure, self.field, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn display_does_not_repeat_the_source() {
        let error = Error::io("read header", 512)(io::Error::other("boom"));
        assert_eq!(error.to_string(), "read header at offset 0x200");
        assert_eq!(error.source().map(ToString::to_string), Some("boom".into()));
    }

    #[test]
    fn corruption_names_structure_field_and_offset() {
        let error = Error::Corrupt {
            format: "qcow2",
            at: Location { structure: "header", field: "l1_size", offset: HostOffset(36) },
            source: "too small".into(),
        };
        assert_eq!(error.to_string(), "qcow2 image is corrupt: header, l1_size at offset 0x24");
    }
}
