//! The Format Extension: a cluster of features that somebody may know.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::{CorruptKind, FORMAT};
use crate::spec::extension as spec;
use rimg_core::{Error, Result};

rimg_core::on_disk! {
    /// The start of a feature section.
    struct RawFeature: LittleEndian, 24 bytes {
        magic: u64 = 0,
        flags: u64 = 8,
        data_size: u32 = 16,
    }
}

/// What a Format Extension means to somebody who is about to change the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extension {
    features: Vec<(u64, u64)>,
}

/// What becomes of a Format Extension when the disk is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// It goes: what it says would not be true any more.
    Drop,
    /// It stays as it is.
    Keep,
}

impl Extension {
    /// Reads the sections of a cluster that starts at `at` in the file.
    pub(crate) fn parse(cluster: &[u8], at: u64) -> Result<Self> {
        let wrong = || CorruptKind::Extension.at("Format Extension", "magic", at);
        let magic = cluster.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if magic != Some(spec::MAGIC) {
            return Err(wrong());
        }
        let mut rest = cluster.get(spec::HEADER_BYTES..).ok_or_else(wrong)?;
        let mut features = Vec::new();
        loop {
            let raw = RawFeature::parse(rest.first_chunk().ok_or_else(wrong)?);
            if raw.magic == spec::END_OF_FEATURES {
                return Ok(Self { features });
            }
            features.push((raw.magic, raw.flags));
            let len = usize::try_from(raw.data_size).ok().and_then(|len| {
                len.checked_next_multiple_of(8)?.checked_add(RawFeature::SIZE_BYTES)
            });
            rest = len.and_then(|len| rest.get(len..)).ok_or_else(wrong)?;
        }
    }

    /// What becomes of it when the disk is changed. Dirty bitmaps are not kept up here.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the disk must not be changed by somebody who does not know all
    /// of it, or when some of it has to stay and some has to go.
    pub(crate) fn keeping(&self) -> Result<Keeping> {
        let is_necessary = |(_, flags): &&(u64, u64)| flags & spec::NECESSARY != 0;
        if let Some((magic, _)) = self.features.iter().find(is_necessary) {
            return unsupported(format!("writing with necessary extension {magic:#x}"));
        }
        let stays = |(magic, flags): &&(u64, u64)| {
            *magic != spec::DIRTY_BITMAP && flags & spec::TRANSIT != 0
        };
        match self.features.iter().filter(stays).count() {
            0 => Ok(Keeping::Drop),
            all if all == self.features.len() => Ok(Keeping::Keep),
            _ => unsupported("writing with extensions of which some stay and some go".to_owned()),
        }
    }
}

fn unsupported<T>(feature: String) -> Result<T> {
    Err(Error::Unsupported { format: FORMAT, feature })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    fn cluster(features: &[(u64, u64, u32)]) -> Vec<u8> {
        let mut bytes = spec::MAGIC.to_le_bytes().to_vec();
        bytes.resize(spec::HEADER_BYTES, 0);
        for &(magic, flags, data_size) in features {
            bytes.extend_from_slice(&RawFeature { magic, flags, data_size }.encode());
            bytes.extend((0..data_size.next_multiple_of(8)).map(|_| 7));
        }
        bytes.extend_from_slice(&[0; RawFeature::SIZE_BYTES]);
        bytes
    }

    #[test]
    fn bitmaps_go_and_what_is_in_transit_stays() {
        let keeping = |features: &[(u64, u64, u32)]| {
            Extension::parse(&cluster(features), 0).unwrap().keeping().ok()
        };
        let bitmap = spec::DIRTY_BITMAP;
        assert_eq!(keeping(&[]), Some(Keeping::Drop));
        assert_eq!(keeping(&[(bitmap, 0, 44), (77, 0, 3)]), Some(Keeping::Drop));
        assert_eq!(keeping(&[(77, spec::TRANSIT, 0)]), Some(Keeping::Keep));
        assert_eq!(keeping(&[(77, spec::TRANSIT, 1), (78, 0, 0)]), None);
        assert_eq!(keeping(&[(77, spec::NECESSARY | spec::TRANSIT, 1)]), None);
        let two = Extension::parse(&cluster(&[(bitmap, 0, 44), (bitmap, 2, 1)]), 0).unwrap();
        assert_eq!(two.keeping().ok(), Some(Keeping::Drop));
    }

    #[test]
    fn sections_end_within_the_cluster() {
        let good = cluster(&[(77, 0, 9)]);
        assert!(Extension::parse(&good, 0).is_ok());
        for len in [0, 7, 24, 47, 60, good.len() - 1] {
            let error = Extension::parse(&good[..len], 0).unwrap_err();
            assert_eq!(kind_of(&error), Some(&CorruptKind::Extension), "{len}");
        }
        let mut huge = good;
        huge[40..44].fill(0xff);
        assert!(Extension::parse(&huge, 0).is_err());
    }
}
