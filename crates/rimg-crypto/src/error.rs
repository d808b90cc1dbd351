//! What can be wrong with an encrypted image's header, one kind each, so that tests can ask for
//! exactly the one.

use crate::{CipherAlgorithm, CipherMode, Hash};
use rimg_core::{Error, HostOffset, Location};

pub(crate) const FORMAT: &str = "luks";

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("the header ends after {0} bytes")]
    Truncated(u64),
    #[error("text is not terminated or not UTF-8")]
    NotText,
    #[error("keys of {0} bytes are not possible")]
    KeyBytes(u64),
    #[error("0 iterations")]
    NoIterations,
    #[error("{0:#x} says neither active nor inactive")]
    SlotState(u32),
    #[error("{0} stripes are not 4000")]
    Stripes(u32),
    #[error("headers of {0} bytes are not possible")]
    HeaderBytes(u64),
    #[error("the header says that it lies at offset {0:#x}, where it does not")]
    HeaderOffset(u64),
    #[error("checksum does not fit")]
    Checksum,
    #[error("{0}")]
    Json(String),
    #[error("key material at sector {0} overlaps the header")]
    InHeader(u32),
    #[error("key material at sector {0} overlaps that of another key slot")]
    SlotsOverlap(u32),
    #[error("key material at sector {0} overlaps the data")]
    InPayload(u32),
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

/// A cipher that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CipherError {
    /// This crate does not have it.
    #[error("cipher {0}")]
    Unknown(String),
    /// The key does not fit the cipher.
    #[error("a key of {given} bytes for a cipher that takes {needed}")]
    KeyLength {
        /// What the cipher takes, in bytes.
        needed: usize,
        /// What was given, in bytes.
        given: usize,
    },
    /// ESSIV makes the hash of the key a key itself, and digests of this hash are none for the
    /// cipher.
    #[error("{}", essiv_hash(*.0, *.1))]
    EssivHash(CipherAlgorithm, Hash),
    /// The cipher's blocks are too short for XTS.
    #[error("Unsupported cipher mode {}", .0.name())]
    Mode(CipherMode),
    /// Sectors are 512 to 4096 bytes, and powers of two.
    #[error("sectors of {0} bytes")]
    SectorBytes(u64),
}

/// What QEMU says of it.
fn essiv_hash(algorithm: CipherAlgorithm, hash: Hash) -> String {
    match algorithm.family_name() {
        Some(family) => {
            format!("No {family} cipher with key size {} available", hash.digest_bytes())
        }
        None => format!("Cipher {} not supported with essiv", algorithm.name()),
    }
}

impl From<CipherError> for Error {
    fn from(error: CipherError) -> Self {
        Self::Unsupported { format: FORMAT, feature: error.to_string() }
    }
}

#[cfg(test)]
pub(crate) fn kind_of(error: &Error) -> Option<&CorruptKind> {
    match error {
        Error::Corrupt { source, .. } => source.downcast_ref(),
        _ => None,
    }
}
