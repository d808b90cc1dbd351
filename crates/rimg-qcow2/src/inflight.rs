//! Who is at work on what, outside the lock.
//!
//! Data I/O happens outside the image's lock, so two kinds of book are kept. Writers enter the
//! guest clusters they are about to change: those that only overwrite data in place may overlap,
//! all others wait for each other. Readers count themselves in: clusters that were given back are
//! used again only when everybody who may still be reading them is done.

use crate::image::{Qcow2Image, State};
use core::ops::Range;
use rimg_core::Result;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The writers at work, in the image's state.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    at_work: Vec<Entry>,
    next_id: u64,
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
                let id = state.writers.next_id;
                state.writers.next_id = id.wrapping_add(1);
                state.writers.at_work.push(Entry { id, clusters, in_place });
                return Ok((Claim { image: self, id }, in_place));
            }
            state = self.wait_for_writer(state);
        }
    }

    fn wait_for_writer<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.writer_done.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody reads from places that were resolved before now. The caller holds the
    /// lock, so nobody resolves new ones meanwhile.
    pub(crate) fn wait_for_readers(&self, _state: &mut State) -> Result<()> {
        self.readers.wait_for_all();
        Ok(())
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

/// The readers at work on an image that is also written.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    count: Mutex<u64>,
    none_left: Condvar,
}

/// A reader at work, until dropped.
#[derive(Debug)]
pub(crate) struct Reading<'a>(&'a Readers);

impl Readers {
    /// Counts a reader in; called while the image's lock is held.
    pub(crate) fn enter(&self) -> Reading<'_> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add(1);
        Reading(self)
    }

    fn wait_for_all(&self) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count > 0 {
            count = self.none_left.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.0.none_left.notify_all();
        }
    }
}
