//! Clusters that read as zeroes, for version 2, which has no word for them: nothing where nothing
//! lies below, else a cluster of zeroes.
//!
//! ```text
//! zeroes, refcounts ── sync ── L2 tables ── sync ── places that are not needed are free
//! ```
#![warn(clippy::indexing_slicing)]

use crate::cache::read_padded;
use crate::error::CorruptKind;
use crate::image::{Qcow2Image, State};
use crate::snapshot::Branch;
use crate::spec;
use rimg_core::{AmendProgress, Error, Result, Zeroing, num, op};
use std::collections::BTreeSet;

/// So many L2 tables wait in memory for a sync.
const TABLES_AT_ONCE: usize = 64;

/// L2 tables that changed, and what they left.
#[derive(Default)]
struct Batch {
    tables: Vec<(u64, Vec<u8>)>,
    /// Clusters, and how many references to each are gone.
    left: Vec<(u64, u64)>,
}

impl Qcow2Image {
    pub(super) fn expand_zeroes(&self, progress: &mut AmendProgress<'_>) -> Result<()> {
        let mut state = self.lock()?;
        let state = &mut *state;
        let trees = self.trees(state)?;
        let total = trees.iter().map(|(entries, _)| num::to_u64(*entries)).sum();
        let mut done = 0_u64;
        // What several trees share is changed once.
        let mut tables: BTreeSet<u64> = BTreeSet::new();
        let mut batch = Batch::default();
        for (entries, branches) in trees {
            let mut branches = branches.into_iter().peekable();
            for index in 0..entries {
                let branch = branches.next_if(|branch| branch.index == index);
                if let Some(branch) = branch.filter(|branch| tables.insert(branch.table)) {
                    self.expand_table(state, branch, &mut batch)?;
                    if batch.tables.len() >= TABLES_AT_ONCE {
                        self.write_batch(state, &mut batch)?;
                    }
                }
                done = done.saturating_add(1);
                progress(done, total);
            }
        }
        self.write_batch(state, &mut batch)?;
        state.l2.forget(0..u64::MAX);
        Ok(())
    }

    fn expand_table(&self, state: &mut State, branch: Branch, batch: &mut Batch) -> Result<()> {
        let g = self.geometry;
        let at = branch.table;
        let first_guest = num::to_u64(branch.index).saturating_mul(g.l2_coverage_bytes());
        let has_backing = state.header.backing_name.is_some();
        let mut table = vec![0; num::to_usize(g.cluster_bytes())?];
        read_padded(self.file.as_ref(), &mut table, at).map_err(Error::io("read L2 table", at))?;
        let users = state.allocator_mut()?.live_refcount(g.cluster_index(at))?;
        let mut changed = false;
        for (index, place) in (0_u64..).zip(table.chunks_exact_mut(8)) {
            let guest = first_guest.saturating_add(g.cluster_offset(index));
            let Some(descriptor) = place.first_chunk_mut::<8>() else { continue };
            let old = u64::from_be_bytes(*descriptor);
            if old & spec::COMPRESSED != 0 || old & spec::ZERO == 0 {
                continue;
            }
            let host = old & spec::OFFSET_MASK;
            let cluster = g.cluster_index(host);
            let allocator = state.allocator_mut()?;
            if host != 0 && (!g.is_aligned(host) || allocator.guard.holds_table(g, host)) {
                let entry_at = at.saturating_add(index.saturating_mul(8));
                return Err(CorruptKind::Overlap(host).at("L2 table", "entry", entry_at));
            }
            // A place that another table knows may hold data for it.
            let is_own = host != 0 && state.allocator_mut()?.live_refcount(cluster)? <= users;
            let new = if is_own {
                self.zero_cluster(guest, host)?;
                old & !spec::ZERO
            } else if has_backing {
                self.zeroed_cluster(state, guest, users)?
            } else {
                0
            };
            if host != 0 && !is_own {
                batch.left.push((cluster, users));
            }
            *descriptor = new.to_be_bytes();
            changed = true;
        }
        if changed {
            batch.tables.push((at, table));
        }
        Ok(())
    }

    /// A new cluster of zeroes that `users` tables lead to.
    fn zeroed_cluster(&self, state: &mut State, guest: u64, users: u64) -> Result<u64> {
        let (run, _) = self.allocate(state, 1)?;
        let host = self.geometry.cluster_offset(run.first);
        for _ in 1..users {
            if !state.allocator_mut()?.add_reference(run.first)? {
                let limit = self.geometry.refcount.max();
                return Err(Error::Limit { what: "refcount", needed: users, limit });
            }
        }
        self.zero_cluster(guest, host)?;
        Ok(if users == 1 { host | spec::COPIED } else { host })
    }

    fn zero_cluster(&self, guest: u64, host: u64) -> Result<()> {
        if self.encryption.is_some() {
            // QEMU writes zeroes as they are, which are none when they are decrypted.
            let zeroes = vec![0; num::to_usize(self.geometry.cluster_bytes())?];
            return self.store_data(op::ZERO_CLUSTER, &zeroes, guest, host);
        }
        let end = host.saturating_add(self.geometry.cluster_bytes());
        self.file_writer()?
            .write_zeroes_at(host..end, Zeroing::KeepAllocated)
            .map_err(Error::io(op::ZERO_CLUSTER, host))
    }

    fn write_batch(&self, state: &mut State, batch: &mut Batch) -> Result<()> {
        if batch.tables.is_empty() {
            return Ok(());
        }
        let file = self.file_writer()?;
        self.catch_up(state)?;
        self.barrier(state)?;
        for (at, table) in batch.tables.drain(..) {
            file.write_all_at(&table, at).map_err(Error::io("write L2 table", at))?;
        }
        if batch.left.is_empty() {
            return Ok(());
        }
        self.barrier(state)?;
        for (cluster, references) in batch.left.drain(..) {
            for _ in 0..references {
                self.lower_clusters(state, cluster..cluster.saturating_add(1))?;
            }
        }
        Ok(())
    }
}
