//! Clusters, tables and how they divide guest and host offsets.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use crate::spec;

/// The cluster size as a power of two, always one that the specification allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClusterBits(u32);

impl ClusterBits {
    pub(crate) fn new(bits: u32) -> Result<Self, CorruptKind> {
        if spec::CLUSTER_BITS.contains(&bits) {
            Ok(Self(bits))
        } else {
            Err(CorruptKind::ClusterBits(bits))
        }
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn bytes(self) -> u64 {
        1 << self.0
    }
}

/// The width of a refcount as a power of two of bits: 0 (1 bit) to 6 (64 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefcountOrder(u32);

impl RefcountOrder {
    pub(crate) fn new(order: u32) -> Result<Self, CorruptKind> {
        if order <= 6 { Ok(Self(order)) } else { Err(CorruptKind::RefcountOrder(order)) }
    }

    pub(crate) const fn order(self) -> u32 {
        self.0
    }

    pub(crate) const fn bits(self) -> u32 {
        1 << self.0
    }

    /// The largest count that fits.
    pub(crate) const fn max(self) -> u64 {
        match self.bits() {
            64 => u64::MAX,
            bits => (1_u64 << bits).wrapping_sub(1),
        }
    }
}

/// Everything that follows from cluster size, kind of L2 entry and refcount width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) cluster: ClusterBits,
    pub(crate) extended_l2: bool,
    /// Whether bit 0 of a standard entry means zeroes: version 3, entries not extended.
    pub(crate) zero_flag: bool,
    pub(crate) refcount: RefcountOrder,
}

impl Geometry {
    pub(crate) const fn cluster_bytes(self) -> u64 {
        self.cluster.bytes()
    }

    /// `offset` within its cluster.
    pub(crate) const fn in_cluster(self, offset: u64) -> u64 {
        offset & self.cluster_bytes().wrapping_sub(1)
    }

    /// The start of the cluster that `offset` lies in.
    pub(crate) const fn cluster_start(self, offset: u64) -> u64 {
        offset & !self.cluster_bytes().wrapping_sub(1)
    }

    /// Whether entries can say that something is zero.
    pub(crate) const fn has_zeroes(self) -> bool {
        self.zero_flag || self.extended_l2
    }

