//! The tree below an L1 table, walked as a whole: who is referred to from there is counted in runs
//! of clusters, and the COPIED flags follow the counts.
//!
//! While the counts of a tree change, flag and count of a cluster may disagree on disk. That is
//! without danger as long as nobody else is known to use a cluster whose flag is set: flags are
//! cleared before a second tree is in force, and set when there is only one again.
#![warn(clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::cache::read_padded;
use crate::error::CorruptKind;
use crate::image::{Qcow2Image, State};
use crate::map::entry_at;
use crate::spec;
use crate::table::{Cluster, L1Entry, L2Entry};
use core::ops::Range;
use rimg_core::{Error, Result, StorageWrite, num};

/// An L2 table that an L1 table leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Branch {
    /// The host offset of the L2 table in bytes.
    pub(crate) table: u64,
    /// The place of its entry in the L1 table.
    pub(crate) index: usize,
}

/// What becomes of L2 tables that others still use, when nobody else uses the clusters below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SharedTables {
    /// They get their COPIED flags, as QEMU sets them when snapshots go.
    Flag,
    /// They stay as they are, as QEMU leaves them when the disk changes.
    Keep,
}

/// What becomes of the space of clusters that are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    /// The file need not keep it.
    GoesBack,
    /// It stays as it is.
    Stays,
}

/// What is left of references that are gone.
#[derive(Debug, Default)]
pub(crate) struct Lowered {
    /// Somewhere there is one user where there were two.
    pub(crate) has_single: bool,
}

impl Qcow2Image {
    /// The tables of the disk and of all snapshots: how many entries the L1 table has, and those
    /// that lead to L2 tables.
    pub(crate) fn trees(&self, state: &State) -> Result<Vec<(usize, Vec<Branch>)>> {
        let mut budget = self.limits.metadata_budget();
        let active = self.branches(&state.l1, state.header.l1_offset)?;
        let mut trees = vec![(state.l1.len(), active)];
        for entry in self.read_snapshots(&state.header)? {
            let l1 = self.checked_l1(state, &entry)?;
            let branches = self.branches(&l1, entry.l1_offset)?;
            let bytes = branches.len().saturating_mul(size_of::<Branch>());
            budget.reserve("L1 tables of snapshots", num::to_u64(bytes))?;
            trees.push((l1.len(), branches));
        }
        Ok(trees)
    }

    /// The L2 tables that `l1`, which lies at `l1_at`, leads to, in its order. Each is in the file,
    /// and leads to places that are possible.
    pub(crate) fn branches(&self, l1: &[u64], l1_at: u64) -> Result<Vec<Branch>> {
        let len = self.file.len_bytes().map_err(Error::io("read file length", 0))?;
        let wrong = |index: usize, kind: CorruptKind| {
            let at = l1_at.saturating_add(num::to_u64(index).saturating_mul(8));
            kind.at("L1 table", "entry", at)
        };
        let mut branches = Vec::new();
        for (index, entry) in l1.iter().enumerate() {
            let table = L1Entry(*entry).table(self.geometry).map_err(|kind| wrong(index, kind))?;
            let Some(table) = table else { continue };
            if table >= len {
                return Err(wrong(index, CorruptKind::BehindEnd(table)));
            }
            branches.push(Branch { table, index });
        }
        // Otherwise a small file could keep us busy for days.
        let mut sorted = branches.clone();
        sorted.sort_unstable();
        let next = sorted.iter().skip(1);
        match sorted.iter().zip(next).find(|(branch, next)| branch.table == next.table) {
            Some((_, twice)) => Err(wrong(twice.index, CorruptKind::SharedL2Table(twice.table))),
            None => Ok(branches),
        }
    }

    /// Fails where `branches` lead to places that are not possible.
    pub(crate) fn validate(&self, state: &State, branches: &[Branch]) -> Result<()> {
        let g = self.geometry;
        let guard = state.allocator.as_ref().map(|allocator| &allocator.guard);
        self.for_tables(branches, |table, at| {
            if guard.is_some_and(|guard| guard.is_contested(g, at)) {
                return Err(CorruptKind::Overlap(at).at("L1 table", "entry", at));
            }
            self.for_runs(table, at, &mut |run| {
                // What is given back, or marked, must not be a table in use.
                match guard.and_then(|guard| guard.first_in(run)) {
                    Some(cluster) => {
                        let host = g.cluster_offset(cluster);
                        Err(CorruptKind::Overlap(host).at("L2 table", "entry", at))
                    }
                    None => Ok(()),
                }
            })
        })
    }

    /// Counts one more reference to everything below `branches`, and clears the COPIED flags of
    /// their L2 tables. When that fails, all is as before.
    pub(crate) fn raise(&self, state: &mut State, branches: &[Branch]) -> Result<()> {
        let mut done = 0;
        let raised = self.raise_counting(state, branches, &mut done);
        if raised.is_err() {
            self.take_back(state, branches, done);
        }
        raised
    }

