//! Where everything lies in a new image: header, refcount table, first refcount block and L1
//! table, in this order, then what further refcount blocks their own clusters need; then, where
//! space is reserved beforehand, a new refcount table for all of it, guest data, and L2 tables.
//!
//! The places are those that qemu-img gives them, which is a matter of bytes being the same: any
//! other order would be as good an image.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use core::ops::Range;
use std::collections::BTreeMap;

/// The cluster of the first refcount table.
const TABLE: u64 = 1;
/// The cluster of the first refcount block.
const FIRST_BLOCK: u64 = 2;
/// The first cluster of the L1 table.
const L1: u64 = 3;

/// The places in a new image. Clusters are host clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    geometry: Geometry,
    pub(super) l1_entries: u64,
    /// In bytes; 0 where there is none.
    pub(super) l1_offset: u64,
    /// The clusters of the refcount table.
    pub(super) table: Range<u64>,
    /// The clusters of refcount blocks, by their index in the refcount table.
    pub(super) blocks: BTreeMap<u64, u64>,
    /// A refcount table that was left behind, as it was then: its cluster, and the blocks that it
    /// knew. The cluster is free, but qemu-img does not clear it.
    pub(super) stale_table: Option<(u64, BTreeMap<u64, u64>)>,
    /// A refcount table that had to be moved lies, with the blocks that describe it, behind
    /// everything that the old one could describe.
    area: Option<Range<u64>>,
    /// Free clusters that lie before used ones, in order.
    holes: Vec<Range<u64>>,
    /// The end of the last used cluster.
    next: u64,
    /// Guest data and its L2 tables, where there is space for it from the start.
    pub(super) mapping: Option<Mapping>,
}

/// Space for the whole disk, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    /// The clusters for guest data.
    pub(super) data: Range<u64>,
    /// The clusters of the L2 tables, one for each L1 entry.
    pub(super) l2_tables: Vec<u64>,
}

impl Layout {
    /// The layout for a disk of `size_bytes`.
    pub(super) fn new(geometry: Geometry, size_bytes: u64) -> Self {
        let l1_entries = geometry.l1_entries_for(size_bytes);
        let l1_end = L1.saturating_add(geometry.clusters_for(l1_entries.saturating_mul(8)));
        let mut layout = Self {
            geometry,
            l1_entries,
            l1_offset: if l1_entries == 0 { 0 } else { geometry.cluster_offset(L1) },
            table: TABLE..FIRST_BLOCK,
            blocks: BTreeMap::from([(0, FIRST_BLOCK)]),
            stale_table: None,
            area: None,
            holes: Vec::new(),
            next: l1_end,
            mapping: None,
        };
        for index in 1..=layout.block_of(l1_end.saturating_sub(1)) {
            layout.add_block(index);
        }
        if let Some(area) = layout.area.clone()
            && layout.next < area.end
        {
            if layout.next < area.start {
                layout.holes.push(layout.next..area.start);
            }
            layout.next = area.end;
        }
        layout
    }

    /// The layout for a disk of `size_bytes` with space for all of it.
    pub(super) fn with_data(geometry: Geometry, size_bytes: u64) -> Self {
        let mut layout = Self::new(geometry, size_bytes);
        let data_clusters = geometry.clusters_for(size_bytes);
        if data_clusters == 0 {
            return layout;
        }
        let start = layout.next;
        let old_blocks =
            layout.blocks.last_key_value().map_or(0, |(index, _)| index.saturating_add(1));
        let mut blocks = old_blocks;
        let table_clusters = loop {
            let table_clusters = geometry.clusters_for(blocks.saturating_mul(8));
            let end = start
                .saturating_add(blocks.saturating_sub(old_blocks))
                .saturating_add(table_clusters)
                .saturating_add(data_clusters)
                .saturating_add(layout.l1_entries);
            let needed = end.div_ceil(geometry.refcounts_per_block());
            if needed <= blocks {
                break table_clusters;
            }
            blocks = needed;
        };
        layout.blocks.extend((old_blocks..blocks).zip(start..));
        let table_start = start.saturating_add(blocks.saturating_sub(old_blocks));
        layout.leave_table();
        layout.table = table_start..table_start.saturating_add(table_clusters);
        let data = layout.table.end..layout.table.end.saturating_add(data_clusters);
        layout.next = data.end;
        let l2_tables = (0..layout.l1_entries).map(|_| layout.take_first()).collect();
        layout.mapping = Some(Mapping { data, l2_tables });
        layout
    }

