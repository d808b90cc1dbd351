//! Writing guest data: in place where the image owns the cluster, else to new clusters that are
//! filled up with what was there before and linked when they are complete.
#![warn(clippy::indexing_slicing)]

use crate::allocate::{Afterwards, FreeRun};
use crate::error::{CorruptKind, kind_of};
use crate::image::{Qcow2Image, State};
use crate::map::entry_at;
use crate::spec;
use crate::table::{Cluster, L1Entry, L2Entry, Sub};
use core::ops::Range;
use rimg_core::{BlockImage as _, Error, ImageWrite, Result, StorageWrite, num, op, zeroes};

/// So many bytes of an L2 table are looked at in one go, as QEMU does: a run of new clusters never
/// reaches across, which shows in where they land.
const L2_WINDOW_BYTES: u64 = 4096;

/// What has to happen to write a run of clusters.
struct Plan {
    /// The guest bytes that are written.
    range: Range<u64>,
    /// Where the first cluster of the run lies, or will.
    host: u64,
    kind: PlanKind,
}

enum PlanKind {
    /// Overwrite.
    InPlace,
    /// Fill up and link; `old` are the entries until now, one per cluster.
    Link { new: Option<FreeRun>, virgin: bool, old: Vec<L2Entry> },
}

/// How a cluster can take a write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    InPlace {
        host: u64,
    },
    /// Has its cluster, but what is written was not data.
    Refill {
        host: u64,
    },
    New,
}

impl ImageWrite for Qcow2Image {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        let end = at.checked_add(num::to_u64(buf.len())).ok_or(Error::Misuse("offset overflow"))?;
        self.check_range(&(at..end))?;
        if buf.is_empty() {
            return Ok(());
        }
        self.noting_damage(|| {
            let (_claim, _) = self.claim_guest(&(at..end))?;
            self.write_claimed(buf, at)
        })
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range)?;
        if range.is_empty() {
            return Ok(());
        }
        self.noting_damage(|| {
            let (_claim, _) = self.claim_guest(&range)?;
            self.zero_claimed(range)
        })
    }

    fn discard_at(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range)?;
        if range.is_empty() {
            return Ok(());
        }
        self.noting_damage(|| {
            let (_claim, _) = self.claim_guest(&range)?;
            self.discard_claimed(range)
        })
    }

    fn flush(&self) -> Result<()> {
        self.flush_all()
    }

    fn finish(&self) -> Result<()> {
        self.finish_all()
    }

    fn places_in_order(&self) -> bool {
        true
    }

    fn is_zero_initialised(&self) -> bool {
        // Made with its clusters in their places.
        let file = self.data_file.as_ref().unwrap_or(&self.file);
        let is_plain = self.backing.is_none() && !self.backing_left_out;
        let is_plain = is_plain && self.encryption.is_none();
        let is_zero = StorageWrite::is_zero_where_unwritten;
        self.was_blank || (is_plain && file.writer().is_some_and(is_zero))
    }

    fn relax_until_flush(&self) {
        if let Ok(mut state) = self.lock() {
            state.relaxed = true;
        }
    }
}