    fn raise_counting(&self, state: &mut State, branches: &[Branch], done: &mut u64) -> Result<()> {
        let g = self.geometry;
        let file = self.file_writer()?;
        self.for_tables(branches, |table, at| {
            self.make_room(state)?;
            let cluster = g.cluster_index(at);
            let allocator = state.allocator_mut()?;
            allocator.raise(cluster..cluster.saturating_add(1), done)?;
            self.for_runs(table, at, &mut |run| {
                self.make_room(state)?;
                state.allocator_mut()?.raise(run, done)
            })?;
            if flag(table, g, |_| Ok(false))? {
                file.note("l2_update");
                file.write_all_at(table, at).map_err(Error::io("write L2 table", at))?;
            }
            Ok(())
        })
    }

    /// Takes back the first `limit` references that [`raise`](Self::raise) counted, as far as that
    /// can be done after a failure: what went wrong first is what there is to say. No space is given
    /// back: who counted one reference to a cluster where there was none has damage that he does not
    /// know of.
    pub(crate) fn take_back(&self, state: &mut State, branches: &[Branch], limit: u64) {
        let _ = self.lower_some(state, branches, limit, SharedTables::Keep, Space::Stays);
        let _ = self.restore_flags(state);
    }

    /// Stops counting one reference to everything below `branches`, which nothing on disk leads to
    /// any more. What is free then, the file need not keep.
    pub(crate) fn lower(
        &self,
        state: &mut State,
        branches: &[Branch],
        shared: SharedTables,
    ) -> Result<Lowered> {
        self.lower_some(state, branches, u64::MAX, shared, Space::GoesBack)
    }

    /// As [`lower`](Self::lower), for the first `limit` references in the order of
    /// [`raise`](Self::raise).
    fn lower_some(
        &self,
        state: &mut State,
        branches: &[Branch],
        limit: u64,
        shared: SharedTables,
        space: Space,
    ) -> Result<Lowered> {
        let g = self.geometry;
        let file = self.file_writer()?;
        let mut left = limit;
        let mut freed = Freed { geometry: g, file, runs: Vec::new() };
        let mut lowered = Lowered::default();
        self.for_tables(branches, |table, at| {
            let mut has_single = false;
            let mut lower = |state: &mut State, run: Range<u64>| -> Result<()> {
                let clusters = run.end.saturating_sub(run.start).min(left);
                left = left.saturating_sub(clusters);
                self.make_room(state)?;
                let run = run.start..run.start.saturating_add(clusters);
                has_single |= state.allocator_mut()?.lower(run, &mut |run| match space {
                    Space::GoesBack => freed.add(run),
                    Space::Stays => Ok(()),
                })?;
                Ok(())
            };
            let cluster = g.cluster_index(at);
            lower(state, cluster..cluster.saturating_add(1))?;
            self.for_runs(table, at, &mut |run| lower(state, run))?;
            lowered.has_single |= has_single;
            let allocator = state.allocator_mut()?;
            if has_single
                && shared == SharedTables::Flag
                && allocator.is_used(cluster)?
                && flag(table, g, |cluster| allocator.is_single(cluster))?
            {
                file.note("l2_update");
                file.write_all_at(table, at).map_err(Error::io("write L2 table", at))?;
            }
            Ok(())
        })?;
        freed.discard()?;
        Ok(lowered)
    }

    /// Stops counting one reference to each of `clusters`, which nothing on disk leads to any more.
    pub(crate) fn lower_clusters(&self, state: &mut State, clusters: Range<u64>) -> Result<()> {
        let mut freed =
            Freed { geometry: self.geometry, file: self.file_writer()?, runs: Vec::new() };
        state.allocator_mut()?.lower(clusters, &mut |run| freed.add(run))?;
        freed.discard()
    }

    /// Brings the COPIED flags of the active tables to what the refcounts say.
    pub(crate) fn restore_flags(&self, state: &mut State) -> Result<()> {
        let g = self.geometry;
        let file = self.file_writer()?;
        let l1 = core::mem::take(&mut state.l1);
        let branches = self.branches(&l1, state.header.l1_offset);
        state.l1 = l1;
        let mut owned = Vec::new();
        for branch in branches? {
            let is_single = state.allocator_mut()?.is_single(g.cluster_index(branch.table))?;
            set_l1_flag(state, branch.index, is_single);
            // Nobody has a cluster to himself below a table that he shares.
            if is_single {
                owned.push(branch);
            }
        }
        self.for_tables(&owned, |table, at| {
            self.make_room(state)?;
            let allocator = state.allocator_mut()?;
            if flag(table, g, |cluster| allocator.is_single(cluster))? {
                file.note("l2_update");
                file.write_all_at(table, at).map_err(Error::io("write L2 table", at))?;
            }
            Ok(())
        })?;
        state.l2.forget(0..u64::MAX);
        self.write_l1(state)
    }

