//! The two headers of seSparse extents: one that never changes, and one that does.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::CorruptKind;
use crate::spec::{SECTOR_BYTES, sesparse};
use rimg_core::{Result, on_disk};

const STRUCTURE: &str = "seSparse header";

on_disk! {
    /// The header that never changes; offsets and sizes are in sectors.
    pub(crate) struct RawConstHeader: LittleEndian, 512 bytes {
        magic: u64 = 0,
        version: u64 = 8,
        capacity: u64 = 16,
        grain_size: u64 = 24,
        grain_table_size: u64 = 32,
        flags: u64 = 40,
        volatile_header_offset: u64 = 80,
        volatile_header_size: u64 = 88,
        journal_header_offset: u64 = 96,
        journal_header_size: u64 = 104,
        journal_offset: u64 = 112,
        journal_size: u64 = 120,
        gd_offset: u64 = 128,
        gd_size: u64 = 136,
        gt_offset: u64 = 144,
        gt_size: u64 = 152,
        free_bitmap_offset: u64 = 160,
        free_bitmap_size: u64 = 168,
        backmap_offset: u64 = 176,
        backmap_size: u64 = 184,
        grains_offset: u64 = 192,
        grains_size: u64 = 200,
    }
}

on_disk! {
    /// The header that changes.
    pub(crate) struct RawVolatileHeader: LittleEndian, 512 bytes {
        magic: u64 = 0,
        free_gt_number: u64 = 8,
        next_transaction: u64 = 16,
        replay_journal: u64 = 24,
    }
}

/// A header whose fields are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeSparseHeader {
    pub(crate) geometry: Geometry,
    /// Where the grain directory starts, in bytes.
    pub(crate) gd: u64,
    /// Where the tables that the directory counts start, in bytes, and how many there are.
    pub(crate) tables: u64,
    pub(crate) table_count: u64,
    /// Where the grains that tables count start, in bytes.
    pub(crate) grains: u64,
    /// Where the header that changes lies, in bytes.
    pub(crate) volatile: u64,
}

impl SeSparseHeader {
    pub(crate) fn parse(bytes: &[u8; 512]) -> Result<Self> {
        let raw = RawConstHeader::parse(bytes);
        let expected = [
            (raw.magic, sesparse::CONST_MAGIC, "magic"),
            (raw.version, sesparse::VERSION, "version"),
            (raw.grain_size, sesparse::GRAIN_SECTORS, "grain_size"),
            (raw.grain_table_size, sesparse::GT_SECTORS, "grain_table_size"),
            (raw.flags, 0, "flags"),
            (raw.volatile_header_size, 1, "volatile_header_size"),
        ];
        for (value, wanted, field) in expected {
            if value != wanted {
                let kind = match field {
                    "magic" => CorruptKind::Magic(value),
                    "version" => CorruptKind::Version(value),
                    _ => CorruptKind::Value(value),
                };
                return Err(kind.at(STRUCTURE, field, RawConstHeader::offset_of(field)));
            }
        }
        let bytes = |sectors: u64, field: &'static str, kind: fn(u64) -> CorruptKind| {
            let bytes = sectors.checked_mul(SECTOR_BYTES).filter(|bytes| *bytes >> 62 == 0);
            bytes
                .ok_or_else(|| kind(sectors).at(STRUCTURE, field, RawConstHeader::offset_of(field)))
        };
        let geometry = Geometry {
            size_bytes: bytes(raw.capacity, "capacity", CorruptKind::Capacity)?,
            grain_bits: 12,
            gtes_per_gt: 4096,
        };
        let entries =
            bytes(raw.gd_size, "gd_size", CorruptKind::Value)?.checked_div(8).unwrap_or(0);
        if entries < geometry.tables() {
            let kind = CorruptKind::DirectoryTooSmall { entries, needed: geometry.tables() };
            return Err(kind.at(STRUCTURE, "gd_size", RawConstHeader::offset_of("gd_size")));
        }
        Ok(Self {
            geometry,
            gd: bytes(raw.gd_offset, "gd_offset", CorruptKind::OutOfRange)?,
            tables: bytes(raw.gt_offset, "gt_offset", CorruptKind::OutOfRange)?,
            table_count: raw.gt_size.checked_div(sesparse::GT_SECTORS).unwrap_or(0),
            grains: bytes(raw.grains_offset, "grains_offset", CorruptKind::OutOfRange)?,
            volatile: bytes(
                raw.volatile_header_offset,
                "volatile_header_offset",
                CorruptKind::OutOfRange,
            )?,
        })
    }

    /// Refuses an extent whose journal would have to be replayed. `at` is where the header lies.
    pub(crate) fn check_volatile(bytes: &[u8; 512], at: u64) -> Result<()> {
        const NAME: &str = "seSparse volatile header";
        let raw = RawVolatileHeader::parse(bytes);
        if raw.magic != sesparse::VOLATILE_MAGIC {
            return Err(CorruptKind::Magic(raw.magic).at(NAME, "magic", at));
        }
        if raw.replay_journal & 0xff != 0 {
            return Err(CorruptKind::Journal.at(NAME, "replay_journal", at.saturating_add(24)));
        }
        Ok(())
    }
}
