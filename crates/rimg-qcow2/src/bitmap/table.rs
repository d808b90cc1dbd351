//! The entries of a bitmap table (Bitmap table).
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::CorruptKind;
use crate::spec;

/// What a bitmap table says of one cluster of a bitmap's bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TableEntry {
    /// All bits are 0.
    #[default]
    Zeroes,
    /// All bits are 1.
    Ones,
    /// The bits are in the cluster at this offset.
    Cluster(u64),
}

/// Bit 0 of an entry without a cluster: all bits are 1.
const ALL_ONES: u64 = 1 << 0;
/// Bits 1-8 and 56-63 have no meaning.
const RESERVED: u64 = 0xff00_0000_0000_01fe;

impl TableEntry {
    pub(crate) fn parse(raw: u64, g: Geometry) -> Result<Self, CorruptKind> {
        let cluster = raw & spec::OFFSET_MASK;
        let is_reserved = raw & RESERVED != 0 || (cluster != 0 && raw & ALL_ONES != 0);
        if is_reserved {
            return Err(CorruptKind::ReservedBits(raw));
        }
        if !g.is_aligned(cluster) {
            return Err(CorruptKind::Misaligned(cluster));
        }
        Ok(match (cluster, raw) {
            (0, 0) => Self::Zeroes,
            (0, _) => Self::Ones,
            (cluster, _) => Self::Cluster(cluster),
        })
    }

    pub(crate) const fn encode(self) -> u64 {
        match self {
            Self::Zeroes => 0,
            Self::Ones => ALL_ONES,
            Self::Cluster(at) => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{ClusterBits, RefcountOrder};

    #[test]
    fn entries_are_zeroes_ones_or_a_cluster() {
        let g = Geometry {
            cluster: ClusterBits::new(16).unwrap(),
            extended_l2: false,
            zero_flag: true,
            refcount: RefcountOrder::new(4).unwrap(),
        };
        let parse = |raw| TableEntry::parse(raw, g);
        for (raw, entry) in [
            (0, TableEntry::Zeroes),
            (1, TableEntry::Ones),
            (0x5_0000, TableEntry::Cluster(0x5_0000)),
            (0x00ff_ffff_ffff_0000, TableEntry::Cluster(0x00ff_ffff_ffff_0000)),
        ] {
            assert_eq!(parse(raw), Ok(entry));
            assert_eq!(entry.encode(), raw);
        }
        for raw in [2, 0x100, 0x5_0001, 1 << 56, 1 << 63] {
            assert_eq!(parse(raw), Err(CorruptKind::ReservedBits(raw)), "{raw:#x}");
        }
        assert_eq!(parse(0x5_0200), Err(CorruptKind::Misaligned(0x5_0200)));
    }
}
