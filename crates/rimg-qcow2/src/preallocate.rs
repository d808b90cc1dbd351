//! Mapping guest clusters before anybody writes to them.
#![warn(clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::image::{Qcow2Image, State};
use crate::table::{Cluster, L2Entry};
use core::ops::Range;
use rimg_core::{Error, Preallocation, Result, Zeroing, num, op};

/// `full` writes zeroes in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;

impl Qcow2Image {
    /// Maps every cluster of `range` that is not mapped yet, and reserves space as `how` says.
    /// What is mapped hides what the backing image has there, but in version 2. The caller has
    /// claimed the disk, and makes durable what is done here.
    pub(crate) fn preallocate(&self, range: Range<u64>, how: Preallocation) -> Result<()> {
        if how == Preallocation::Off || range.is_empty() {
            return Ok(());
        }
        let g = self.geometry;
        // A new image is laid out as qemu-img does it: encrypted, it reads as noise.
        let is_noise = self.encryption.is_some() && range.start > 0;
        if is_noise && !g.has_zeroes() {
            return self.write_zero_bytes(range);
        }
        let new = if is_noise { New::Zero } else { self.new_entries(&range, how) };
        let window_bytes = g.l2_coverage_bytes();
        let mut last = None;
        let mut guest = range.start;
        while guest < range.end {
            let window_end = num::align_down(guest, window_bytes).saturating_add(window_bytes);
            let mut end = range.end.min(window_end);
            let mapped = if g.in_cluster(guest) == 0 {
                self.map_unmapped(guest..end, new)?
            } else {
                end = range.end.min(guest.next_multiple_of(g.cluster_bytes()));
                self.map_rest(guest..end, how)?
            };
            for (guest, host) in mapped {
                last = Some((guest, host.clone()));
                self.reserve(host, how)?;
            }
            guest = g.cluster_start(end.saturating_add(g.cluster_bytes()).saturating_sub(1));
        }
        last.map_or(Ok(()), |(guest, host)| self.fill_last(range.end, guest, &host))
    }

    /// Writes the rest of the (sub)cluster that the disk ends within, as QEMU does, where that is
    /// in the run of clusters at `host`, which guest offset `guest` is mapped to.
    fn fill_last(&self, disk_end: u64, guest: u64, host: &Range<u64>) -> Result<()> {
        let subcluster_bytes = self.geometry.subcluster_bytes();
        let end = num::align_up(disk_end, subcluster_bytes).unwrap_or(disk_end);
        let host_of = |at: u64| host.start.saturating_add(at.saturating_sub(guest));
        if end == disk_end || self.encryption.is_some() || host_of(end) != host.end {
            return Ok(());
        }
        let zeroes = vec![0; num::to_usize(end.saturating_sub(disk_end))?];
        let at = host_of(disk_end);
        self.data_writer()?.write_all_at(&zeroes, at).map_err(Error::io("write zeroes", at))
    }

    /// What blank clusters of `range` become.
    fn new_entries(&self, range: &Range<u64>, how: Preallocation) -> New {
        let below = self.backing.as_ref().map_or(0, |backing| backing.size_bytes());
        match how {
            // Version 2 has no zeroes.
            _ if !self.geometry.has_zeroes() => New::Blank,
            _ if below <= range.start => New::Blank,
            Preallocation::Falloc | Preallocation::Full => New::Data,
            // There may not be any space: zeroes are not left to what is there.
            Preallocation::Off | Preallocation::Metadata => New::Zero,
        }
    }

    /// As [`map_unmapped`](Self::map_unmapped), for the cluster that a disk ended within: behind
    /// its old end there is `rest`, and what the cluster shows before that stays.
    fn map_rest(&self, rest: Range<u64>, how: Preallocation) -> Result<Vec<(u64, Range<u64>)>> {
        if let Some(place) = self.rest_of_cluster(&rest)? {
            self.reserve(place, how)?;
            return Ok(Vec::new());
        }
        let shows_more = self.backing.is_some() || self.encryption.is_some();
        if shows_more && self.zero_blank_rest(&rest)? {
            return Ok(Vec::new());
        }
        let start = self.geometry.cluster_start(rest.start);
        if self.has_data_file() && self.entry(&mut *self.lock()?, start)? == L2Entry::default() {
            // What a cluster in its place held before must not come up again.
            self.data_writer()?
                .write_zeroes_at(start..rest.start, Zeroing::MayPunch)
                .map_err(Error::io("clear clusters", start))?;
        }
        self.map_unmapped(start..rest.end, New::Blank)
    }

