//! Shrinking: what lies behind the new end goes, from the top of the tables downwards, and then the
//! end of the file.
#![warn(clippy::indexing_slicing)]

use crate::allocate::{Afterwards, Block};
use crate::image::{Qcow2Image, State};
use crate::snapshot::{Branch, SharedTables};
use crate::table::L2Entry;
use core::ops::Range;
use rimg_core::{BlockImage as _, Error, Result, Zeroing, num};

impl Qcow2Image {
    /// Leaves so many bytes of an external data file. The caller has claimed the disk.
    pub(super) fn shrink(&self, size_bytes: u64, data_file_end: u64) -> Result<()> {
        let mut state = self.lock()?;
        let state = &mut *state;
        let going = self.unlink_behind(state, size_bytes)?;
        self.catch_up(state)?;
        self.stop_postponing(state)?;
        self.zero_data_file(data_file_end..self.size_bytes())?;
        self.barrier(state)?;
        self.write_size(state, size_bytes)?;
        self.barrier(state)?;
        self.free_branches(state, &going)?;
        let dropped = self.drop_idle_blocks(state)?;
        self.catch_up(state)?;
        self.barrier(state)?;
        for block in dropped {
            let end = block.at.saturating_add(self.geometry.cluster_bytes());
            self.file_writer()?
                .discard_at(block.at..end)
                .map_err(Error::io("discard cluster", block.at))?;
        }
        self.cut_tail(state)?;
        if let Some(file) = self.data_file_writer() {
            file.set_len_bytes(data_file_end)
                .map_err(Error::io("shorten data file", data_file_end))?;
        }
        Ok(())
    }

    /// Takes everything behind guest offset `end` out of the active tables. Returns the L2 tables
    /// that are not in the L1 table any more; when that is on disk, they can be freed.
    pub(super) fn unlink_behind(&self, state: &mut State, end: u64) -> Result<Vec<Branch>> {
        self.catch_up(state)?;
        let g = self.geometry;
        let keep = g.l1_entries_for(end);
        let mut going = self.branches(&state.l1, state.header.l1_offset)?;
        going.retain(|branch| num::to_u64(branch.index) >= keep);
        self.validate(state, &going)?;
        let mut guest = end.next_multiple_of(g.cluster_bytes());
        let table_end = keep.saturating_mul(g.l2_coverage_bytes());
        while guest < table_end {
            let old = self.entry(state, guest)?;
            if old != L2Entry::default() {
                self.make_room(state)?;
                self.set_entry(state, guest, L2Entry::default())?;
                self.release_old(state, guest, old, L2Entry::default(), Afterwards::Discard)?;
            }
            guest = guest.saturating_add(g.cluster_bytes());
        }
        for branch in &going {
            if let Some(entry) = state.l1.get_mut(branch.index) {
                *entry = 0;
                state.dirty_l1.insert(branch.index);
            }
        }
        Ok(going)
    }

    /// Makes zeroes of what an external data file holds of the disk in `range`. It becomes shorter
    /// last of all: where a crash comes before, who grows the disk again would find there what
    /// went. What a device has behind the disk is not the image's.
    fn zero_data_file(&self, range: Range<u64>) -> Result<()> {
        let Some(file) = self.data_file_writer() else { return Ok(()) };
        let len = file.len_bytes().map_err(Error::io("read data file length", 0))?;
        let range = range.start..range.end.min(len);
        if range.is_empty() {
            return Ok(());
        }
        let at = range.start;
        file.write_zeroes_at(range, Zeroing::MayPunch).map_err(Error::io("zero data file", at))
    }

    /// Stops counting everything below L2 tables that [`unlink_behind`](Self::unlink_behind) took
    /// out, once the disk knows.
    pub(super) fn free_branches(&self, state: &mut State, going: &[Branch]) -> Result<()> {
        self.file.note("l1_shrink_free_l2_clusters");
        self.readers.wait_for(self.readers.next_generation());
        state.l2.forget(0..u64::MAX);
        self.lower(state, going, SharedTables::Keep)?;
        self.guard_again(state)?;
        Ok(())
    }

    /// Takes refcount blocks that count nothing, or themselves alone, out of the refcount table.
    /// Returns those of the second kind, which are free as soon as the disk knows.
    fn drop_idle_blocks(&self, state: &mut State) -> Result<Vec<Block>> {
        let g = self.geometry;
        let allocator = state.allocator_mut()?;
        let mut idle = allocator.idle_blocks()?;
        for block in &idle {
            allocator.drop_block(*block)?;
        }
        idle.retain(|block| {
            let cluster = g.cluster_index(block.at);
            let counts_itself = cluster >> g.refcounts_per_block_bits() == block.index;
            if !counts_itself {
                allocator.release(cluster..cluster.saturating_add(1), Afterwards::Discard);
            }
            counts_itself
        });
        self.guard_again(state)?;
        Ok(idle)
    }

    /// Ends the file behind its last cluster that is in use.
    pub(crate) fn cut_tail(&self, state: &mut State) -> Result<()> {
        let file = self.file_writer()?;
        let g = self.geometry;
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        let end = g.cluster_offset(state.allocator_mut()?.used_end(g.clusters_for(len))?);
        if end < len {
            file.set_len_bytes(end).map_err(Error::io("shorten file", end))?;
            state.data_end = state.data_end.min(end);
        }
        Ok(())
    }
}
