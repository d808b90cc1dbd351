//! Mapping guest clusters before anybody writes to them.
#![warn(clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::image::{Qcow2Image, State};
use crate::map::entry_at;
use crate::table::{Cluster, L2Entry};
use core::ops::Range;
use rimg_core::{Error, ImageWrite as _, Preallocation, Result, Zeroing, num, op};

/// `full` writes zeroes in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;

impl Qcow2Image {
    /// Maps every cluster of `range` that is not mapped yet, and reserves space as `how` says.
    pub(crate) fn preallocate(&self, range: Range<u64>, how: Preallocation) -> Result<()> {
        if how == Preallocation::Off || range.is_empty() {
            return Ok(());
        }
        let g = self.geometry;
        let (_claim, _) = self.claim_unchanged(&range)?;
        if let Some(rest) = self.rest_of_cluster(&range)? {
            self.reserve(rest, how)?;
        }
        let window_bytes = g.l2_coverage_bytes();
        let mut guest = g.cluster_start(range.start);
        let mut file_end = 0;
        let mut last = None;
        while guest < range.end {
            let window_end = num::align_down(guest, window_bytes).saturating_add(window_bytes);
            let end = range.end.min(window_end);
            let mapped = self.map_unmapped(guest..end, how)?;
            for (guest, host) in mapped {
                file_end = file_end.max(host.end);
                last = Some((guest, host.clone()));
                self.reserve(host, how)?;
            }
            guest = g.cluster_start(end.saturating_add(g.cluster_bytes()).saturating_sub(1));
        }
        let within = range.end.saturating_sub(num::align_down(range.end, g.subcluster_bytes()));
        let beyond = if within == 0 { 0 } else { g.subcluster_bytes().saturating_sub(within) };
        // The rest of the (sub)cluster that the disk ends within is written, as by QEMU.
        if let Some((guest, host)) = last.filter(|_| beyond > 0 && self.encryption.is_none()) {
            let at = host.start.saturating_add(range.end.saturating_sub(guest));
            if host.end == at.saturating_add(beyond) {
                let zeroes = vec![0; num::to_usize(beyond)?];
                let data = self.data_writer()?;
                data.write_all_at(&zeroes, at).map_err(Error::io("write zeroes", at))?;
            }
        }
        let (data, _) = self.data();
        let len = data.len_bytes().map_err(Error::io("read file length", 0))?;
        if len < file_end {
            let data = self.data_writer()?;
            data.set_len_bytes(file_end).map_err(Error::io("extend file", len))?;
        }
        self.flush()
    }

    /// Where the start of `range` lies, if it is behind the start of a cluster that has a place of
    /// its own. The disk has grown by `range`: nothing is there yet but zeroes.
    fn rest_of_cluster(&self, range: &Range<u64>) -> Result<Option<Range<u64>>> {
        let g = self.geometry;
        let start = g.cluster_start(range.start);
        // Zeroes as they are would be none when they are decrypted.
        if start == range.start || self.encryption.is_some() {
            return Ok(None);
        }
        let end = range.end.min(start.saturating_add(g.cluster_bytes()));
        let identity = self.has_data_file().then_some(start);
        let mut state = self.lock()?;
        let entry = self.entry(&mut state, start)?;
        let Ok(Cluster::Standard { host, copied }) = entry.cluster(g, identity) else {
            return Ok(None);
        };
        let guard = state.allocator.as_ref().map(|allocator| &allocator.guard);
        let is_own = identity.is_some()
            || (copied && !guard.is_some_and(|guard| guard.holds_table(g, host)));
        let at = |guest: u64| host.saturating_add(guest.saturating_sub(start));
        Ok(is_own.then(|| at(range.start)..at(end)))
    }