    /// Writes zeroes behind the start of a cluster that is blank, without subclusters: the start
    /// comes up from what lies below. It is written as well where it is zero, as a map shows holes
    /// within a cluster. Returns false for other clusters. The caller has claimed the disk.
    pub(crate) fn zero_blank_rest(&self, rest: &Range<u64>) -> Result<bool> {
        let g = self.geometry;
        if g.extended_l2 || self.entry(&mut *self.lock()?, rest.start)? != L2Entry::default() {
            return Ok(false);
        }
        let start = g.cluster_start(rest.start);
        let mut bytes = vec![0; num::to_usize(rest.end.saturating_sub(start))?];
        let (from_below, _) = bytes.split_at_mut(num::to_usize(g.in_cluster(rest.start))?);
        self.read(from_below, start)?;
        self.write_claimed(&bytes, start)?;
        Ok(true)
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

    /// Maps the blank clusters of `range`, which one L2 table covers. Returns where runs
    /// of them start on the disk, and their places.
    fn map_unmapped(&self, range: Range<u64>, new: New) -> Result<Vec<(u64, Range<u64>)>> {
        let g = self.geometry;
        let mut state = self.lock()?;
        let state = &mut *state;
        let mut places = Vec::new();
        let mut guest = range.start;
        while guest < range.end {
            let mut clusters = 0_u64;
            let start = guest;
            while guest < range.end && self.entry(state, guest)? == L2Entry::default() {
                clusters += 1;
                guest = guest.saturating_add(g.cluster_bytes());
            }
            if clusters == 0 {
                guest = guest.saturating_add(g.cluster_bytes());
                continue;
            }
            // Subclusters behind the end of the disk need no space.
            let disk_end = num::align_up(range.end, g.subcluster_bytes()).unwrap_or(u64::MAX);
            let len = g.cluster_offset(clusters).min(disk_end.saturating_sub(start));
            let host = if self.has_data_file() {
                self.extend_data(start.saturating_add(len))?;
                start..start.saturating_add(len)
            } else {
                self.own_l2_table(state, g.l1_index(start))?;
                let (run, virgin) = self.allocate(state, clusters)?;
                let at = g.cluster_offset(run.first);
                self.extend_data(at.saturating_add(len))?;
                if !virgin {
                    // What these clusters held before must not come up again.
                    let end = g.cluster_offset(run.end());
                    self.file_writer()?
                        .write_zeroes_at(at..end, Zeroing::MayPunch)
                        .map_err(Error::io("clear clusters", at))?;
                }
                at..at.saturating_add(len)
            };
            self.map_run(state, start..guest, host.start, new)?;
            places.push((start, host));
        }
        Ok(places)
    }

    /// Makes the file with the data at least so long, before anything on disk refers to what it
    /// gains: tables can be written as soon as they have changed.
    fn extend_data(&self, end: u64) -> Result<()> {
        let (data, _) = self.data();
        let len = data.len_bytes().map_err(Error::io("read file length", 0))?;
        if len >= end {
            return Ok(());
        }
        self.data_writer()?.set_len_bytes(end).map_err(Error::io(op::EXTEND_FILE, len))
    }

    /// Enters clusters in a row, from `host` on, for the entries of `range`, which are blank and
    /// which one L2 table holds.
    fn map_run(&self, state: &mut State, range: Range<u64>, host: u64, new: New) -> Result<()> {
        let g = self.geometry;
        let mut guest = range.start;
        while guest < range.end {
            self.make_room(state)?;
            let left = g.clusters_for(range.end.saturating_sub(guest));
            let host = host.saturating_add(guest.saturating_sub(range.start));
            let entries = self.entries_mut(state, guest)?;
            let width = num::to_usize(g.l2_entry_bytes())?;
            let mut entered = 0;
            for place in entries.chunks_exact_mut(width).take(num::to_usize(left)?) {
                let host = host.saturating_add(g.cluster_offset(entered));
                let entry = new.entry(host, g);
                for (field, value) in
                    place.chunks_exact_mut(8).zip([entry.descriptor, entry.bitmap])
                {
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

/// What becomes of a blank cluster that gets a place, in which there are zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum New {
    /// Nothing lies below. With subclusters, having space is one thing and having data another:
    /// such a cluster stays blank.
    Blank,
    /// Data.
    Data,
    /// Zeroes that have a place.
    Zero,
}

impl New {
    fn entry(self, host: u64, g: Geometry) -> L2Entry {
        let data = L2Entry::standard(host, g);
        match self {
            Self::Blank => L2Entry { bitmap: 0, ..data },
            Self::Data => data,
            Self::Zero => {
                let zero = L2Entry::zero(g);
                L2Entry { descriptor: data.descriptor | zero.descriptor, bitmap: zero.bitmap }
            }
        }
    }
}
