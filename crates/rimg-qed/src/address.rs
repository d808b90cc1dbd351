//! Clusters and tables, and how they divide guest offsets.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use crate::spec;

/// The sizes of clusters and tables, always ones that the specification allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    cluster_bits: u32,
    /// The size of a table as a power of two of clusters.
    table_bits: u32,
}

impl Geometry {
    pub(crate) fn new(cluster_bytes: u32, table_clusters: u32) -> Result<Self, CorruptKind> {
        if !cluster_bytes.is_power_of_two() || !spec::CLUSTER_BYTES.contains(&cluster_bytes) {
            return Err(CorruptKind::ClusterBytes(cluster_bytes));
        }
        if !table_clusters.is_power_of_two() || !spec::TABLE_CLUSTERS.contains(&table_clusters) {
            return Err(CorruptKind::TableClusters(table_clusters));
        }
        Ok(Self {
            cluster_bits: cluster_bytes.trailing_zeros(),
            table_bits: table_clusters.trailing_zeros(),
        })
    }

    pub(crate) const fn cluster_bytes(self) -> u64 {
        1 << self.cluster_bits
    }

    /// The size of an L1 or L2 table: 4 KiB to 1 GiB.
    pub(crate) const fn table_bytes(self) -> u64 {
        self.cluster_bytes() << self.table_bits
    }

    pub(crate) const fn table_clusters(self) -> u64 {
        1 << self.table_bits
    }

    /// How many entries a table has: 2^9 to 2^27.
    pub(crate) const fn table_entries(self) -> u64 {
        self.table_bytes() >> 3
    }

    /// How many bytes of the disk an L2 table maps; saturating.
    pub(crate) const fn l2_table_maps_bytes(self) -> u64 {
        self.table_entries().saturating_mul(self.cluster_bytes())
    }

    const fn entry_bits(self) -> u32 {
        self.cluster_bits.saturating_add(self.table_bits).saturating_sub(3)
    }

    /// The largest disk, in bytes: what both levels of tables map, and no file can exceed.
    pub(crate) const fn max_image_bytes(self) -> u64 {
        let bits = self.entry_bits().saturating_mul(2).saturating_add(self.cluster_bits);
        if bits >= 63 { spec::MAX_FILE_BYTES } else { 1 << bits }
    }

    pub(crate) const fn is_aligned(self, offset: u64) -> bool {
        offset & self.cluster_bytes().wrapping_sub(1) == 0
    }

    /// How many clusters `bytes` need.
    pub(crate) const fn clusters_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_bytes())
    }

    /// The cluster that `offset`, of the guest or of the file, lies in.
    pub(crate) const fn cluster_of(self, offset: u64) -> u64 {
        offset >> self.cluster_bits
    }

    /// Where cluster `index`, of the guest or of the file, starts; saturating.
    pub(crate) const fn cluster_start(self, index: u64) -> u64 {
        index.saturating_mul(self.cluster_bytes())
    }

    /// The L1 entry for a guest cluster.
    pub(crate) const fn l1_index(self, cluster: u64) -> u64 {
        cluster >> self.entry_bits()
    }

    /// The L2 entry for a guest cluster, within its table.
    pub(crate) const fn l2_index(self, cluster: u64) -> u64 {
        cluster & self.table_entries().wrapping_sub(1)
    }

    /// The first guest cluster of an L1 entry; saturating.
    pub(crate) const fn first_cluster_of(self, l1_index: u64) -> u64 {
        l1_index.saturating_mul(self.table_entries())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_sizes_exist() {
        for bytes in [0, 2048, 4097, 1 << 27] {
            assert_eq!(Geometry::new(bytes, 4), Err(CorruptKind::ClusterBytes(bytes)));
        }
        for clusters in [0, 3, 32] {
            assert_eq!(Geometry::new(4096, clusters), Err(CorruptKind::TableClusters(clusters)));
        }
    }

    #[test]
    fn default_geometry() {
        let g = Geometry::new(65536, 4).unwrap();
        assert_eq!((g.table_bytes(), g.table_entries()), (256 << 10, 32768));
        assert_eq!(g.max_image_bytes(), 64 << 40);
        assert_eq!((g.l1_index(32768 * 3 + 7), g.l2_index(32768 * 3 + 7)), (3, 7));
        assert_eq!(g.first_cluster_of(3), 32768 * 3);
    }

    #[test]
    fn the_largest_disk_fits_a_file() {
        assert_eq!(Geometry::new(4096, 1).unwrap().max_image_bytes(), 1 << 30);
        assert_eq!(Geometry::new(1 << 26, 16).unwrap().max_image_bytes(), 1 << 63);
    }
}