    /// Maps the clusters of `range` without a place, which one L2 table covers: blank ones, and
    /// zeroes that hide what a backing image holds. Returns where runs of them start on the disk,
    /// and their places.
    fn map_unmapped(
        &self,
        range: Range<u64>,
        how: Preallocation,
    ) -> Result<Vec<(u64, Range<u64>)>> {
        let g = self.geometry;
        let mut state = self.lock()?;
        let state = &mut *state;
        let mut places = Vec::new();
        let mut guest = range.start;
        while guest < range.end {
            let mut clusters = 0_u64;
            let start = guest;
            while guest < range.end && has_no_place(self.entry(state, guest)?, g) {
                clusters += 1;
                guest = guest.saturating_add(g.cluster_bytes());
            }
            if clusters == 0 {
                guest = guest.saturating_add(g.cluster_bytes());
                continue;
            }
            let host = if self.has_data_file() {
                start
            } else {
                self.own_l2_table(state, g.l1_index(start))?;
                let (run, virgin) = self.allocate(state, clusters)?;
                let host = g.cluster_offset(run.first);
                if !virgin {
                    // What these clusters held before must not come up again.
                    let end = g.cluster_offset(run.end());
                    self.file_writer()?
                        .write_zeroes_at(host..end, Zeroing::MayPunch)
                        .map_err(Error::io("clear clusters", host))?;
                }
                host
            };
            self.map_run(state, start..guest, host, how)?;
            // Subclusters behind the end of the disk need no space.
            let disk_end = num::align_up(range.end, g.subcluster_bytes()).unwrap_or(u64::MAX);
            let len = g.cluster_offset(clusters).min(disk_end.saturating_sub(start));
            places.push((start, host..host.saturating_add(len)));
        }
        Ok(places)
    }

    /// Enters clusters in a row, from `host` on, for the entries of `range`, which have no places
    /// and which one L2 table holds.
    fn map_run(
        &self,
        state: &mut State,
        range: Range<u64>,
        host: u64,
        how: Preallocation,
    ) -> Result<()> {
        let g = self.geometry;
        let mut guest = range.start;
        while guest < range.end {
            self.make_room(state)?;
            let left = g.cluster_index(
                range.end.saturating_sub(guest).saturating_add(g.cluster_bytes() - 1),
            );
            let host = host.saturating_add(guest.saturating_sub(range.start));
            let entries = self.entries_mut(state, guest)?;
            let width = num::to_usize(g.l2_entry_bytes())?;
            let mut entered = 0;
            for place in entries.chunks_exact_mut(width).take(num::to_usize(left)?) {
                let host = host.saturating_add(g.cluster_offset(entered));
                let new = placed(entry_at(place, 0, g), host, how, g);
                for (field, value) in place.chunks_exact_mut(8).zip([new.descriptor, new.bitmap]) {
                    field.copy_from_slice(&value.to_be_bytes());
                }
                entered += 1;
            }
            guest = guest.saturating_add(g.cluster_offset(entered));
        }
        Ok(())
    }

    fn reserve(&self, host: Range<u64>, how: Preallocation) -> Result<()> {
        let data = self.data_writer()?;
        let at = host.start;
        match how {
            Preallocation::Off | Preallocation::Metadata => Ok(()),
            Preallocation::Falloc => data
                .write_zeroes_at(host, Zeroing::KeepAllocated)
                .map_err(Error::io(op::RESERVE_SPACE, at)),
            Preallocation::Full => {
                let zeroes = vec![0; BUFFER_BYTES];
                let mut at = host.start;
                while at < host.end {
                    let left = host.end.saturating_sub(at);
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER_BYTES);
                    let piece = zeroes.get(..len).unwrap_or_default();
                    data.write_all_at(piece, at)
                        .map_err(Error::io(op::WRITE_RESERVED_ZEROES, at))?;
                    at = at.saturating_add(num::to_u64(len));
                }
                Ok(())
            }
        }
    }
}

/// Whether a cluster is to get a place.
fn has_no_place(entry: L2Entry, g: Geometry) -> bool {
    entry == L2Entry::default() || entry.is_plain_zero(g)
}

/// The entry of a cluster that had no place and gets one, in which there are zeroes.
fn placed(old: L2Entry, host: u64, how: Preallocation, g: Geometry) -> L2Entry {
    let data = L2Entry::standard(host, g);
    match (old.is_plain_zero(g), how) {
        // With subclusters, having space is one thing and having data another.
        (false, _) => L2Entry { bitmap: 0, ..data },
        // There may not be any space: zeroes are not left to what is there.
        (true, Preallocation::Off | Preallocation::Metadata) => {
            L2Entry { descriptor: data.descriptor | old.descriptor, bitmap: old.bitmap }
        }
        (true, Preallocation::Falloc | Preallocation::Full) => data,
    }
}
