//! Taking a snapshot.
//!
//! ```text
//! copy of the L1 table, counts of all that it leads to, new snapshot table ── sync ── header ── sync
//! ```
//! The copy has the COPIED flags that the active table had until now, as QEMU leaves them: they
//! mean something in the active tables only.

use super::table::encode_table;
use super::tree::{Branch, set_l1_flag};
use super::{SnapshotEntry, next_id};
use crate::allocate::FreeRun;
use crate::error::FORMAT;
use crate::image::{Qcow2Image, State};
use crate::spec;
use rimg_core::{BlockImage as _, Error, NewSnapshot, Result, SnapshotInfo, num};

impl Qcow2Image {
    pub(super) fn create_snapshot(&self, new: &NewSnapshot<'_>) -> Result<SnapshotInfo> {
        if self.has_data_file() {
            let feature = "snapshots of an image with an external data file".into();
            return Err(Error::Unsupported { format: FORMAT, feature });
        }
        let _claim = self.claim_disk()?;
        let mut state = self.lock()?;
        let state = &mut *state;
        self.catch_up(state)?;
        self.stop_postponing(state)?;
        let mut entries = self.read_snapshots(&state.header)?;
        self.refuse_more_than(num::to_u64(entries.len()).saturating_add(1))?;
        let info = SnapshotInfo {
            id: next_id(&entries),
            name: new.name.to_owned(),
            date_seconds: new.date_seconds,
            date_nanoseconds: new.date_nanoseconds,
            icount: Some(0),
            disk_size_bytes: self.size_bytes(),
            ..SnapshotInfo::default()
        };
        entries.push(SnapshotEntry {
            id: info.id.clone().into_bytes(),
            name: info.name.clone().into_bytes(),
            info: info.clone(),
            l1_entries: state.header.l1_entries,
            ..SnapshotEntry::default()
        });
        // Everything that can be refused is, before anything is taken.
        let table_bytes = num::to_u64(encode_table(&entries)?.len());
        let branches = self.branches(&state.l1, state.header.l1_offset)?;
        self.validate(state, &branches)?;
        let l1 = self.allocate_table(state, num::to_u64(state.l1.len()).saturating_mul(8))?;
        let l1_at = l1.map_or(0, |run| self.geometry.cluster_offset(run.first));
        if let Some(entry) = entries.last_mut() {
            entry.l1_offset = l1_at;
        }
        let kept = self.keep_tree(state, l1_at, &branches);
        self.or_give_back(state, l1, kept)?;
        let table = self.store_snapshots(state, &entries, table_bytes);
        if table.is_err() {
            self.take_back(state, &branches, u64::MAX);
        }
        let table = self.or_give_back(state, l1, table)?;
        self.enter_snapshots(state, &entries, table)?;
        self.guard_again(state)?;
        Ok(info)
    }

    /// Writes the copy of the L1 table, and counts it as a second user of all that the first uses.
    fn keep_tree(&self, state: &mut State, copy_at: u64, branches: &[Branch]) -> Result<()> {
        self.write_table(&state.l1, copy_at)?;
        self.catch_up(state)?;
        self.raise(state, branches)?;
        state.l2.forget(0..u64::MAX);
        for branch in branches {
            set_l1_flag(state, branch.index, false);
        }
        let written = self.write_l1(state);
        if written.is_err() {
            self.take_back(state, branches, u64::MAX);
        }
        written
    }

    /// Writes a new snapshot table, which nothing refers to yet.
    fn store_snapshots(
        &self,
        state: &mut State,
        entries: &[SnapshotEntry],
        table_bytes: u64,
    ) -> Result<Option<FreeRun>> {
        let table = self.allocate_table(state, table_bytes)?;
        let written = self.write_snapshots(entries, table);
        self.or_give_back(state, table, written)?;
        Ok(table)
    }

    fn refuse_more_than(&self, count: u64) -> Result<()> {
        let limit = u64::from(spec::MAX_SNAPSHOTS.min(self.limits.snapshots));
        if count > limit {
            return Err(Error::Limit { what: "number of snapshots", needed: count, limit });
        }
        Ok(())
    }
}
