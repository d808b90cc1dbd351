//! Entries of L1 and L2 tables, between their bits and what they mean.
//!
//! Bits that the specification reserves are ignored here, as QEMU ignores them; a check reports
//! them.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::CorruptKind;
use crate::spec;

/// An entry of an L1 table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct L1Entry(pub(crate) u64);

impl L1Entry {
    pub(crate) const fn new(table: u64) -> Self {
        Self(table | spec::COPIED)
    }

    /// Where the L2 table is, or `None` where there is none.
    pub(crate) fn table(self, geometry: Geometry) -> Result<Option<u64>, CorruptKind> {
        match self.0 & spec::OFFSET_MASK {
            0 => Ok(None),
            table if geometry.is_aligned(table) => Ok(Some(table)),
            table => Err(CorruptKind::Misaligned(table)),
        }
    }

    pub(crate) const fn is_copied(self) -> bool {
        self.0 & spec::COPIED != 0
    }
}

/// An entry of an L2 table as it is on disk; `bitmap` is 0 unless entries are extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct L2Entry {
    pub(crate) descriptor: u64,
    pub(crate) bitmap: u64,
}

/// What the descriptor of an L2 entry says of a whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// Has no space in the file.
    Unallocated,
    /// Has a cluster of the file to itself, or shares it with a snapshot unless `copied`.
    Standard { host: u64, copied: bool },
    /// Is stored compressed: at most `len` bytes from `host`. An extended entry's bitmap says
    /// nothing then, whatever it is.
    Compressed { host: u64, len: u64 },
}

/// What an L2 entry says of a subcluster, or of the whole cluster where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sub {
    /// Look below.
    Unallocated,
    /// Reads as zeroes; has space if its cluster has.
    Zero,
    /// Guest bytes at the same place of the host cluster.
    Data,
}

impl L2Entry {
    /// A standard cluster whose every byte is data.
    pub(crate) const fn standard(host: u64, geometry: Geometry) -> Self {
        Self {
            descriptor: host | spec::COPIED,
            bitmap: if geometry.extended_l2 { spec::ALLOCATED_BITS } else { 0 },
        }
    }

    /// A compressed cluster of `len` bytes (at least 1) at `host`.
    pub(crate) const fn compressed(host: u64, len: u64, geometry: Geometry) -> Self {
        let last = host.wrapping_add(len).wrapping_sub(1);
        let sectors = (last / spec::SECTOR_BYTES).wrapping_sub(host / spec::SECTOR_BYTES);
        Self {
            descriptor: spec::COMPRESSED | (sectors << geometry.compressed_sectors_shift()) | host,
            bitmap: 0,
        }
    }

    /// A cluster without space that reads as zeroes.
    pub(crate) const fn zero(geometry: Geometry) -> Self {
        if geometry.extended_l2 {
            Self { descriptor: 0, bitmap: spec::ALLOCATED_BITS << 32 }
        } else {
            Self { descriptor: spec::ZERO, bitmap: 0 }
        }
    }

    /// What the descriptor says. `identity` is the guest offset of the cluster where the image has
    /// an external data file: there, offset 0 with COPIED is a cluster like any other, and every
    /// cluster lies where the guest sees it.
    pub(crate) fn cluster(
        self,
        geometry: Geometry,
        identity: Option<u64>,
    ) -> Result<Cluster, CorruptKind> {
        if self.descriptor & spec::COMPRESSED != 0 {
            return self.compressed_cluster(geometry, identity);
        }
        if self.descriptor & spec::ZERO != 0 && !geometry.zero_flag && !geometry.extended_l2 {
            return Err(CorruptKind::ZeroFlagInVersion2(self.descriptor));
        }
        let host = self.descriptor & spec::OFFSET_MASK;
        let copied = self.descriptor & spec::COPIED != 0;
        if !geometry.is_aligned(host) {
            return Err(CorruptKind::Misaligned(host));
        }
        match identity {
            None if host == 0 => Ok(Cluster::Unallocated),
            Some(_) if host == 0 && !copied => Ok(Cluster::Unallocated),
            // Nothing counts who uses the data file: two clusters could share a place unnoticed.
            Some(guest) if host != guest => Err(CorruptKind::DataFileOffset { host, guest }),
            _ => Ok(Cluster::Standard { host, copied }),
        }
    }

    fn compressed_cluster(
        self,
        geometry: Geometry,
        identity: Option<u64>,
    ) -> Result<Cluster, CorruptKind> {
        if identity.is_some() {
            return Err(CorruptKind::CompressedInDataFile);
        }
        let host = self.descriptor & geometry.compressed_offset_mask();
        let sectors = (self.descriptor >> geometry.compressed_sectors_shift())
            & geometry.compressed_sectors_mask();
        let in_sector = host % spec::SECTOR_BYTES;
        // At most 2^13 + 1 sectors.
        let len =
            sectors.saturating_add(1).saturating_mul(spec::SECTOR_BYTES).saturating_sub(in_sector);
        Ok(Cluster::Compressed { host, len })
    }

