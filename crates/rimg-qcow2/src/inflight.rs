//! Who is at work on what, outside the lock.
//!
//! Data I/O happens outside the image's lock, so two kinds of book are kept. Writers enter the
//! guest clusters they are about to change: those that only overwrite data in place may overlap,
//! all others wait for each other. Readers count themselves in: clusters that were given back are
//! used again only when everybody who may still be reading them is done.

use crate::image::{Qcow2Image, State};
use core::ops::Range;
use rimg_core::Result;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The writers at work, in the image's state.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    at_work: Vec<Entry>,
    next_id: u64,
}

impl Writers {
    /// The guest clusters that somebody is about to change, or has begun to.
    pub(crate) fn claimed(&self) -> impl Iterator<Item = &Range<u64>> {
        self.at_work.iter().map(|entry| &entry.clusters)
    }
}

#[derive(Debug)]
struct Entry {
    id: u64,
    clusters: Range<u64>,
    in_place: bool,
}

/// A writer's claim on guest clusters, given up when dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    image: &'a Qcow2Image,
    id: u64,
}

impl Qcow2Image {
    /// Enters a writer that changes the guest bytes of `range`, when nobody else is at work there.
    /// Returns whether all of it can be overwritten in place.
    pub(crate) fn claim_guest(&self, range: &Range<u64>) -> Result<(Claim<'_>, bool)> {
        self.enter(range, true)
    }

    /// As [`claim_guest`](Self::claim_guest), for a writer that leaves what the guest sees as it
    /// is, or says by itself what changes.
    pub(crate) fn claim_unchanged(&self, range: &Range<u64>) -> Result<(Claim<'_>, bool)> {
        self.enter(range, false)
    }

    fn enter(&self, range: &Range<u64>, changes: bool) -> Result<(Claim<'_>, bool)> {
        let g = self.geometry;
        let clusters = g.cluster_index(range.start)..g.clusters_for(range.end);
        let mut state = self.lock()?;
        self.begin_writing(&mut state)?;
        loop {
            let in_place = self.is_in_place(&mut state, range)?;
            let in_the_way = state.writers.at_work.iter().any(|other| {
                !(in_place && other.in_place)
                    && other.clusters.start < clusters.end
                    && clusters.start < other.clusters.end
            });
            if !in_the_way {
                if changes {
                    self.note_change(&mut state, range)?;
                }
                let id = state.writers.next_id;
                state.writers.next_id = id.wrapping_add(1);
                state.writers.at_work.push(Entry { id, clusters, in_place });
                return Ok((Claim { image: self, id }, in_place));
            }
            state = self.wait_for_writer(state);
        }
    }

    /// Enters somebody who changes what the whole disk is, when nobody else is at work.
    pub(crate) fn claim_disk(&self) -> Result<Claim<'_>> {
        let mut state = self.lock()?;
        self.begin_writing(&mut state)?;
        while !state.writers.at_work.is_empty() {
            state = self.wait_for_writer(state);
        }
        let id = state.writers.next_id;
        state.writers.next_id = id.wrapping_add(1);
        state.writers.at_work.push(Entry { id, clusters: 0..u64::MAX, in_place: false });
        Ok(Claim { image: self, id })
    }

    fn wait_for_writer<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.writer_done.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.image.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.writers.at_work.retain(|entry| entry.id != self.id);
        drop(state);
        self.image.writer_done.notify_all();
    }
}

/// The readers at work on an image that is also written, by generation.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    inner: Mutex<Generations>,
    one_left: Condvar,
}

#[derive(Debug, Default)]
struct Generations {
    now: Generation,
    at_work: BTreeMap<Generation, u64>,
}

/// Readers that entered between two calls of [`Readers::next_generation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Generation(u64);

/// A reader at work, until dropped.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    readers: &'a Readers,
    generation: Generation,
}

impl Readers {
    /// Counts a reader in; called while the image's lock is held.
    pub(crate) fn enter(&self) -> Reading<'_> {
        let mut inner = self.lock();
        let generation = inner.now;
        let count = inner.at_work.entry(generation).or_insert(0);
        *count = count.saturating_add(1);
        Reading { readers: self, generation }
    }

    /// Parts the readers until now from those to come; called while the image's lock is held.
    pub(crate) fn next_generation(&self) -> Generation {
        let mut inner = self.lock();
        let generation = inner.now;
        inner.now = Generation(generation.0.saturating_add(1));
        generation
    }

    /// Waits until the readers of `last`, and those before, are done. Readers to come do not
    /// count: what they resolve does not lead to what was released.
    pub(crate) fn wait_for(&self, last: Generation) {
        let mut inner = self.lock();
        while inner.at_work.first_key_value().is_some_and(|(oldest, _)| *oldest <= last) {
            inner = self.one_left.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut inner = self.readers.lock();
        let left = inner.at_work.get(&self.generation).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            inner.at_work.remove(&self.generation);
            self.readers.one_left.notify_all();
        } else {
            inner.at_work.insert(self.generation, left);
        }
    }
}