    /// Calls `visit` with the bytes of each L2 table and its place. The tables in memory are to be
    /// on disk before, and forgotten after something was changed.
    fn for_tables(
        &self,
        branches: &[Branch],
        mut visit: impl FnMut(&mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        let mut table = vec![0; num::to_usize(self.geometry.cluster_bytes())?];
        for branch in branches {
            self.file.note("l2_load");
            read_padded(self.file.as_ref(), &mut table, branch.table)
                .map_err(Error::io("read L2 table", branch.table))?;
            visit(&mut table, branch.table)?;
        }
        Ok(())
    }

    /// Calls `visit` with the clusters of the image's own file that an L2 table refers to, as runs, in
    /// its order.
    fn for_runs(
        &self,
        table: &[u8],
        table_at: u64,
        visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        if self.has_data_file() {
            // Nobody counts who uses the data file.
            return Ok(());
        }
        let g = self.geometry;
        let mut run = 0..0;
        for (index, entry) in entries(table, g).enumerate() {
            if entry.descriptor == 0 {
                continue;
            }
            let wrong = |kind: CorruptKind| {
                let at = num::to_u64(index).saturating_mul(g.l2_entry_bytes());
                kind.at("L2 table", "entry", table_at.saturating_add(at))
            };
            let clusters = match entry.cluster(g, None).map_err(wrong)? {
                Cluster::Unallocated => continue,
                Cluster::Standard { host, .. } => {
                    let cluster = g.cluster_index(host);
                    cluster..cluster.saturating_add(1)
                }
                Cluster::Compressed { host, len } => {
                    g.cluster_index(host)..g.clusters_for(host.saturating_add(len))
                }
            };
            if run.end == clusters.start {
                run.end = clusters.end;
                continue;
            }
            let last = core::mem::replace(&mut run, clusters);
            if !last.is_empty() {
                visit(last)?;
            }
        }
        if run.is_empty() { Ok(()) } else { visit(run) }
    }
}

/// Sets or clears the COPIED flag of an entry of the active L1 table.
pub(crate) fn set_l1_flag(state: &mut State, index: usize, is_single: bool) {
    let Some(entry) = state.l1.get_mut(index) else { return };
    let flagged = if is_single { *entry | spec::COPIED } else { *entry & !spec::COPIED };
    if flagged != *entry {
        *entry = flagged;
        state.dirty_l1.insert(index);
    }
}

fn entries(table: &[u8], g: Geometry) -> impl Iterator<Item = L2Entry> {
    let width = if g.extended_l2 { 16 } else { 8 };
    table.chunks_exact(width).map(move |bytes| entry_at(bytes, 0, g))
}

/// Sets the COPIED flag of every standard cluster as `is_single` says of its place in the file.
/// Returns whether something changed.
fn flag(
    table: &mut [u8],
    g: Geometry,
    mut is_single: impl FnMut(u64) -> Result<bool>,
) -> Result<bool> {
    let width = if g.extended_l2 { 16 } else { 8 };
    let mut changed = false;
    for place in table.chunks_exact_mut(width) {
        let Some(descriptor) = place.first_chunk_mut::<8>() else { continue };
        let old = u64::from_be_bytes(*descriptor);
        let host = old & spec::OFFSET_MASK;
        if host == 0 || old & spec::COMPRESSED != 0 {
            continue;
        }
        let is_copied = is_single(g.cluster_index(host))?;
        let new = if is_copied { old | spec::COPIED } else { old & !spec::COPIED };
        if new != old {
            *descriptor = new.to_be_bytes();
            changed = true;
        }
    }
    Ok(changed)
}

/// So many runs of free clusters are put in order at a time.
const MAX_RUNS: usize = 1 << 16;

/// Clusters that became free, on their way back to the file system. Tables lead to them in the
/// guest's order; in the file's order many are neighbours, and go together.
struct Freed<'a> {
    geometry: Geometry,
    file: &'a dyn StorageWrite,
    runs: Vec<Range<u64>>,
}

impl Freed<'_> {
    fn add(&mut self, run: Range<u64>) -> Result<()> {
        match self.runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.runs.push(run),
        }
        if self.runs.len() < MAX_RUNS { Ok(()) } else { self.discard() }
    }

    fn discard(&mut self) -> Result<()> {
        let mut runs = core::mem::take(&mut self.runs);
        runs.sort_unstable_by_key(|run| run.start);
        for neighbours in runs.chunk_by(|a, b| a.end == b.start) {
            let (Some(first), Some(last)) = (neighbours.first(), neighbours.last()) else {
                continue;
            };
            let start = self.geometry.cluster_offset(first.start);
            let end = self.geometry.cluster_offset(last.end);
            self.file.discard_at(start..end).map_err(Error::io("discard cluster", start))?;
        }
        Ok(())
    }
}