    /// What the entry says of subcluster `index`, and how many subclusters from there on are
    /// alike. Not meaningful for compressed clusters.
    pub(crate) fn sub(self, geometry: Geometry, index: u32) -> Result<(Sub, u32), CorruptKind> {
        if !geometry.extended_l2 {
            let sub = if self.descriptor & spec::ZERO != 0 {
                Sub::Zero
            } else if self.descriptor & (spec::OFFSET_MASK | spec::COPIED) != 0 {
                Sub::Data
            } else {
                Sub::Unallocated
            };
            return Ok((sub, 1));
        }
        let allocated = self.bitmap & spec::ALLOCATED_BITS;
        let zero = self.bitmap >> 32;
        if allocated & zero != 0 {
            return Err(CorruptKind::SubclusterBitmap(self.bitmap));
        }
        let (allocated, zero) = (allocated >> index, zero >> index);
        let left = spec::SUBCLUSTERS.saturating_sub(index);
        let (sub, run) = if zero & 1 != 0 {
            (Sub::Zero, zero.trailing_ones())
        } else if allocated & 1 != 0 {
            (Sub::Data, allocated.trailing_ones())
        } else {
            (Sub::Unallocated, (allocated | zero).trailing_zeros())
        };
        Ok((sub, run.min(left)))
    }

    /// Whether a whole cluster without space in the file reads as zeroes all over.
    pub(crate) const fn is_plain_zero(self, geometry: Geometry) -> bool {
        if geometry.extended_l2 {
            self.descriptor == 0 && self.bitmap == spec::ALLOCATED_BITS << 32
        } else {
            self.descriptor == spec::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{ClusterBits, RefcountOrder};

    fn geometry(bits: u32, extended_l2: bool) -> Geometry {
        Geometry {
            cluster: ClusterBits::new(bits).unwrap(),
            extended_l2,
            zero_flag: !extended_l2,
            refcount: RefcountOrder::new(4).unwrap(),
        }
    }

    #[test]
    fn compressed_descriptors_round_trip_to_sectors() {
        for bits in [9, 16, 21] {
            let g = geometry(bits, false);
            for (host, len) in [(0x5_0000, 1), (0x5_01ff, 1), (0x5_01ff, 2), (0x5_0200, 512)] {
                let entry = L2Entry::compressed(host, len, g);
                let Ok(Cluster::Compressed { host: h, len: l }) = entry.cluster(g, None) else {
                    panic!("not compressed: {entry:?}")
                };
                assert_eq!(h, host);
                assert!(l >= len && l < len + 512, "{l} for {len}");
                assert_eq!((h + l) % 512, 0);
            }
        }
    }

    #[test]
    fn standard_entries() {
        let g = geometry(16, false);
        let entry = L2Entry::standard(0x5_0000, g);
        assert_eq!(entry.cluster(g, None), Ok(Cluster::Standard { host: 0x5_0000, copied: true }));
        assert_eq!(entry.sub(g, 0), Ok((Sub::Data, 1)));
        assert_eq!(L2Entry::default().cluster(g, None), Ok(Cluster::Unallocated));
        assert_eq!(L2Entry::default().sub(g, 0), Ok((Sub::Unallocated, 1)));
        let misaligned = L2Entry { descriptor: 0x5_0200, bitmap: 0 };
        assert_eq!(misaligned.cluster(g, None), Err(CorruptKind::Misaligned(0x5_0200)));
        let v2 = Geometry { zero_flag: false, ..g };
        let zero = L2Entry { descriptor: 1, bitmap: 0 };
        assert_eq!(zero.cluster(v2, None), Err(CorruptKind::ZeroFlagInVersion2(1)));
    }

    #[test]
    fn zero_entries_may_keep_their_space() {
        for extended in [false, true] {
            let g = geometry(16, extended);
            let plain = L2Entry::zero(g);
            assert!(plain.is_plain_zero(g));
            assert_eq!(plain.cluster(g, None), Ok(Cluster::Unallocated));
            assert_eq!(plain.sub(g, 0).map(|s| s.0), Ok(Sub::Zero));
            let host = 0x7_0000;
            let kept = L2Entry { descriptor: plain.descriptor | spec::COPIED | host, ..plain };
            assert!(!kept.is_plain_zero(g));
            assert_eq!(kept.cluster(g, None), Ok(Cluster::Standard { host, copied: true }));
            assert_eq!(kept.sub(g, 0).map(|s| s.0), Ok(Sub::Zero));
        }
    }

    #[test]
    fn subcluster_runs() {
        let g = geometry(16, true);
        let entry = L2Entry { descriptor: 0x5_0000 | spec::COPIED, bitmap: 0x0000_0010_0000_000f };
        assert_eq!(entry.sub(g, 0), Ok((Sub::Data, 4)));
        assert_eq!(entry.sub(g, 2), Ok((Sub::Data, 2)));
        assert_eq!(entry.sub(g, 4), Ok((Sub::Zero, 1)));
        assert_eq!(entry.sub(g, 5), Ok((Sub::Unallocated, 27)));
        let both = L2Entry { descriptor: 0, bitmap: 0x0000_0001_0000_0001 };
        assert_eq!(both.sub(g, 9), Err(CorruptKind::SubclusterBitmap(0x1_0000_0001)));
    }

    #[test]
    fn offset_zero_is_a_cluster_in_a_data_file() {
        let g = geometry(16, false);
        let entry = L2Entry { descriptor: spec::COPIED, bitmap: 0 };
        assert_eq!(entry.cluster(g, Some(0)), Ok(Cluster::Standard { host: 0, copied: true }));
        let guest = 0x1_0000;
        let elsewhere = Err(CorruptKind::DataFileOffset { host: 0, guest });
        assert_eq!(entry.cluster(g, Some(guest)), elsewhere);
        assert_eq!(entry.cluster(g, None), Ok(Cluster::Unallocated));
    }
}