    /// The length of the file in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        let g = self.geometry;
        let l1_end = self.l1_offset.saturating_add(self.l1_entries.saturating_mul(8));
        let last = self.blocks.values().copied().max().unwrap_or(FIRST_BLOCK);
        let tables_end = self.table.end.max(last.saturating_add(1));
        // Space for data is there as far as the disk goes, if nothing follows.
        let end = if self.mapping.is_some() { self.next } else { tables_end };
        l1_end.max(g.cluster_offset(end))
    }

    /// The clusters in use, in order.
    pub(super) fn used(&self) -> Vec<Range<u64>> {
        let mut used = Vec::new();
        let mut start = 0;
        for hole in &self.holes {
            used.push(start..hole.start);
            start = hole.end;
        }
        used.push(start..self.next);
        used
    }

    /// The index of the refcount block that describes `cluster`.
    fn block_of(&self, cluster: u64) -> u64 {
        cluster >> self.geometry.refcounts_per_block_bits()
    }

    fn add_block(&mut self, index: u64) {
        if self.blocks.contains_key(&index) {
            return;
        }
        let place = self.take();
        let described_by = self.block_of(place);
        if described_by != index {
            // At most one step further each time, and few times: blocks describe many clusters.
            self.add_block(described_by);
        }
        if index >= self.table_entries() {
            self.move_table(place);
        }
        self.blocks.insert(index, place);
    }

    /// The first free cluster, holes included.
    fn take_first(&mut self) -> u64 {
        let Some(hole) = self.holes.first_mut() else { return self.take() };
        let cluster = hole.start;
        hole.start = cluster.saturating_add(1);
        if hole.is_empty() {
            self.holes.remove(0);
        }
        cluster
    }

    fn take(&mut self) -> u64 {
        if let Some(area) = &self.area
            && area.contains(&self.next)
        {
            self.next = area.end;
        }
        let cluster = self.next;
        self.next = cluster.saturating_add(1);
        cluster
    }

    /// Frees the clusters of the refcount table.
    fn leave_table(&mut self) {
        let hole = self.table.clone();
        let at = self.holes.partition_point(|other| other.start < hole.start);
        self.holes.insert(at, hole);
    }

    fn table_entries(&self) -> u64 {
        let clusters = self.table.end.saturating_sub(self.table.start);
        self.geometry.cluster_offset(clusters) / 8
    }

    /// Moves to a table half as large again as needed, in an area that starts with the first
    /// refcount block behind the one that describes `last`.
    fn move_table(&mut self, last: u64) {
        let g = self.geometry;
        let bits = g.refcounts_per_block_bits();
        let first_block = self.block_of(last).saturating_add(1);
        let mut blocks = 0_u64;
        let table_clusters = loop {
            let entries = first_block.saturating_add(blocks).saturating_mul(3).div_ceil(2);
            let table_clusters = g.clusters_for(entries.saturating_mul(8));
            // As many as if the blocks in front of the area were to lie in it as well.
            let described = first_block.saturating_add(table_clusters).saturating_add(blocks);
            let needed = described.div_ceil(g.refcounts_per_block());
            if needed <= blocks {
                break table_clusters;
            }
            blocks = needed;
        };
        let start = first_block << bits;
        self.stale_table = Some((self.table.start, self.blocks.clone()));
        self.leave_table();
        for (index, cluster) in (first_block..).zip(start..start.saturating_add(blocks)) {
            self.blocks.insert(index, cluster);
        }
        let table_start = start.saturating_add(blocks);
        self.table = table_start..table_start.saturating_add(table_clusters);
        self.area = Some(start..self.table.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{ClusterBits, RefcountOrder};

    fn layout(cluster_bits: u32, order: u32, size: u64) -> Layout {
        Layout::new(geometry(cluster_bits, order), size)
    }

    fn layout_with_data(cluster_bits: u32, order: u32, size: u64) -> Layout {
        Layout::with_data(geometry(cluster_bits, order), size)
    }

    fn geometry(cluster_bits: u32, order: u32) -> Geometry {
        Geometry {
            cluster: ClusterBits::new(cluster_bits).unwrap(),
            extended_l2: false,
            zero_flag: true,
            refcount: RefcountOrder::new(order).unwrap(),
        }
    }

    #[test]
    fn small_images_end_with_their_l1_table() {
        assert_eq!(layout(16, 4, 1 << 30).file_bytes(), 0x3_0010);
        let empty = layout(16, 4, 0);
        assert_eq!((empty.l1_offset, empty.file_bytes()), (0, 0x3_0000));
    }

    #[test]
    fn space_for_data_is_counted() {
        for (bits, order, size) in [(9, 4, 3 << 20), (9, 6, 8 << 30), (12, 6, 3 << 20), (16, 4, 1)]
        {
            let layout = layout_with_data(bits, order, size);
            let mapping = layout.mapping.clone().unwrap();
            let used = layout.used();
            let is_used = |cluster| used.iter().any(|range| range.contains(&cluster));
            assert!(mapping.data.clone().all(is_used));
            assert!(mapping.l2_tables.iter().all(|table| is_used(*table)));
            assert!(!mapping.l2_tables.iter().any(|table| mapping.data.contains(table)));
            let last = used.last().unwrap().end - 1;
            assert!(layout.blocks.contains_key(&layout.block_of(last)));
        }
    }

    #[test]
    fn every_cluster_in_use_is_described_and_used_once() {
        for (bits, order, size) in [
            (9, 4, 1 << 30),
            (9, 6, 8 << 30),
            (9, 6, 8190 << 20),
            (9, 3, 128 << 30),
            (10, 6, 1 << 39),
        ] {
            let layout = layout(bits, order, size);
            let used: u64 = layout.used().iter().map(|range| range.end - range.start).sum();
            let l1 = layout.geometry.clusters_for(layout.l1_entries * 8);
            let table = layout.table.end - layout.table.start;
            let blocks = u64::try_from(layout.blocks.len()).unwrap();
            assert_eq!(used, 1 + table + blocks + l1, "{bits} {order} {size}");
            for cluster in layout.used().into_iter().flatten() {
                assert!(layout.blocks.contains_key(&layout.block_of(cluster)), "{cluster}");
            }
            assert!(layout.blocks.keys().all(|index| *index < layout.table_entries()));
        }
    }
}
