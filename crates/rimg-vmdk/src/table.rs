//! Entries of grain directories and grain tables, to and from numbers.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use crate::spec::{SECTOR_BYTES, sesparse, sparse};

/// What a grain table says of a grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrainEntry {
    /// Nothing: see the parent.
    Unallocated,
    /// It reads as zeroes.
    Zero,
    /// It lies here, in bytes of the file; compressed grains with their marker.
    At(u64),
}

/// How entries of one extent are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableKind {
    /// Hosted sparse extents: sectors, and 1 for zeroes where the header says so.
    Sparse { zeroed_grains: bool },
    /// ESXi host sparse extents: sectors.
    Cowd,
    /// seSparse extents: numbers of tables and grains.
    SeSparse { tables: u64, table_count: u64, grains: u64 },
}

impl TableKind {
    /// Bytes of an entry.
    pub(crate) const fn entry_bytes(self) -> u64 {
        match self {
            Self::Sparse { .. } | Self::Cowd => 4,
            Self::SeSparse { .. } => 8,
        }
    }

    /// Where the table lies that an entry of a grain directory is for; `None`: all of its grains
    /// are unallocated.
    pub(crate) fn table(self, entry: u64) -> Result<Option<u64>, CorruptKind> {
        match self {
            Self::Sparse { .. } | Self::Cowd => Ok(match entry {
                0 => None,
                sector => Some(sector.saturating_mul(SECTOR_BYTES)),
            }),
            Self::SeSparse { tables, table_count, .. } => {
                let number = entry & 0xffff_ffff;
                match entry >> 32 {
                    0 if number == 0 => Ok(None),
                    sesparse::GD_ALLOCATED if number < table_count => {
                        let table = sesparse::GT_SECTORS.saturating_mul(SECTOR_BYTES);
                        Ok(Some(tables.saturating_add(number.saturating_mul(table))))
                    }
                    _ => Err(CorruptKind::Entry(entry)),
                }
            }
        }
    }

    /// What an entry of a grain table says.
    pub(crate) fn grain(self, entry: u64) -> Result<GrainEntry, CorruptKind> {
        match self {
            _ if entry == 0 => Ok(GrainEntry::Unallocated),
            Self::Sparse { zeroed_grains: true } if entry == sparse::ZEROED_GRAIN => {
                Ok(GrainEntry::Zero)
            }
            Self::Sparse { .. } | Self::Cowd => {
                Ok(GrainEntry::At(entry.saturating_mul(SECTOR_BYTES)))
            }
            Self::SeSparse { grains, .. } => match entry >> 60 {
                sesparse::entry::UNMAPPED | sesparse::entry::ZERO => Ok(GrainEntry::Zero),
                sesparse::entry::ALLOCATED => {
                    // The number of the grain: its low twelve bits stand above the others.
                    let low = entry >> 48 & 0xfff;
                    let high = (entry & 0xffff_ffff_ffff) << 12;
                    let grain = sesparse::GRAIN_SECTORS.saturating_mul(SECTOR_BYTES);
                    let at = (high | low).checked_mul(grain).and_then(|at| at.checked_add(grains));
                    at.map(GrainEntry::At).ok_or(CorruptKind::Entry(entry))
                }
                _ => Err(CorruptKind::Entry(entry)),
            },
        }
    }
}

/// One entry of a table in bytes; 0 behind its end.
pub(crate) fn entry(table: &[u8], index: usize, entry_bytes: u64) -> u64 {
    if entry_bytes == 8 {
        table.as_chunks::<8>().0.get(index).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    } else {
        table.as_chunks::<4>().0.get(index).map_or(0, |bytes| u32::from_le_bytes(*bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_and_zeroed_grains() {
        let plain = TableKind::Sparse { zeroed_grains: false };
        let zeroed = TableKind::Sparse { zeroed_grains: true };
        assert_eq!(plain.grain(0), Ok(GrainEntry::Unallocated));
        assert_eq!(plain.grain(1), Ok(GrainEntry::At(512)));
        assert_eq!(zeroed.grain(1), Ok(GrainEntry::Zero));
        assert_eq!(zeroed.grain(128), Ok(GrainEntry::At(65_536)));
        assert_eq!((plain.table(0), plain.table(22)), (Ok(None), Ok(Some(22 * 512))));
    }

    #[test]
    fn numbers_of_se_sparse() {
        let kind = TableKind::SeSparse { tables: 1 << 20, table_count: 2, grains: 1 << 30 };
        assert_eq!(kind.table(0), Ok(None));
        assert_eq!(kind.table(0x1000_0000_0000_0001), Ok(Some((1 << 20) + 32_768)));
        for wrong in [1, 0x1000_0000_0000_0002, 0x2000_0000_0000_0001] {
            assert_eq!(kind.table(wrong), Err(CorruptKind::Entry(wrong)));
        }
        assert_eq!(kind.grain(0x1000_0000_0000_0000), Ok(GrainEntry::Zero));
        assert_eq!(kind.grain(0x2000_0000_0000_0000), Ok(GrainEntry::Zero));
        assert_eq!(kind.grain(0x3001_0000_0000_0000), Ok(GrainEntry::At((1 << 30) + 4096)));
        let high = GrainEntry::At((1 << 30) + 4096 * 4096);
        assert_eq!(kind.grain(0x3000_0000_0000_0001), Ok(high));
        for wrong in [7, 0x4000_0000_0000_0000, 0x3000_ffff_ffff_ffff] {
            assert_eq!(kind.grain(wrong), Err(CorruptKind::Entry(wrong)));
        }
    }

    #[test]
    fn entries_are_little_endian() {
        let table = [1, 0, 0, 0, 2, 0, 0, 0x10];
        assert_eq!(entry(&table, 1, 4), 0x1000_0002);
        assert_eq!(entry(&table, 0, 8), 0x1000_0002_0000_0001);
        assert_eq!((entry(&table, 2, 4), entry(&table, 1, 8)), (0, 0));
    }
}
