//! Refcounts of many clusters in a row, for what touches all of an image at once.

use super::Allocator;
use crate::address::Geometry;
use crate::cache::READ_REFCOUNT_BLOCK;
use crate::error::CorruptKind;
use crate::{refcount, spec};
use core::ops::Range;
use rimg_core::{Error, Result, num};
use std::collections::BTreeSet;

/// A refcount block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// The place of its entry in the refcount table.
    pub(crate) index: u64,
    /// The host offset of the block in bytes.
    pub(crate) at: u64,
}

impl Allocator {
    /// Counts one more reference to each of `clusters`, all of which are in use. Adds to `done` how
    /// many were counted, also when it fails in between.
    ///
    /// # Errors
    /// [`Error::Limit`] when a count would not fit; [`Error::Corrupt`] when a cluster is not counted
    /// as used.
    pub(crate) fn raise(&mut self, clusters: Range<u64>, done: &mut u64) -> Result<()> {
        let g = self.geometry;
        let (order, max) = (g.refcount, g.refcount.max());
        let mut cluster = clusters.start;
        while cluster < clusters.end {
            let Some((slice_at, range)) = self.slice_of(cluster..clusters.end)? else {
                return Err(self.without_block(cluster));
            };
            let slice = self.blocks.slice_mut(self.file.as_ref(), slice_at, READ_REFCOUNT_BLOCK)?;
            for index in range {
                let count = refcount::get(slice, order, index);
                if count == 0 {
                    return Err(self.uncounted_cluster(cluster));
                }
                if count >= max {
                    let needed = count.saturating_add(1);
                    return Err(Error::Limit { what: "refcount", needed, limit: max });
                }
                refcount::set(slice, order, index, count.saturating_add(1));
                cluster = cluster.saturating_add(1);
                *done = done.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Stops counting one reference to each of `clusters`, which nothing on disk holds any more.
    /// Calls `freed` with those that nobody uses now, in rising order. Returns whether one of them
    /// has a single user now.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a cluster was not counted as used; all others are done.
    pub(crate) fn lower(
        &mut self,
        clusters: Range<u64>,
        freed: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<bool> {
        let order = self.geometry.refcount;
        let mut cluster = clusters.start;
        let mut has_single = false;
        let mut uncounted = None;
        while cluster < clusters.end {
            let Some((slice_at, range)) = self.slice_of(cluster..clusters.end)? else {
                return Err(self.uncounted_cluster(cluster));
            };
            let slice = self.blocks.slice_mut(self.file.as_ref(), slice_at, READ_REFCOUNT_BLOCK)?;
            let mut run = cluster..cluster;
            for index in range {
                match refcount::get(slice, order, index) {
                    0 => uncounted = Some(cluster),
                    count => {
                        refcount::set(slice, order, index, count.saturating_sub(1));
                        has_single |= count == 2;
                        if count == 1 {
                            if run.end != cluster {
                                take_run(&mut run, freed)?;
                                run = cluster..cluster;
                            }
                            run.end = cluster.saturating_add(1);
                            self.free_hint = self.free_hint.min(cluster);
                        }
                    }
                }
                cluster = cluster.saturating_add(1);
            }
            self.forget_tail(&run);
            take_run(&mut run, freed)?;
        }
        match uncounted {
            Some(cluster) => Err(self.uncounted_cluster(cluster)),
            None => Ok(has_single),
        }
    }

    /// Whether `cluster` has exactly one user.
    pub(crate) fn is_single(&mut self, cluster: u64) -> Result<bool> {
        Ok(self.refcount(cluster)? == 1)
    }

    /// Whether `cluster` has any user.
    pub(crate) fn is_used(&mut self, cluster: u64) -> Result<bool> {
        Ok(self.refcount(cluster)? > 0)
    }

    /// The first cluster behind all that are used, below `end`.
    pub(crate) fn used_end(&mut self, end: u64) -> Result<u64> {
        let g = self.geometry;
        let mut end = end.min(self.capacity_clusters());
        while end > 0 {
            let last = end.saturating_sub(1);
            if self.place_of(last)?.is_none() {
                // Down to the end of the block before.
                end = last & !g.refcounts_per_block().saturating_sub(1);
            } else if self.refcount(last)? == 0 {
                end = last;
            } else {
                break;
            }
        }
        Ok(end)
    }

    /// The refcount blocks that count nothing but perhaps themselves.
    pub(crate) fn idle_blocks(&mut self) -> Result<Vec<Block>> {
        let g = self.geometry;
        let blocks: Vec<Block> = (0..)
            .zip(&self.table)
            .map(|(index, entry)| Block { index, at: entry & spec::REFCOUNT_TABLE_OFFSET_MASK })
            .filter(|block| block.at != 0)
            .collect();
        let mut idle = Vec::new();
        for block in blocks {
            let first = block.index << g.refcounts_per_block_bits();
            let end = first.saturating_add(g.refcounts_per_block());
            let own = g.cluster_index(block.at);
            let mut cluster = first;
            while cluster < end {
                let free = self.uncounted(cluster, end.saturating_sub(cluster))?;
                cluster = cluster.saturating_add(free);
                if free == 0 {
                    if cluster != own {
                        break;
                    }
                    cluster = cluster.saturating_add(1);
                }
            }
            if cluster >= end {
                idle.push(block);
            }
        }
        Ok(idle)
    }

    /// Takes a block out of the refcount table.
    pub(crate) fn drop_block(&mut self, block: Block) -> Result<()> {
        let index = num::to_usize(block.index)?;
        if let Some(entry) = self.table.get_mut(index) {
            *entry = 0;
            self.dirty_entries.insert(index);
        }
        let end = block.at.saturating_add(self.geometry.cluster_bytes());
        self.blocks.forget(block.at..end);
        Ok(())
    }

    /// The first cluster with a count above `max`, and that count.
    pub(crate) fn first_above(&mut self, max: u64) -> Result<Option<(u64, u64)>> {
        let mut found = None;
        for index in self.blocks_in_table() {
            self.for_counts(self.clusters_of_block(index), &mut |cluster, count| {
                if count > max && found.is_none() {
                    found = Some((cluster, count));
                }
            })?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// Which blocks an image of geometry `g` needs for the clusters that are in use.
    pub(crate) fn used_blocks(&mut self, g: Geometry) -> Result<BTreeSet<u64>> {
        let mut used = BTreeSet::new();
        for index in self.blocks_in_table() {
            let mut last = None;
            self.for_counts(self.clusters_of_block(index), &mut |cluster, _| {
                let block = cluster >> g.refcounts_per_block_bits();
                if last.replace(block) != Some(block) {
                    used.insert(block);
                }
            })?;
        }
        Ok(used)
    }

    /// Calls `visit` with every one of `clusters` that is used, and how often.
    pub(crate) fn for_counts(
        &mut self,
        clusters: Range<u64>,
        visit: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let g = self.geometry;
        let mut cluster = clusters.start;
        while cluster < clusters.end {
            let Some((slice_at, range)) = self.slice_of(cluster..clusters.end)? else {
                let next = (cluster | g.refcounts_per_block().saturating_sub(1)).saturating_add(1);
                cluster = next;
                continue;
            };
            let slice = self.blocks.slice(self.file.as_ref(), slice_at, READ_REFCOUNT_BLOCK)?;
            for index in range {
                let count = refcount::get(slice, g.refcount, index);
                if count > 0 {
                    visit(cluster, count);
                }
                cluster = cluster.saturating_add(1);
            }
        }
        Ok(())
    }

    fn blocks_in_table(&self) -> Vec<u64> {
        (0..).zip(&self.table).filter(|(_, entry)| **entry != 0).map(|(index, _)| index).collect()
    }

    fn clusters_of_block(&self, index: u64) -> Range<u64> {
        let first = index << self.geometry.refcounts_per_block_bits();
        first..first.saturating_add(self.geometry.refcounts_per_block())
    }

    /// The slice of a refcount block with the count of the first of `clusters`, and the places in
    /// there of those that it has.
    fn slice_of(&mut self, clusters: Range<u64>) -> Result<Option<(u64, Range<usize>)>> {
        let Some((slice_at, first)) = self.place_of(clusters.start)? else { return Ok(None) };
        let per_slice = (self.blocks.slice_bytes() << 3) >> self.geometry.refcount.order();
        let wanted = num::to_usize(clusters.end.saturating_sub(clusters.start))?;
        let end = first.saturating_add(wanted).min(num::to_usize(per_slice)?);
        Ok(Some((slice_at, first..end)))
    }

    /// Nothing is packed behind compressed clusters that are gone.
    fn forget_tail(&mut self, freed: &Range<u64>) {
        let tail = self.compressed_tail.map(|tail| tail.saturating_sub(1));
        if tail.is_some_and(|last| freed.contains(&self.geometry.cluster_index(last))) {
            self.compressed_tail = None;
        }
    }

    /// Why a cluster cannot be counted that has no refcount block.
    fn without_block(&self, cluster: u64) -> Error {
        let at = self.geometry.cluster_offset(cluster);
        let block = cluster >> self.geometry.refcounts_per_block_bits();
        let is_far = block >= spec::MAX_REFCOUNT_TABLE_BYTES / 8;
        let kind = if is_far { CorruptKind::NotCountable } else { CorruptKind::NotCounted };
        kind(at).at("refcount table", "entry", self.table_at)
    }

    fn uncounted_cluster(&self, cluster: u64) -> Error {
        let at = self.geometry.cluster_offset(cluster);
        CorruptKind::RefcountZero(at).at("refcount block", "entry", at)
    }
}

fn take_run(run: &mut Range<u64>, freed: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
    if run.is_empty() { Ok(()) } else { freed(run.clone()) }
}