    /// How many clusters `bytes` need.
    pub(crate) const fn clusters_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_bytes())
    }

    pub(crate) const fn is_aligned(self, offset: u64) -> bool {
        self.in_cluster(offset) == 0
    }

    const fn l2_entry_bits(self) -> u32 {
        if self.extended_l2 { 4 } else { 3 }
    }

    /// The size of an L2 entry in bytes.
    pub(crate) const fn l2_entry_bytes(self) -> u64 {
        1 << self.l2_entry_bits()
    }

    /// How many entries an L2 table has.
    pub(crate) const fn l2_entries(self) -> u64 {
        self.cluster_bytes() >> self.l2_entry_bits()
    }

    /// How many guest bytes an L2 table maps, as a power of two.
    const fn l2_coverage_bits(self) -> u32 {
        self.cluster.0.saturating_mul(2).saturating_sub(self.l2_entry_bits())
    }

    /// How many guest bytes an L2 table maps: 2^15 to 2^39.
    pub(crate) const fn l2_coverage_bytes(self) -> u64 {
        1 << self.l2_coverage_bits()
    }

    /// The L1 entry for a guest offset.
    pub(crate) const fn l1_index(self, guest: u64) -> u64 {
        guest >> self.l2_coverage_bits()
    }

    /// The L2 entry for a guest offset, within its table.
    pub(crate) const fn l2_index(self, guest: u64) -> u64 {
        (guest >> self.cluster.0) & self.l2_entries().wrapping_sub(1)
    }

    /// How many L1 entries a disk of `size` bytes needs.
    pub(crate) const fn l1_entries_for(self, size: u64) -> u64 {
        size.div_ceil(self.l2_coverage_bytes())
    }

    pub(crate) const fn subclusters(self) -> u32 {
        if self.extended_l2 { spec::SUBCLUSTERS } else { 1 }
    }

    /// The size of a subcluster in bytes; of a cluster where there are none.
    pub(crate) const fn subcluster_bytes(self) -> u64 {
        if self.extended_l2 { self.cluster_bytes() >> 5 } else { self.cluster_bytes() }
    }

    /// How many refcounts a refcount block holds: 2^6 to 2^24.
    pub(crate) const fn refcounts_per_block(self) -> u64 {
        1 << self.refcounts_per_block_bits()
    }

    pub(crate) const fn refcounts_per_block_bits(self) -> u32 {
        self.cluster.0.saturating_add(3).saturating_sub(self.refcount.order())
    }

    /// The host cluster that `host` lies in.
    pub(crate) const fn cluster_index(self, host: u64) -> u64 {
        host >> self.cluster.0
    }

    /// Where host cluster `index` starts.
    pub(crate) const fn cluster_offset(self, index: u64) -> u64 {
        index << self.cluster.0
    }

    /// How many bits of a compressed cluster descriptor are the offset (Compressed clusters).
    const fn compressed_offset_bits(self) -> u32 {
        70_u32.saturating_sub(self.cluster.0)
    }

    pub(crate) const fn compressed_offset_mask(self) -> u64 {
        (1_u64 << self.compressed_offset_bits()).wrapping_sub(1)
    }

    pub(crate) const fn compressed_sectors_shift(self) -> u32 {
        self.compressed_offset_bits()
    }

    /// The mask of the sector count once it is shifted down: `cluster_bits - 8` bits.
    pub(crate) const fn compressed_sectors_mask(self) -> u64 {
        (1_u64 << self.cluster.0.saturating_sub(8)).wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(bits: u32, extended_l2: bool, order: u32) -> Geometry {
        Geometry {
            cluster: ClusterBits::new(bits).unwrap(),
            extended_l2,
            zero_flag: !extended_l2,
            refcount: RefcountOrder::new(order).unwrap(),
        }
    }

    #[test]
    fn only_allowed_sizes_exist() {
        assert_eq!(ClusterBits::new(8), Err(CorruptKind::ClusterBits(8)));
        assert_eq!(ClusterBits::new(22), Err(CorruptKind::ClusterBits(22)));
        assert_eq!(RefcountOrder::new(7), Err(CorruptKind::RefcountOrder(7)));
    }

    #[test]
    fn default_geometry() {
        let g = geometry(16, false, 4);
        assert_eq!(g.l2_entries(), 8192);
        assert_eq!(g.l2_coverage_bytes(), 512 << 20);
        assert_eq!(g.refcounts_per_block(), 32768);
        assert_eq!(g.l1_index(3 << 29), 3);
        assert_eq!(g.l2_index((3 << 29) + (5 << 16) + 7), 5);
        assert_eq!(g.l1_entries_for((1 << 29) + 1), 2);
        assert_eq!(g.compressed_offset_mask(), (1 << 54) - 1);
        assert_eq!(g.compressed_sectors_mask(), 0xff);
    }

    #[test]
    fn extended_entries_halve_the_coverage() {
        let g = geometry(16, true, 4);
        assert_eq!(g.l2_entries(), 4096);
        assert_eq!(g.l2_coverage_bytes(), 256 << 20);
        assert_eq!(g.subcluster_bytes(), 2048);
    }

    #[test]
    fn refcount_widths() {
        assert_eq!(RefcountOrder::new(0).unwrap().max(), 1);
        assert_eq!(RefcountOrder::new(4).unwrap().max(), 65535);
        assert_eq!(RefcountOrder::new(6).unwrap().max(), u64::MAX);
        assert_eq!(geometry(9, false, 6).refcounts_per_block(), 64);
        assert_eq!(geometry(21, false, 0).refcounts_per_block(), 1 << 24);
    }
}
