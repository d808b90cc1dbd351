//! Zeroes and discards: entries instead of data.
#![warn(clippy::indexing_slicing)]

use crate::allocate::Afterwards;
use crate::image::{Qcow2Image, State};
use crate::map::Place;
use crate::spec;
use crate::table::L2Entry;
use core::ops::Range;
use rimg_core::{BlockImage as _, Error, Result, Zeroing, num};

/// So many clusters are changed before the lock is let go for others.
const CLUSTERS_AT_ONCE: u64 = 4096;
/// Where entries cannot say zero, zeroes are written in pieces of at most so many bytes.
const BUFFER_BYTES: u64 = 64 << 10;

impl Qcow2Image {
    /// Makes claimed guest bytes read as zeroes.
    pub(crate) fn zero_claimed(&self, range: Range<u64>) -> Result<()> {
        let g = self.geometry;
        let size = self.size_bytes();
        let mut at = range.start;
        while at < range.end {
            let cluster_end = g.cluster_start(at).saturating_add(g.cluster_bytes());
            let whole = g.is_aligned(at) && range.end >= cluster_end.min(size);
            if !whole {
                let end = range.end.min(cluster_end);
                self.zero_part(at..end)?;
                at = end;
                continue;
            }
            let end = if range.end == size { range.end } else { g.cluster_start(range.end) };
            self.zero_whole(at..end)?;
            at = end;
        }
        Ok(())
    }

    /// Zeroes a part of one cluster.
    fn zero_part(&self, part: Range<u64>) -> Result<()> {
        let g = self.geometry;
        let cluster = g.cluster_start(part.start);
        let end = cluster.saturating_add(g.cluster_bytes()).min(self.size_bytes());
        let rest_is_zero = {
            let mut state = self.lock()?;
            self.reads_as_zero(&mut state, cluster..part.start)?
                && self.reads_as_zero(&mut state, part.end..end)?
        };
        if rest_is_zero {
            return self.zero_whole(cluster..end);
        }
        if g.extended_l2 {
            return self.zero_subclusters(part);
        }
        self.write_zero_bytes(part)
    }

    /// Zeroes the subclusters that `part` of a cluster covers, and writes zeroes to what remains.
    fn zero_subclusters(&self, part: Range<u64>) -> Result<()> {
        let g = self.geometry;
        let sub = g.subcluster_bytes();
        let first = part.start.next_multiple_of(sub);
        // Nothing is behind the end of the disk: the subcluster that it ends within is whole.
        let last = if part.end == self.size_bytes() {
            num::align_up(part.end, sub).unwrap_or(part.end)
        } else {
            num::align_down(part.end, sub)
        };
        if first >= last {
            return self.write_zero_bytes(part);
        }
        self.write_zero_bytes(part.start..first)?;
        self.write_zero_bytes(last.min(part.end)..part.end)?;
        let mut state = self.lock()?;
        let cluster = g.cluster_start(part.start);
        let old = self.entry(&mut state, cluster)?;
        let is_standard = old.descriptor & spec::COMPRESSED == 0;
        if !is_standard {
            drop(state);
            return self.write_zero_bytes(first..last.min(part.end));
        }
        let bit = |at: u64| at.saturating_sub(cluster) / sub;
        let mask = (u64::MAX << bit(first)) & ((1_u64 << bit(last)).wrapping_sub(1));
        let bitmap = (old.bitmap & !mask) | (mask << 32);
        drop_if_raw_data_file(self, first..last.min(part.end))?;
        self.set_entry(&mut state, cluster, L2Entry { descriptor: old.descriptor, bitmap })
    }

    /// Zeroes whole clusters; the last one may be cut off by the end of the disk.
    fn zero_whole(&self, range: Range<u64>) -> Result<()> {
        if !self.geometry.zero_flag && !self.geometry.extended_l2 {
            return self.zero_whole_version_2(range);
        }
        drop_if_raw_data_file(self, range.clone())?;
        self.for_clusters(range, |image, state, guest, old| {
            if old.is_plain_zero(image.geometry) {
                return Ok(());
            }
            image.replace_by_zero(state, guest, old)
        })
    }

    /// Version 2 has no zero entries: nothing is as good where nothing lies below.
    fn zero_whole_version_2(&self, range: Range<u64>) -> Result<()> {
        if self.backing.is_some() || self.backing_left_out {
            return self.write_zero_bytes(range);
        }
        self.for_clusters(range, Self::replace_by_nothing)
    }

