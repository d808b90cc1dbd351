//! LUKS version 2, for reading: two copies of a binary header, each with a JSON object that tells
//! of key slots, digests and segments. The specification is "LUKS2 On-Disk Format", 1.1.4.
//!
//! ```no_run
//! use rimg_core::{Limits, Secret, Storage};
//! use rimg_crypto::luks2::Header;
//!
//! # fn open(file: &dyn Storage) -> Result<(), Box<dyn std::error::Error>> {
//! let limits = Limits::default();
//! let header = Header::read(file, 0, &limits)?;
//! if let Some(key) = header.unlock(file, 0, &Secret::from("correct horse"), &limits)? {
//!     let mut sector = vec![0; 4096];
//!     file.read_exact_at(&mut sector, header.segment().offset)?;
//!     header.data_cipher(&key)?.decrypt(&mut sector, header.segment().first_sector)?;
//! }
//! # Ok(())
//! # }
//! ```

mod binary;
mod metadata;
mod unlock;

pub use metadata::Segment;

use binary::Copy;
use metadata::Metadata;
use rimg_core::{Error, Limits, Result, Storage};

/// A LUKS2 header: the newer one of the two that a volume has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    uuid: String,
    label: String,
    metadata: Metadata,
}

impl Header {
    /// Whether these are the first bytes of a LUKS2 header.
    #[must_use]
    pub fn is_magic(bytes: &[u8]) -> bool {
        bytes.starts_with(b"LUKS\xba\xbe\0\x02")
    }

    /// Reads the volume that starts at offset `at` of `file`: of its two headers the one that was
    /// written last, among those whose checksums are right.
    ///
    /// # Errors
    /// [`Error::WrongFormat`] when there is no header at all, [`Error::Corrupt`] when none is
    /// right, [`Error::Unsupported`] for what this crate cannot read, [`Error::Limit`] when the
    /// metadata budget does not allow for a header; what the storage says.
    pub fn read(file: &dyn Storage, at: u64, limits: &Limits) -> Result<Self> {
        let mut budget = limits.metadata_budget();
        let first = Copy::read(file, at, at, &mut budget);
        let second_places: Vec<u64> = match &first {
            Ok(first) => vec![first.size_bytes],
            Err(_) => binary::sizes().collect(),
        };
        let mut newest = first;
        for place in second_places {
            let second = Copy::read(file, at, at.saturating_add(place), &mut budget);
            let is_newer = match (&newest, &second) {
                (Ok(newest), Ok(second)) => second.sequence > newest.sequence,
                (Err(_), Ok(_)) => true,
                (_, Err(_)) => false,
            };
            if is_newer {
                newest = second;
            }
        }
        let newest = newest?;
        let metadata = Metadata::parse(&newest.json, newest.json_at)?;
        Ok(Self { uuid: newest.uuid, label: newest.label, metadata })
    }

    /// What tells the volume from others.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// A name for people.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where the data is.
    #[must_use]
    pub const fn segment(&self) -> &Segment {
        &self.metadata.segment
    }
}

fn unsupported<T>(feature: impl Into<String>) -> Result<T> {
    Err(Error::Unsupported { format: crate::error::FORMAT, feature: feature.into() })
}
