//! Clusters and tables, and how they divide guest offsets.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use crate::spec;

/// The sizes of clusters and L2 tables, always ones that the format allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    cluster_bits: u8,
    l2_bits: u8,
}

impl Geometry {
    pub(crate) fn new(cluster_bits: u8, l2_bits: u8) -> Result<Self, CorruptKind> {
        if !spec::CLUSTER_BITS.contains(&cluster_bits) {
            return Err(CorruptKind::ClusterBits(cluster_bits));
        }
        if !spec::L2_BITS.contains(&l2_bits) {
            return Err(CorruptKind::L2Bits(l2_bits));
        }
        Ok(Self { cluster_bits, l2_bits })
    }

    pub(crate) const fn bits(self) -> (u8, u8) {
        (self.cluster_bits, self.l2_bits)
    }

    pub(crate) const fn cluster_bytes(self) -> u64 {
        1 << self.cluster_bits
    }

    pub(crate) const fn l2_entries(self) -> u64 {
        1 << self.l2_bits
    }

    pub(crate) const fn l2_bytes(self) -> u64 {
        self.l2_entries().saturating_mul(8)
    }

    /// How many clusters `bytes` need.
    pub(crate) const fn clusters_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_bytes())
    }

    /// The guest cluster that `offset` lies in.
    pub(crate) const fn cluster_of(self, offset: u64) -> u64 {
        offset >> self.cluster_bits
    }

    /// Where guest cluster `index` starts; saturating.
    pub(crate) const fn cluster_start(self, index: u64) -> u64 {
        index.saturating_mul(self.cluster_bytes())
    }

    /// The L1 entry for a guest cluster.
    pub(crate) const fn l1_index(self, cluster: u64) -> u64 {
        cluster >> self.l2_bits
    }

    /// The L2 entry for a guest cluster, within its table.
    pub(crate) const fn l2_index(self, cluster: u64) -> u64 {
        cluster & self.l2_entries().wrapping_sub(1)
    }

    /// The first guest cluster of an L1 entry; saturating.
    pub(crate) const fn first_cluster_of(self, l1_index: u64) -> u64 {
        l1_index.saturating_mul(self.l2_entries())
    }

    /// How many L1 entries a disk of `size` bytes needs.
    pub(crate) const fn l1_entries_for(self, size: u64) -> u64 {
        self.clusters_for(size).div_ceil(self.l2_entries())
    }

    /// How many bits of an entry of a compressed cluster are its offset; the others, but for the
    /// first, are its length in bytes.
    pub(crate) const fn encoded_offset_bits(self) -> u8 {
        63_u8.saturating_sub(self.cluster_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_sizes_exist() {
        assert_eq!(Geometry::new(8, 9), Err(CorruptKind::ClusterBits(8)));
        assert_eq!(Geometry::new(17, 9), Err(CorruptKind::ClusterBits(17)));
        assert_eq!(Geometry::new(9, 5), Err(CorruptKind::L2Bits(5)));
        assert_eq!(Geometry::new(9, 14), Err(CorruptKind::L2Bits(14)));
    }

    #[test]
    fn geometry_of_new_images() {
        let g = Geometry::new(12, 9).unwrap();
        assert_eq!((g.l2_bytes(), g.l1_entries_for(10 << 20)), (4096, 5));
        assert_eq!((g.l1_index(513), g.l2_index(513), g.first_cluster_of(1)), (1, 1, 512));
        assert_eq!(g.encoded_offset_bits(), 51);
        assert_eq!(Geometry::new(9, 12).unwrap().l1_entries_for(100 << 30), 51200);
    }
}
