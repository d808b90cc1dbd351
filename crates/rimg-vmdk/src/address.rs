//! Grains and tables of grains.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use core::ops::Range;

/// How an extent is divided: grains of a power of two, and tables of a number of grains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// The size of the extent's part of the disk in bytes; the last grain may reach beyond.
    pub(crate) size_bytes: u64,
    /// Log2 of the bytes of a grain: 9 to 26.
    pub(crate) grain_bits: u32,
    /// Entries of a grain table, never 0.
    pub(crate) gtes_per_gt: u32,
}

impl Geometry {
    pub(crate) const fn grain_bytes(self) -> u64 {
        1 << self.grain_bits
    }

    pub(crate) const fn grain_index(self, at: u64) -> u64 {
        at >> self.grain_bits
    }

    pub(crate) const fn in_grain(self, at: u64) -> u64 {
        at & self.grain_bytes().wrapping_sub(1)
    }

    /// Where a grain starts on the extent's part of the disk.
    pub(crate) const fn grain_start(self, grain: u64) -> u64 {
        grain << self.grain_bits
    }

    /// The part of the disk that a grain covers, not beyond its end.
    pub(crate) fn grain_range(self, grain: u64) -> Range<u64> {
        let start = self.grain_start(grain);
        start..start.saturating_add(self.grain_bytes()).min(self.size_bytes)
    }

    pub(crate) const fn grains(self) -> u64 {
        self.size_bytes.div_ceil(self.grain_bytes())
    }

    /// How many tables it takes to have an entry for each grain.
    pub(crate) fn tables(self) -> u64 {
        self.grains().div_ceil(self.gtes().max(1))
    }

    pub(crate) fn gtes(self) -> u64 {
        self.gtes_per_gt.into()
    }

    /// The number of the table that has a grain's entry.
    pub(crate) fn table_of(self, grain: u64) -> u64 {
        grain.checked_div(self.gtes()).unwrap_or(0)
    }

    /// The number of a grain's entry in its table.
    pub(crate) fn entry_of(self, grain: u64) -> u64 {
        grain.checked_rem(self.gtes()).unwrap_or(0)
    }
}

/// The sectors that so many bytes need.
pub(crate) const fn sectors(bytes: u64) -> u64 {
    bytes.div_ceil(crate::spec::SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_grain_may_be_short() {
        let g = Geometry { size_bytes: 5_000_192, grain_bits: 16, gtes_per_gt: 32 };
        assert_eq!((g.grains(), g.tables()), (77, 3));
        assert_eq!(g.grain_range(76), 4_980_736..5_000_192);
        assert_eq!((g.table_of(33), g.entry_of(33)), (1, 1));
        assert_eq!((g.grain_index(65_537), g.in_grain(65_537)), (1, 1));
        assert_eq!(Geometry { size_bytes: 0, ..g }.tables(), 0);
    }
}