    /// Drops what claimed guest bytes hold, cluster by cluster; parts of clusters stay.
    pub(crate) fn discard_claimed(&self, range: Range<u64>) -> Result<()> {
        let g = self.geometry;
        let size = self.size_bytes();
        let start = range.start.next_multiple_of(g.cluster_bytes());
        let end = if range.end == size { size } else { g.cluster_start(range.end) };
        if start >= end {
            return Ok(());
        }
        let has_zero = g.zero_flag || g.extended_l2;
        let has_backing = self.backing.is_some() || self.backing_left_out;
        if !has_zero && has_backing {
            // Dropping the cluster would bring up what lies below.
            return Ok(());
        }
        drop_if_raw_data_file(self, start..end)?;
        self.for_clusters(start..end, |image, state, guest, old| {
            let is_blank = old == L2Entry::default();
            if old.is_plain_zero(image.geometry) || (is_blank && !has_backing) {
                return Ok(());
            }
            if has_zero {
                image.replace_by_zero(state, guest, old)
            } else {
                image.replace_by_nothing(state, guest, old)
            }
        })
    }

    /// Unmaps the clusters of `range`: what is below comes up again.
    pub(crate) fn forget_claimed(&self, range: Range<u64>) -> Result<()> {
        self.for_clusters(range, Self::replace_by_nothing)
    }

    fn replace_by_zero(&self, state: &mut State, guest: u64, old: L2Entry) -> Result<()> {
        let new = L2Entry::zero(self.geometry);
        self.set_entry(state, guest, new)?;
        self.release_old(state, guest, old, new, Afterwards::Discard)
    }

    fn replace_by_nothing(&self, state: &mut State, guest: u64, old: L2Entry) -> Result<()> {
        if old == L2Entry::default() {
            return Ok(());
        }
        self.set_entry(state, guest, L2Entry::default())?;
        self.release_old(state, guest, old, L2Entry::default(), Afterwards::Discard)
    }

    /// Calls `change` with every cluster of `range` and its entry, under the lock.
    fn for_clusters(
        &self,
        range: Range<u64>,
        change: impl Fn(&Self, &mut State, u64, L2Entry) -> Result<()>,
    ) -> Result<()> {
        let g = self.geometry;
        let mut guest = g.cluster_start(range.start);
        while guest < range.end {
            let mut state = self.lock()?;
            let stop = guest
                .saturating_add(CLUSTERS_AT_ONCE.saturating_mul(g.cluster_bytes()))
                .min(range.end);
            while guest < stop {
                self.make_room(&mut state)?;
                let old = self.entry(&mut state, guest)?;
                change(self, &mut state, guest, old)?;
                guest = guest.saturating_add(g.cluster_bytes());
            }
        }
        Ok(())
    }

    /// Whether guest bytes are known to be zeroes without reading them.
    fn reads_as_zero(&self, state: &mut State, range: Range<u64>) -> Result<bool> {
        let below = self.backing.as_ref().map_or(0, |backing| backing.size_bytes());
        let mut at = range.start;
        while at < range.end {
            let run = self.run_at(state, at..range.end)?;
            match run.place {
                Place::Zero { .. } => {}
                Place::Backing { .. } if at >= below && !self.backing_left_out => {}
                _ => return Ok(false),
            }
            at = at.saturating_add(run.len);
        }
        Ok(true)
    }

    pub(crate) fn write_zero_bytes(&self, range: Range<u64>) -> Result<()> {
        let len = range.end.saturating_sub(range.start);
        let buffer = vec![0; num::to_usize(len.min(BUFFER_BYTES))?];
        let mut at = range.start;
        while at < range.end {
            let len = num::to_usize(range.end.saturating_sub(at).min(BUFFER_BYTES))?;
            let piece = buffer.get(..len).ok_or(Error::Misuse("piece larger than buffer"))?;
            self.write_claimed(piece, at)?;
            at = at.saturating_add(num::to_u64(len));
        }
        Ok(())
    }
}

/// A raw data file has to read as the guest does: what becomes zero here becomes zero there.
fn drop_if_raw_data_file(image: &Qcow2Image, range: Range<u64>) -> Result<()> {
    if !image.has_data_file() {
        return Ok(());
    }
    let at = range.start;
    image
        .data_writer()?
        .write_zeroes_at(range, Zeroing::MayPunch)
        .map_err(Error::io("zero data file", at))
}
