//! Refcounts of another width: all blocks and the table anew, beside those in force.
//!
//! ```text
//! new blocks and table ── sync ── header ── sync ── the old ones are free
//! ```
#![warn(clippy::indexing_slicing)]

use crate::address::{Geometry, RefcountOrder};
use crate::allocate::FreeRun;
use crate::error::CorruptKind;
use crate::header::offset;
use crate::image::{Qcow2Image, State};
use crate::{refcount, spec};
use rimg_core::{AmendProgress, Error, Result, num, op};
use std::collections::BTreeMap;

/// New refcount blocks by their place in the new table, and that table's clusters.
struct Room {
    blocks: BTreeMap<u64, FreeRun>,
    table: FreeRun,
}

/// Tells how far the work is: the refcount table is walked until all that is new has its place, at
/// least twice, and once more to write.
struct Walks<'a, 'b> {
    progress: &'a mut AmendProgress<'b>,
    /// How many entries the table has.
    entries: u64,
    /// How many walks are done.
    done: u64,
    /// The one that writes is under way.
    is_last: bool,
    /// How many entries of the walk under way were told of.
    told: u64,
}

impl Walks<'_, '_> {
    /// So much of the walk under way is done.
    fn tell(&mut self, done: u64, total: u64) {
        let all = self.done.saturating_add(if self.is_last { 1 } else { 2 }).max(3);
        let before = self.done.saturating_mul(self.entries);
        let until = self.entries.saturating_mul(done).checked_div(total).unwrap_or(0);
        for entry in self.told..=until {
            (self.progress)(before.saturating_add(entry), all.saturating_mul(self.entries));
        }
        self.told = self.told.max(until.saturating_add(1));
    }

    fn end(&mut self) {
        self.tell(1, 1);
        self.told = 0;
        self.done = self.done.saturating_add(1);
    }
}

impl Qcow2Image {
    pub(super) fn change_refcounts(
        &self,
        order: RefcountOrder,
        progress: &mut AmendProgress<'_>,
    ) -> Result<()> {
        let mut state = self.lock()?;
        let state = &mut *state;
        let new = Geometry { refcount: order, ..self.geometry };
        let entries = num::to_u64(state.allocator_mut()?.table.len());
        if let Err(error) = self.refuse_too_high(state, order) {
            progress(0, 1);
            return Err(error);
        }
        let mut walks = Walks { progress, entries, done: 0, is_last: false, told: 0 };
        let room = self.room_for_refcounts(state, new, &mut walks)?;
        self.write_refcounts(state, new, &room, &mut walks)?;
        // The old counts stay right until the header changes.
        self.catch_up(state)?;
        self.barrier(state)?;
        let old = self.old_refcount_clusters(state)?;
        let table_at = new.cluster_offset(room.table.first);
        self.rewrite_header(state, |header| {
            header.geometry.refcount = order;
            header.refcount_table_offset = table_at;
            header.refcount_table_clusters = u32::try_from(room.table.clusters).unwrap_or(u32::MAX);
        })?;
        self.free_in(new, &room, &old)?;
        self.barrier(state)?;
        // The counts of the old width are of no use any more.
        state.is_outdated = true;
        Ok(())
    }

    fn refuse_too_high(&self, state: &mut State, order: RefcountOrder) -> Result<()> {
        let allocator = state.allocator_mut()?;
        match allocator.first_above(order.max())? {
            Some((cluster, count)) => Err(Error::InvalidOption {
                option: "refcount_bits",
                reason: format!(
                    "Cannot decrease refcount entry width to {} bits: Cluster at offset {:#x} has \
                     a refcount of {count}",
                    order.bits(),
                    self.geometry.cluster_offset(cluster)
                ),
            }),
            None => Ok(()),
        }
    }

