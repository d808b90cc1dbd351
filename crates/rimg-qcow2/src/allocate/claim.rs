//! Taking clusters: refcount blocks and tables grow as needed, and clusters that the disk still
//! refers to wait until it does not.

use super::{Afterwards, FreeRun};
use crate::error::CorruptKind;
use crate::header::offset;
use crate::image::{Qcow2Image, State};
use crate::{refcount, spec};
use rimg_core::{Error, Result, num, op};

impl Qcow2Image {
    /// Takes `clusters` in a row, with refcounts of one. Returns them and whether they hold zeroes
    /// because they were never used.
    pub(crate) fn allocate(&self, state: &mut State, clusters: u64) -> Result<(FreeRun, bool)> {
        self.file.note("cluster_alloc");
        loop {
            self.make_room(state)?;
            let run = state.allocator_mut()?.find(clusters)?;
            if let Some(virgin) = self.claim(state, run)? {
                return Ok((run, virgin));
            }
        }
    }

    /// Takes the clusters of `run` if they are all free, as [`allocate`](Self::allocate) does.
    pub(crate) fn allocate_exactly(&self, state: &mut State, run: FreeRun) -> Result<bool> {
        loop {
            self.make_room(state)?;
            if !state.allocator_mut()?.is_free(run.first, run.clusters)? {
                return Ok(false);
            }
            if self.claim(state, run)?.is_some() {
                return Ok(true);
            }
        }
    }

    /// Takes a run that was found free, or answers `None` when making it ready changed what is
    /// free.
    fn claim(&self, state: &mut State, run: FreeRun) -> Result<Option<bool>> {
        if state.allocator_mut()?.is_released(run) {
            self.catch_up(state)?;
        }
        // As QEMU has it: also where the blocks are there already.
        self.file.note("refblock_alloc");
        let allocator = state.allocator_mut()?;
        while let Some(index) = allocator.missing_block(run) {
            if index >= num::to_u64(allocator.table.len()) {
                self.grow_refcount_table(state, run.end())?;
                return Ok(None);
            }
            if allocator.has_released() {
                // The new block may want a cluster that is referred to on disk still.
                self.catch_up(state)?;
                return self.claim(state, run);
            }
            if !allocator.add_block(index, run)? {
                self.grow_refcount_table(state, run.end())?;
                return Ok(None);
            }
        }
        allocator.take_run(run).map(Some)
    }

    /// Replaces the refcount table by one that can describe `clusters` and half as much again.
    /// The new table and the blocks that describe it lie behind everything that the old table
    /// could describe, so nothing else is there.
    fn grow_refcount_table(&self, state: &mut State, clusters: u64) -> Result<()> {
        self.catch_up(state)?;
        let g = self.geometry;
        let file = self.file_writer()?;
        let allocator = state.allocator_mut()?;
        let first = allocator.capacity_clusters();
        let bits = g.refcounts_per_block_bits();
        let old_entries = num::to_u64(allocator.table.len());
        let needed = (clusters >> bits).saturating_add(2);
        let mut entries = needed.max(old_entries.saturating_add(old_entries / 2));
        // Growing for its own blocks may need a few entries more; the area is small against them.
        let (blocks, table_clusters) = loop {
            let table_clusters = g.clusters_for(entries.saturating_mul(8));
            let mut blocks = 1;
            while blocks << bits < table_clusters.saturating_add(blocks) {
                blocks += 1;
            }
            if old_entries.saturating_add(blocks) <= entries {
                break (blocks, table_clusters);
            }
            entries = entries.saturating_add(blocks);
        };
        let table_bytes = table_clusters.saturating_mul(g.cluster_bytes());
        if table_bytes > spec::MAX_REFCOUNT_TABLE_BYTES {
            return Err(CorruptKind::TableTooLarge(table_bytes).at(
                "header",
                "refcount_table_clusters",
                offset::REFCOUNT_TABLE,
            ));
        }
        let area = FreeRun { first, clusters: blocks.saturating_add(table_clusters) };
        let mut table = allocator.table.clone();
        table.resize(num::to_usize(table_bytes / 8)?, 0);
        for block in 0..blocks {
            let entry = num::to_usize(old_entries.saturating_add(block))?;
            if let Some(entry) = table.get_mut(entry) {
                *entry = g.cluster_offset(first.saturating_add(block));
            }
        }
        let table_at = g.cluster_offset(first.saturating_add(blocks));
        let mut block_bytes = vec![0; num::to_usize(blocks.saturating_mul(g.cluster_bytes()))?];
        for cluster in 0..area.clusters {
            refcount::set(&mut block_bytes, g.refcount, num::to_usize(cluster)?, 1);
        }
        let at = g.cluster_offset(first);
        file.note("refblock_alloc_write_blocks");
        file.write_all_at(&block_bytes, at).map_err(Error::io(op::WRITE_REFCOUNT_BLOCK, at))?;
        let raw: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        file.note("refblock_alloc_write_table");
        file.write_all_at(&raw, table_at).map_err(Error::io(op::WRITE_REFCOUNT_TABLE, table_at))?;
        self.barrier(state)?;
        // Offset and length are next to each other in one sector: both change or none does.
        let clusters = u32::try_from(table_clusters).unwrap_or(u32::MAX);
        let mut field = [0; 12];
        let (offset_bytes, clusters_bytes) = field.split_at_mut(8);
        offset_bytes.copy_from_slice(&table_at.to_be_bytes());
        clusters_bytes.copy_from_slice(&clusters.to_be_bytes());
        file.note("refblock_alloc_switch_table");
        file.write_all_at(&field, offset::REFCOUNT_TABLE)
            .map_err(Error::io("write header", offset::REFCOUNT_TABLE))?;
        self.barrier(state)?;
        state.header.refcount_table_offset = table_at;
        state.header.refcount_table_clusters = clusters;
        let allocator = state.allocator_mut()?;
        let old = allocator.adopt_table(table, table_at, area);
        allocator.release(old, Afterwards::Keep);
        Ok(())
    }
}