impl Qcow2Image {
    /// A change that would have gone over metadata shows that tables contradict each other: the
    /// image is marked corrupt (version 3), so that nobody writes to it before a repair.
    pub(crate) fn noting_damage<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        change().inspect_err(|error| {
            if matches!(kind_of(error), Some(CorruptKind::Overlap(_)))
                && let Ok(mut state) = self.lock()
                && state.header.version >= 3
            {
                // The error that led here is the one to hear of.
                let _ = self.set_incompatible(&mut state, spec::incompatible::CORRUPT, true);
            }
        })
    }

    /// Writes to guest clusters that the caller has claimed: whole sectors where they are
    /// encrypted.
    pub(crate) fn write_whole(&self, buf: &[u8], at: u64) -> Result<()> {
        let mut rest = buf;
        let mut at = at;
        while !rest.is_empty() {
            let range = at..at.saturating_add(num::to_u64(rest.len()));
            let plan = match self.plan(range.clone(), true)? {
                Some(plan) => plan,
                None => {
                    self.catch_up_unlocked()?;
                    self.plan(range, false)?.ok_or(Error::Misuse("a write found no way"))?
                }
            };
            let len = num::to_usize(plan.range.end.saturating_sub(plan.range.start))?;
            let (now, later) =
                rest.split_at_checked(len).ok_or(Error::Misuse("planned more than asked"))?;
            self.carry_out(plan, now)?;
            rest = later;
            at = at.saturating_add(num::to_u64(len));
        }
        Ok(())
    }

    /// Whether all of `range` is data that can be overwritten where it is.
    pub(crate) fn is_in_place(&self, state: &mut State, range: &Range<u64>) -> Result<bool> {
        let g = self.geometry;
        let mut at = range.start;
        while at < range.end {
            let next = g.cluster_start(at).saturating_add(g.cluster_bytes()).min(range.end);
            let entry = self.entry(state, at)?;
            if !matches!(self.way(state, entry, &(at..next))?, Way::InPlace { .. }) {
                return Ok(false);
            }
            at = next;
        }
        Ok(true)
    }

    /// Decides how the longest run at the start of `range` is written, and takes clusters for it.
    /// With `politely`, answers `None` where the disk would have to catch up before, so that it
    /// can do so without anybody waiting for the lock.
    fn plan(&self, range: Range<u64>, politely: bool) -> Result<Option<Plan>> {
        let g = self.geometry;
        let mut state = self.lock()?;
        let state = &mut *state;
        if politely && state.has_full_cache() {
            return Ok(None);
        }
        let entries = (L2_WINDOW_BYTES.min(g.cluster_bytes())) / g.l2_entry_bytes();
        let window_bytes = entries.saturating_mul(g.cluster_bytes());
        let window_end = num::align_down(range.start, window_bytes).saturating_add(window_bytes);
        let limit = range.end.min(window_end);
        let first_way = {
            let first_end =
                g.cluster_start(range.start).saturating_add(g.cluster_bytes()).min(limit);
            let entry = self.entry(state, range.start)?;
            self.way(state, entry, &(range.start..first_end))?
        };
        let mut old = Vec::new();
        let mut at = range.start;
        while at < limit {
            let next = g.cluster_start(at).saturating_add(g.cluster_bytes()).min(limit);
            let entry = self.entry(state, at)?;
            let by = g.cluster_start(at).saturating_sub(g.cluster_start(range.start));
            let expected = match first_way {
                Way::InPlace { host } => Way::InPlace { host: host.saturating_add(by) },
                Way::Refill { host } => Way::Refill { host: host.saturating_add(by) },
                Way::New => Way::New,
            };
            if self.way(state, entry, &(at..next))? != expected {
                break;
            }
            old.push(entry);
            at = next;
        }
        let range = range.start..at;
        match first_way {
            Way::InPlace { host } => Ok(Some(Plan { range, host, kind: PlanKind::InPlace })),
            Way::Refill { host } => {
                let kind = PlanKind::Link { new: None, virgin: false, old };
                Ok(Some(Plan { range, host, kind }))
            }
            Way::New if self.has_data_file() => {
                // In an external data file every guest byte has its place beforehand.
                let host = g.cluster_start(range.start);
                let kind = PlanKind::Link { new: None, virgin: false, old };
                Ok(Some(Plan { range, host, kind }))
            }
            Way::New => {
                if politely && state.allocator_mut()?.would_reuse(num::to_u64(old.len()))? {
                    return Ok(None);
                }
                self.own_l2_table(state, g.l1_index(range.start))?;
                let (run, virgin) = self.allocate(state, num::to_u64(old.len()))?;
                let host = g.cluster_offset(run.first);
                let reach = range.end.next_multiple_of(g.subcluster_bytes());
                let reach = reach.saturating_sub(g.cluster_start(range.start));
                state.data_end = state.data_end.max(host.saturating_add(reach));
                let kind = PlanKind::Link { new: Some(run), virgin, old };
                Ok(Some(Plan { range, host, kind }))
            }
        }
    }

    /// How the cluster of `entry` can take a write of the guest bytes `part` of it.
    fn way(&self, state: &State, entry: L2Entry, part: &Range<u64>) -> Result<Way> {
        let g = self.geometry;
        let identity = self.has_data_file().then(|| g.cluster_start(part.start));
        let wrong =
            |kind: CorruptKind| kind.at("L2 table", "entry", self.entry_at(state, part.start));
        let host = match entry.cluster(g, identity).map_err(wrong)? {
            Cluster::Standard { host, copied } if copied || identity.is_some() => host,
            _ => return Ok(Way::New),
        };
        let guard = state.allocator.as_ref().map(|allocator| &allocator.guard);
        if identity.is_none() && guard.is_some_and(|guard| guard.holds_table(g, host)) {
            return Err(wrong(CorruptKind::Overlap(host)));
        }
        let (first, last) = self.subclusters_of(part);
        let mut index = first;
        while index <= last {
            let (sub, run) = entry.sub(g, index).map_err(wrong)?;
            if sub != Sub::Data {
                return Ok(Way::Refill { host });
            }
            index = index.saturating_add(run);
        }
        Ok(Way::InPlace { host })
    }

    /// The first and last subcluster that `part` of a cluster touches.
    fn subclusters_of(&self, part: &Range<u64>) -> (u32, u32) {
        let g = self.geometry;
        let index = |at: u64| u32::try_from(g.in_cluster(at) / g.subcluster_bytes()).unwrap_or(0);
        (index(part.start), index(part.end.saturating_sub(1)))
    }

    fn carry_out(&self, plan: Plan, buf: &[u8]) -> Result<()> {
        let g = self.geometry;
        let data_at = plan.host.saturating_add(g.in_cluster(plan.range.start));
        let store = || self.store_data("write cluster", buf, plan.range.start, data_at);
        let PlanKind::Link { new, virgin, old } = plan.kind else { return store() };
        let written = self
            .fill_up(&plan.range, plan.host, &old, new.is_some(), virgin)
            .and_then(|entries| store().map(|()| entries));
        let mut state = self.lock()?;
        match written {
            Ok(entries) => self.link(&mut state, plan.range.start, &old, &entries),
            Err(error) => {
                if let Some(run) = new {
                    state.allocator_mut()?.give_back(run)?;
                }
                Err(error)
            }
        }
    }

    /// Writes what surrounds `range` in its first and last cluster, and makes the entries that the
    /// clusters of the run get.
    fn fill_up(
        &self,
        range: &Range<u64>,
        host: u64,
        old: &[L2Entry],
        is_new: bool,
        virgin: bool,
    ) -> Result<Vec<L2Entry>> {
        let g = self.geometry;
        let mut entries = Vec::with_capacity(old.len());
        let mut guest = g.cluster_start(range.start);
        let mut host = host;
        for entry in old {
            let end = guest.saturating_add(g.cluster_bytes());
            let part = range.start.max(guest)..range.end.min(end);
            let (entry, fills) = self.fills(*entry, guest, host, &part, is_new)?;
            for fill in fills {
                self.fill(fill, guest, host, virgin)?;
            }
            entries.push(entry);
            guest = end;
            host = host.saturating_add(g.cluster_bytes());
        }
        Ok(entries)
    }

    /// Which guest bytes around `part` have to be brought to the cluster at `host`, and the entry
    /// that it gets.
    fn fills(
        &self,
        old: L2Entry,
        guest: u64,
        host: u64,
        part: &Range<u64>,
        is_new: bool,
    ) -> Result<(L2Entry, Vec<Range<u64>>)> {
        let g = self.geometry;
        let wrong = |kind: CorruptKind| match self.lock() {
            Ok(state) => kind.at("L2 table", "entry", self.entry_at(&state, guest)),
            Err(error) => error,
        };
        let mut fills: Vec<Range<u64>> = Vec::new();
        let mut add = |fill: Range<u64>| match fills.last_mut() {
            Some(last) if last.end == fill.start => last.end = fill.end,
            _ if fill.is_empty() => {}
            _ => fills.push(fill),
        };
        let mut entry = L2Entry { descriptor: host | spec::COPIED, bitmap: old.bitmap };
        let is_compressed = old.descriptor & spec::COMPRESSED != 0;
        for index in 0..g.subclusters() {
            let start = guest.saturating_add(u64::from(index).saturating_mul(g.subcluster_bytes()));
            let end = start.saturating_add(g.subcluster_bytes());
            let sub = if is_compressed { Sub::Data } else { old.sub(g, index).map_err(wrong)?.0 };
            let touched = part.start < end && start < part.end;
            if touched {
                if is_new || sub != Sub::Data {
                    add(start..part.start.max(start));
                    add(part.end.min(end)..end);
                }
            } else if is_new && sub == Sub::Data {
                add(start..end);
            } else if sub != Sub::Data {
                continue;
            }
            if g.extended_l2 {
                let bit = 1_u64 << index;
                entry.bitmap = (entry.bitmap | bit) & !(bit << 32);
            }
        }
        Ok((entry, fills))
    }

    /// Brings guest bytes to the cluster at `host`, which is guest cluster `guest`. What lies
    /// behind the end of the disk becomes zeroes.
    fn fill(&self, fill: Range<u64>, guest: u64, host: u64, virgin: bool) -> Result<()> {
        let at = host.saturating_add(fill.start.saturating_sub(guest));
        let len = fill.end.saturating_sub(fill.start);
        let there = fill.end.min(self.size_bytes()).saturating_sub(fill.start);
        let mut bytes = vec![0; num::to_usize(there)?];
        if there > 0 {
            self.file.note("cow_read");
            self.read(&mut bytes, fill.start)?;
        }
        if self.encryption.is_some() {
            // Zeroes are no zeroes in the file.
            bytes.resize(num::to_usize(len)?, 0);
            return self.store_data("copy cluster", &bytes, fill.start, at);
        }
        let data = self.data_writer()?;
        let zero_from = if zeroes::is_zero(&bytes) {
            0
        } else {
            data.note("cow_write");
            data.write_all_at(&bytes, at).map_err(Error::io("copy cluster", at))?;
            there
        };
        if virgin || zero_from == len {
            return Ok(());
        }
        let zero = at.saturating_add(zero_from)..at.saturating_add(len);
        data.write_zeroes_at(zero, rimg_core::Zeroing::KeepAllocated)
            .map_err(Error::io(op::ZERO_CLUSTER, at))
    }

    /// Enters `entries` for the clusters from guest offset `at` on, and releases what the old
    /// entries held.
    pub(crate) fn link(
        &self,
        state: &mut State,
        at: u64,
        old: &[L2Entry],
        entries: &[L2Entry],
    ) -> Result<()> {
        let mut guest = self.geometry.cluster_start(at);
        // What is wrong with an old entry is to be known before a new one stands.
        for (number, old) in (0_u64..).zip(old) {
            let guest = guest.saturating_add(self.geometry.cluster_offset(number));
            self.old_cluster(state, guest, *old)?;
        }
        for (old, new) in old.iter().zip(entries) {
            self.set_entry(state, guest, *new)?;
            self.release_old(state, guest, *old, *new, Afterwards::Keep)?;
            guest = guest.saturating_add(self.geometry.cluster_bytes());
        }
        Ok(())
    }

    /// What the entry for guest offset `guest` led to until now.
    fn old_cluster(&self, state: &State, guest: u64, old: L2Entry) -> Result<Cluster> {
        if self.has_data_file() {
            return Ok(Cluster::Unallocated);
        }
        old.cluster(self.geometry, None)
            .map_err(|kind| kind.at("L2 table", "entry", self.entry_at(state, guest)))
    }

    /// Releases the clusters that `old` refers to and `new` does not.
    pub(crate) fn release_old(
        &self,
        state: &mut State,
        guest: u64,
        old: L2Entry,
        new: L2Entry,
        afterwards: Afterwards,
    ) -> Result<()> {
        if self.has_data_file() {
            return Ok(());
        }
        let g = self.geometry;
        match self.old_cluster(state, guest, old)? {
            Cluster::Standard { host, .. } if new.descriptor & spec::OFFSET_MASK != host => {
                let cluster = g.cluster_index(host);
                state.allocator_mut()?.release(cluster..cluster.saturating_add(1), afterwards);
            }
            Cluster::Compressed { host, len } => {
                let end = g.clusters_for(host.saturating_add(len));
                state.allocator_mut()?.release(g.cluster_index(host)..end, afterwards);
            }
            _ => {}
        }
        Ok(())
    }

    /// The entry for the cluster of guest offset `at`; blank where there is no L2 table.
    pub(crate) fn entry(&self, state: &mut State, at: u64) -> Result<L2Entry> {
        let g = self.geometry;
        let Some(table) = self.l2_table(state, g.l1_index(at))? else {
            return Ok(L2Entry::default());
        };
        let (slice_at, index) = self.entry_place(state, table, at)?;
        let slice = state.l2.slice(self.file.as_ref(), slice_at, "read L2 table")?;
        Ok(entry_at(slice, index, g))
    }

    /// The bytes of the entry for guest offset `at` and of those behind it in the same slice, for
    /// changing them. Makes an L2 table where needed.
    pub(crate) fn entries_mut<'a>(&self, state: &'a mut State, at: u64) -> Result<&'a mut [u8]> {
        let g = self.geometry;
        let table = self.own_l2_table(state, g.l1_index(at))?;
        let (slice_at, index) = self.entry_place(state, table, at)?;
        let slice = state.l2.slice_mut(self.file.as_ref(), slice_at, "read L2 table")?;
        let width = num::to_usize(g.l2_entry_bytes())?;
        Ok(slice.get_mut(index.saturating_mul(width)..).unwrap_or_default())
    }

    /// Sets the entry for the cluster of guest offset `at`, making an L2 table where needed.
    pub(crate) fn set_entry(&self, state: &mut State, at: u64, entry: L2Entry) -> Result<()> {
        let width = num::to_usize(self.geometry.l2_entry_bytes())?;
        let place = self.entries_mut(state, at)?;
        let mut raw = [0; 16];
        let (descriptor, bitmap) = raw.split_at_mut(8);
        descriptor.copy_from_slice(&entry.descriptor.to_be_bytes());
        bitmap.copy_from_slice(&entry.bitmap.to_be_bytes());
        for (to, from) in place.iter_mut().zip(raw.get(..width).unwrap_or_default()) {
            *to = *from;
        }
        Ok(())
    }

    /// Where the L2 entry for guest offset `at` lies in the file, for messages; 0 where there is no
    /// L2 table.
    fn entry_at(&self, state: &State, at: u64) -> u64 {
        let g = self.geometry;
        let l1_index = usize::try_from(g.l1_index(at)).ok();
        let entry = l1_index.and_then(|index| state.l1.get(index)).copied().unwrap_or(0);
        match entry & spec::OFFSET_MASK {
            0 => 0,
            table => table.saturating_add(g.l2_index(at).saturating_mul(g.l2_entry_bytes())),
        }
    }

    /// The slice with the entry for guest offset `at` in the L2 table at `table`, and its index.
    fn entry_place(&self, state: &State, table: u64, at: u64) -> Result<(u64, usize)> {
        let g = self.geometry;
        let in_table = g.l2_index(at).saturating_mul(g.l2_entry_bytes());
        let slice_bytes = state.l2.slice_bytes();
        let in_slice = (in_table & slice_bytes.wrapping_sub(1)) / g.l2_entry_bytes();
        let slice_at = table.saturating_add(num::align_down(in_table, slice_bytes));
        Ok((slice_at, num::to_usize(in_slice)?))
    }

    /// The L2 table for an L1 entry, which nobody else uses: a new one, or a copy, where needed.
    pub(crate) fn own_l2_table(&self, state: &mut State, l1_index: u64) -> Result<u64> {
        self.make_room(state)?;
        self.begin_postponing(state)?;
        let index = num::to_usize(l1_index)?;
        let entry = L1Entry(state.l1.get(index).copied().unwrap_or(0));
        let old = self.l2_table(state, l1_index)?;
        let g = self.geometry;
        if let Some(table) = old
            && entry.is_copied()
        {
            let guard = &state.allocator_mut()?.guard;
            if guard.is_contested(g, table) || guard.is_kept(g, table) {
                let at = state.header.l1_offset.saturating_add(l1_index.saturating_mul(8));
                return Err(CorruptKind::Overlap(table).at("L1 table", "entry", at));
            }
            return Ok(table);
        }
        let (run, _) = self.allocate(state, 1)?;
        let table = g.cluster_offset(run.first);
        let slice_bytes = state.l2.slice_bytes();
        for slice in 0..g.cluster_bytes() / slice_bytes {
            self.make_room(state)?;
            let by = slice.saturating_mul(slice_bytes);
            let content = match old {
                Some(old) => {
                    let old_at = old.saturating_add(by);
                    state.l2.slice(self.file.as_ref(), old_at, "read L2 table")?.to_vec()
                }
                None => Vec::new(),
            };
            let new = state.l2.new_slice(table.saturating_add(by))?;
            for (to, from) in new.iter_mut().zip(content) {
                *to = from;
            }
        }
        let place = state.l1.get_mut(index).ok_or(Error::Misuse("no such L1 entry"))?;
        *place = L1Entry::new(table).0;
        state.dirty_l1.insert(index);
        if let Some(old) = old {
            let cluster = g.cluster_index(old);
            let allocator = state.allocator_mut()?;
            allocator.guard.remove(cluster..cluster.saturating_add(1));
            allocator.release(cluster..cluster.saturating_add(1), Afterwards::Keep);
        }
        state.allocator_mut()?.guard.add(run.first..run.end());
        Ok(table)
    }

    /// The writing half of the file that holds guest data.
    pub(crate) fn data_writer(&self) -> Result<&dyn StorageWrite> {
        self.data().0.writer().ok_or(Error::ReadOnly("its file was opened for reading"))
    }
}
