//! Going back to a snapshot.
//!
//! ```text
//! counts of what only the snapshot uses ── sync ── active L1 table ── sync ── what only the
//!                                                                             disk used is free
//! ```
//! An L1 table of one sector is overwritten where it is, as QEMU does: the sector changes as one.
//! A longer one, or one for a disk of another size, is written elsewhere, and the header takes up
//! table and size together.

use super::tree::{Branch, SharedTables};
use super::{SnapshotEntry, select};
use crate::allocate::FreeRun;
use crate::error::{CorruptKind, FORMAT};
use crate::header::offset;
use crate::image::{Qcow2Image, State};
use crate::spec;
use core::ops::Range;
use rimg_core::{BlockImage as _, Error, Result, SnapshotSelector, num};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// So many entries of an L1 table reach the disk as one.
const L1_ENTRIES_PER_SECTOR: usize = 64;

impl Qcow2Image {
    pub(super) fn apply_snapshot(&self, wanted: &SnapshotSelector<'_>) -> Result<bool> {
        if self.has_data_file() {
            let feature = "snapshots of an image with an external data file".into();
            return Err(Error::Unsupported { format: FORMAT, feature });
        }
        let _claim = self.claim_disk()?;
        let mut state = self.lock()?;
        let state = &mut *state;
        self.refuse_bitmaps(state)?;
        self.catch_up(state)?;
        self.stop_postponing(state)?;
        let entries = self.read_snapshots(&state.header)?;
        let place = select(&entries, wanted);
        let Some(entry) = place.and_then(|place| entries.get(place)) else { return Ok(false) };
        let mut l1 = self.checked_l1(state, entry)?;
        self.check_size(entry)?;
        if entry.info.disk_size_bytes != self.size_bytes() {
            self.begin_resizing_bitmaps(state)?;
        }
        self.note_change(state, &(0..self.size_bytes()))?;
        let (coming, going) = self.differing_branches(state, &l1, entry)?;
        self.validate(state, &going)?;
        for word in &mut l1 {
            *word &= !spec::COPIED;
        }
        let snapshot_l1 = l1.clone();
        // What lies behind the disk of the snapshot is not there any more.
        l1.resize(l1.len().max(state.l1.len()), 0);
        let new = self.room_for_l1(state, &l1, entry.info.disk_size_bytes)?;

        // What needs space comes first: where there is none, no count has changed.
        let written = new.map_or(Ok(()), |run| {
            self.write_table(&l1, self.geometry.cluster_offset(run.first))?;
            self.catch_up(state)
        });
        self.or_give_back(state, new, written)?;
        let raised = self.raise(state, &coming).and_then(|()| {
            let written = self.write_table(&snapshot_l1, entry.l1_offset);
            let written = written.and_then(|()| self.catch_up(state));
            let written = written.and_then(|()| self.barrier(state));
            if written.is_err() {
                self.take_back(state, &coming, u64::MAX);
            }
            written
        });
        self.or_give_back(state, new, raised)?;
        let old_size = self.size_bytes();
        let taken = self.take_up(state, l1, new, entry.info.disk_size_bytes);
        // What is on disk now, nobody knows: memory may be behind it.
        state.is_outdated = taken.is_err();
        let old = taken?;
        state.l2.forget(0..u64::MAX);

        self.readers.wait_for(self.readers.next_generation());
        self.lower(state, &going, SharedTables::Flag)?;
        self.lower_clusters(state, old)?;
        self.guard_again(state)?;
        if self.size_bytes() < old_size {
            self.cut_tail(state)?;
        }
        Ok(true)
    }

    /// Where the L1 table goes that is too long to be changed in place, or changes together with
    /// the size of the disk.
    fn room_for_l1(&self, state: &mut State, l1: &[u64], size: u64) -> Result<Option<FreeRun>> {
        let fits = l1.len() == state.l1.len() && l1.len() <= L1_ENTRIES_PER_SECTOR;
        if fits && size == self.size_bytes() {
            return Ok(None);
        }
        self.allocate_table(state, num::to_u64(l1.len()).saturating_mul(8))
    }

    /// What the snapshot leads to and the active table does not, and the other way round. Where
    /// both lead to the same L2 table, nothing changes for anything below.
    fn differing_branches(
        &self,
        state: &State,
        l1: &[u64],
        entry: &SnapshotEntry,
    ) -> Result<(Vec<Branch>, Vec<Branch>)> {
        let mut coming = self.branches(l1, entry.l1_offset)?;
        let mut going = self.branches(&state.l1, state.header.l1_offset)?;
        let common: BTreeSet<Branch> = {
            let active: BTreeSet<Branch> = going.iter().copied().collect();
            coming.iter().copied().filter(|branch| active.contains(branch)).collect()
        };
        coming.retain(|branch| !common.contains(branch));
        going.retain(|branch| !common.contains(branch));
        Ok((coming, going))
    }

    fn check_size(&self, entry: &SnapshotEntry) -> Result<()> {
        let size = entry.info.disk_size_bytes;
        let needed = self.geometry.l1_entries_for(size);
        let entries = u64::from(entry.l1_entries);
        if entries < needed || !size.is_multiple_of(spec::SECTOR_BYTES) {
            let kind = CorruptKind::L1TooSmall { entries, needed };
            return Err(kind.at("snapshot table", "l1_size", entry.at));
        }
        Ok(())
    }

    /// Makes `l1` the active table, for a disk of `size` bytes. Returns the clusters of the old one
    /// if it was left.
    fn take_up(
        &self,
        state: &mut State,
        l1: Vec<u64>,
        new: Option<FreeRun>,
        size: u64,
    ) -> Result<Range<u64>> {
        let Some(run) = new else {
            self.write_table(&l1, state.header.l1_offset)?;
            self.barrier(state)?;
            state.l1 = l1;
            return Ok(0..0);
        };
        let at = self.geometry.cluster_offset(run.first);
        let entries = u32::try_from(l1.len()).unwrap_or(u32::MAX);
        let mut header = state.header.clone();
        header.size_bytes = size;
        header.l1_entries = entries;
        header.l1_offset = at;
        // From the size to the place of the table, in one sector: all change or none does.
        let bytes = header.encode()?;
        let from = num::to_usize(offset::SIZE)?;
        let to = num::to_usize(offset::REFCOUNT_TABLE)?;
        let fields = bytes.get(from..to).unwrap_or_default();
        self.file_writer()?
            .write_all_at(fields, offset::SIZE)
            .map_err(Error::io("write header", offset::SIZE))?;
        self.barrier(state)?;
        let old = self.clusters_of_l1(state.header.l1_offset, state.header.l1_entries);
        state.header = header;
        state.l1 = l1;
        self.size_bytes.store(size, Ordering::Release);
        Ok(old)
    }
}
