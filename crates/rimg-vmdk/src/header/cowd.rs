//! The header of ESXi host sparse extents, `COWD`.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::CorruptKind;
use crate::spec::{SECTOR_BYTES, cowd, sparse};
use rimg_core::{Result, on_disk};

const STRUCTURE: &str = "COWD header";

on_disk! {
    /// The fields of `COWDisk_Header` that tell where data is; offsets and sizes are in sectors.
    pub(crate) struct RawCowd: LittleEndian, 512 bytes {
        magic: u32 = 0,
        version: u32 = 4,
        flags: u32 = 8,
        sectors: u32 = 12,
        grain_size: u32 = 16,
        gd_offset: u32 = 20,
        gd_entries: u32 = 24,
        free_sector: u32 = 28,
    }
}

/// A header whose fields are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CowdHeader {
    pub(crate) geometry: Geometry,
    /// Where the grain directory starts, in bytes.
    pub(crate) gd: u64,
}

impl CowdHeader {
    pub(crate) fn parse(bytes: &[u8; 512]) -> Result<Self> {
        let raw = RawCowd::parse(bytes);
        let wrong = |kind: CorruptKind, field: &'static str, offset: u64| {
            Err(kind.at(STRUCTURE, field, offset))
        };
        if raw.magic != cowd::MAGIC {
            return wrong(CorruptKind::Magic(raw.magic.into()), "magicNumber", 0);
        }
        if raw.version != cowd::VERSION {
            let offset = RawCowd::offset_of("version");
            return wrong(CorruptKind::Version(raw.version.into()), "version", offset);
        }
        let grain = u64::from(raw.grain_size);
        if !grain.is_power_of_two() || grain > sparse::MAX_GRAIN_SECTORS {
            let offset = RawCowd::offset_of("grain_size");
            return wrong(CorruptKind::GrainSize(grain), "grainSize", offset);
        }
        let geometry = Geometry {
            size_bytes: u64::from(raw.sectors).saturating_mul(SECTOR_BYTES),
            grain_bits: raw.grain_size.trailing_zeros().saturating_add(9),
            gtes_per_gt: cowd::GTES_PER_GT,
        };
        let entries = u64::from(raw.gd_entries);
        if entries < geometry.tables() {
            let kind = CorruptKind::DirectoryTooSmall { entries, needed: geometry.tables() };
            return wrong(kind, "numGDEntries", RawCowd::offset_of("gd_entries"));
        }
        Ok(Self { geometry, gd: u64::from(raw.gd_offset).saturating_mul(SECTOR_BYTES) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    #[test]
    fn each_wrong_field_is_named() {
        let right = RawCowd {
            magic: cowd::MAGIC,
            version: 1,
            flags: 3,
            sectors: 8193,
            grain_size: 1,
            gd_offset: 4,
            gd_entries: 3,
            free_sector: 100,
        };
        let parsed = CowdHeader::parse(&right.encode()).unwrap();
        assert_eq!((parsed.gd, parsed.geometry.tables()), (2048, 3));
        type Case = (fn(&mut RawCowd), CorruptKind);
        let cases: &[Case] = &[
            (|h| h.magic = 1, CorruptKind::Magic(1)),
            (|h| h.version = 3, CorruptKind::Version(3)),
            (|h| h.grain_size = 3, CorruptKind::GrainSize(3)),
            (|h| h.gd_entries = 2, CorruptKind::DirectoryTooSmall { entries: 2, needed: 3 }),
        ];
        for (change, kind) in cases {
            let mut raw = right;
            change(&mut raw);
            let error = CowdHeader::parse(&raw.encode()).unwrap_err();
            assert_eq!(kind_of(&error), Some(kind));
        }
    }
}