    /// Takes clusters for blocks that describe all clusters in use, themselves too, and for the
    /// table that leads to them.
    fn room_for_refcounts(
        &self,
        state: &mut State,
        new: Geometry,
        walks: &mut Walks<'_, '_>,
    ) -> Result<Room> {
        let mut blocks = BTreeMap::new();
        let mut table: Option<FreeRun> = None;
        loop {
            let used = state.allocator_mut()?.used_blocks(new)?;
            walks.end();
            let missing: Vec<u64> =
                used.iter().copied().filter(|index| !blocks.contains_key(index)).collect();
            for index in &missing {
                blocks.insert(*index, self.allocate(state, 1)?.0);
            }
            let entries = blocks.last_key_value().map_or(1, |(last, _)| last.saturating_add(1));
            let bytes = entries.saturating_mul(8);
            if bytes > spec::MAX_REFCOUNT_TABLE_BYTES {
                return Err(CorruptKind::TableTooLarge(bytes).at(
                    "header",
                    "refcount_table_clusters",
                    offset::REFCOUNT_TABLE,
                ));
            }
            let clusters = new.clusters_for(bytes);
            match table {
                Some(table) if missing.is_empty() && table.clusters >= clusters => {
                    return Ok(Room { blocks, table });
                }
                Some(enough) if enough.clusters >= clusters => {}
                small => {
                    if let Some(run) = small {
                        state.allocator_mut()?.give_back(run)?;
                    }
                    table = Some(self.allocate(state, clusters)?.0);
                }
            }
        }
    }

    fn write_refcounts(
        &self,
        state: &mut State,
        new: Geometry,
        room: &Room,
        walks: &mut Walks<'_, '_>,
    ) -> Result<()> {
        let file = self.file_writer()?;
        let cluster_bytes = num::to_usize(new.cluster_bytes())?;
        let table_bytes = room.table.clusters.saturating_mul(new.cluster_bytes());
        let mut table = vec![0_u64; num::to_usize(table_bytes / 8)?];
        let mut bytes = vec![0; cluster_bytes];
        walks.is_last = true;
        let total = num::to_u64(room.blocks.len());
        for (done, (index, run)) in (0..).zip(&room.blocks) {
            walks.tell(done, total);
            let at = new.cluster_offset(run.first);
            if let Some(entry) = table.get_mut(num::to_usize(*index)?) {
                *entry = at;
            }
            bytes.fill(0);
            let first = index << new.refcounts_per_block_bits();
            state.allocator_mut()?.for_counts(
                first..first.saturating_add(new.refcounts_per_block()),
                &mut |cluster, count| {
                    let place = usize::try_from(cluster.saturating_sub(first));
                    refcount::set(&mut bytes, new.refcount, place.unwrap_or(usize::MAX), count);
                },
            )?;
            file.write_all_at(&bytes, at).map_err(Error::io(op::WRITE_REFCOUNT_BLOCK, at))?;
        }
        walks.end();
        let at = new.cluster_offset(room.table.first);
        let raw: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        file.write_all_at(&raw, at).map_err(Error::io(op::WRITE_REFCOUNT_TABLE, at))
    }

    /// The clusters of the refcount table and the blocks that are in force until now.
    fn old_refcount_clusters(&self, state: &mut State) -> Result<Vec<u64>> {
        let g = self.geometry;
        let first = g.cluster_index(state.header.refcount_table_offset);
        let clusters = u64::from(state.header.refcount_table_clusters);
        let mut old: Vec<u64> = (first..first.saturating_add(clusters)).collect();
        let table = &state.allocator_mut()?.table;
        let blocks = table.iter().map(|entry| entry & spec::REFCOUNT_TABLE_OFFSET_MASK);
        old.extend(blocks.filter(|block| *block != 0).map(|block| g.cluster_index(block)));
        Ok(old)
    }

    /// Takes one from the new counts of clusters that nothing leads to any more.
    fn free_in(&self, new: Geometry, room: &Room, clusters: &[u64]) -> Result<()> {
        let file = self.file_writer()?;
        let mut changes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for cluster in clusters {
            let Some(run) = room.blocks.get(&(cluster >> new.refcounts_per_block_bits())) else {
                continue;
            };
            let place = cluster & new.refcounts_per_block().saturating_sub(1);
            changes.entry(run.first).or_default().push(num::to_usize(place)?);
        }
        let mut bytes = vec![0; num::to_usize(new.cluster_bytes())?];
        for (block, places) in changes {
            let at = new.cluster_offset(block);
            self.file
                .read_exact_at(&mut bytes, at)
                .map_err(Error::io("read refcount block", at))?;
            for place in places {
                let count = refcount::get(&bytes, new.refcount, place);
                refcount::set(&mut bytes, new.refcount, place, count.saturating_sub(1));
            }
            file.write_all_at(&bytes, at).map_err(Error::io(op::WRITE_REFCOUNT_BLOCK, at))?;
        }
        Ok(())
    }
}
