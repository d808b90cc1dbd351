//! Dropping a snapshot.
//!
//! ```text
//! snapshot table without it ── sync ── header ── sync ── its clusters stop being counted for it
//! ```

use super::SnapshotEntry;
use super::select;
use super::table::encode_table;
use super::tree::SharedTables;
use crate::error::{FORMAT, doing};
use crate::image::{Qcow2Image, State};
use rimg_core::{Error, Result, SnapshotSelector, num, op};
use std::sync::Arc;

impl Qcow2Image {
    pub(super) fn delete_snapshot(&self, wanted: &SnapshotSelector<'_>) -> Result<bool> {
        if self.has_data_file() {
            let feature = "snapshots of an image with an external data file".into();
            return Err(Error::Unsupported { format: FORMAT, feature });
        }
        if Arc::strong_count(&self.views) > 1 {
            return Err(Error::Misuse("a snapshot's disk is open while a snapshot is deleted"));
        }
        let _claim = self.claim_disk()?;
        let mut state = self.lock()?;
        let state = &mut *state;
        self.catch_up(state)?;
        self.stop_postponing(state)?;
        let mut entries = self.read_snapshots(&state.header)?;
        let Some(place) = select(&entries, wanted) else { return Ok(false) };
        let gone: SnapshotEntry = entries.remove(place);
        let l1 = self.checked_l1(state, &gone)?;
        let branches = self.branches(&l1, gone.l1_offset)?;
        self.validate(state, &branches)?;
        self.leave_out(state, &entries).map_err(doing(op::REMOVE_SNAPSHOT))?;
        self.readers.wait_for(self.readers.next_generation());
        let freeing = doing(op::FREE_SNAPSHOT);
        let lowered = self
            .begin_freeing()
            .and_then(|()| self.lower(state, &branches, SharedTables::Flag))
            .and_then(|lowered| {
                let l1 = self.clusters_of_l1(gone.l1_offset, gone.l1_entries);
                self.lower_clusters(state, l1).map(|()| lowered)
            })
            .map_err(freeing)?;
        if lowered.has_single {
            self.restore_flags(state).map_err(doing(op::UPDATE_COPIED_FLAGS))?;
        }
        self.guard_again(state)?;
        Ok(true)
    }

    /// Puts a snapshot table into force that has these entries only.
    fn leave_out(&self, state: &mut State, entries: &[SnapshotEntry]) -> Result<()> {
        let table_bytes = num::to_u64(encode_table(entries)?.len());
        let table = self.allocate_table(state, table_bytes)?;
        let written = self.write_snapshots(entries, table);
        self.or_give_back(state, table, written)?;
        self.enter_snapshots(state, entries, table)
    }
}
