//! Persistent dirty bitmaps: read when somebody asks or writes, kept in memory while the image is
//! open, stored when it is flushed.
//!
//! Two things hold at any moment, whatever is lost: the header's autoclear bit is set only while
//! its extension leads to a whole directory, and a bitmap on disk that follows writes either says
//! that it is in use or has a bit for everything that was written.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod bits;
mod chunks;
mod directory;
mod edit;
mod load;
mod store;
mod table;
mod track;

pub(crate) use directory::{Bitmap, directory, read_directory};

use crate::address::Geometry;
use crate::allocate::Guard;
use crate::image::{Access, Qcow2Image, State};
use crate::spec::bitmap_flag;
use core::ops::Range;
use load::BitmapSet;
use rimg_core::{BitmapEdit, BitmapInfo, Bitmaps, BlockImage as _, Error, Result};

/// The bitmaps of an open image, as far as they were needed yet.
#[derive(Debug, Default)]
pub(crate) struct BitmapState {
    set: Option<Box<BitmapSet>>,
    /// No bitmap, in memory or on disk, follows writes.
    is_idle: bool,
}

impl BitmapState {
    /// Whether writes have nothing to note; the one thing that they ask when there are no bitmaps.
    pub(crate) const fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// Keeps other writers off the tables of the bitmaps that are in memory.
    pub(crate) fn guard_again(&self, guard: &mut Guard, g: Geometry) {
        if let Some(set) = &self.set {
            set.guard_again(guard, g);
        }
    }

    fn has_edits(&self) -> bool {
        self.set.as_ref().is_some_and(|set| set.is_edited)
    }

    fn has_changes(&self) -> bool {
        self.set.as_ref().is_some_and(|set| set.is_edited || set.is_marked)
    }
}

impl Bitmaps for Qcow2Image {
    fn list(&self) -> Result<Vec<BitmapInfo>> {
        let bitmaps = self.bitmap_entries()?;
        let info = |bitmap: Bitmap| BitmapInfo {
            granularity_bytes: 1 << bitmap.raw.granularity_bits.min(63),
            enabled: bitmap.has(bitmap_flag::AUTO),
            in_use: bitmap.has(bitmap_flag::IN_USE),
            name: bitmap.name,
        };
        Ok(bitmaps.into_iter().map(info).collect())
    }

    fn dirty_run(&self, name: &str, range: Range<u64>) -> Result<Option<Range<u64>>> {
        self.check_disk_range(&range)?;
        self.with_bitmaps(&mut *self.lock()?, |image, _, set| {
            let index = set.position(name)?;
            set.usable(name)?;
            let mut source = chunks::Source { file: image.file.as_ref(), budget: &mut set.budget };
            match set.bitmaps.get_mut(index) {
                Some(tracked) => tracked.chunks.next_run(&range, &mut source),
                None => Ok(None),
            }
        })
    }

    fn editor(&self) -> Option<&dyn BitmapEdit> {
        (self.access == Access::Write).then_some(self)
    }
}

impl Qcow2Image {
    /// The entries of the directory, changes in memory included. A bitmap that is in use because
    /// of this image alone does not say so.
    pub(crate) fn bitmap_entries(&self) -> Result<Vec<Bitmap>> {
        let state = self.lock()?;
        match &state.bitmaps.set {
            Some(set) => Ok(set.bitmaps.iter().map(|tracked| tracked.entry.clone()).collect()),
            None => {
                let mut budget = self.limits.metadata_budget();
                read_directory(self.file.as_ref(), &state.header, &mut budget)
            }
        }
    }

    /// Gives `act` the bitmaps, read if they were not yet and fitted to the disk.
    fn with_bitmaps<T>(
        &self,
        state: &mut State,
        act: impl FnOnce(&Self, &mut State, &mut BitmapSet) -> Result<T>,
    ) -> Result<T> {
        let mut set = match state.bitmaps.set.take() {
            Some(set) => set,
            None => {
                let budget = self.limits.metadata_budget();
                let set = BitmapSet::read(self.file.as_ref(), &state.header, budget)?;
                if let Some(allocator) = &mut state.allocator {
                    set.guard_tables(&mut allocator.guard, self.geometry)?;
                }
                Box::new(set)
            }
        };
        let result =
            set.fit(self, state.header.size_bytes).and_then(|()| act(self, state, &mut set));
        let follows = set.bitmaps.iter().any(load::Tracked::follows_writes);
        state.bitmaps.is_idle = !follows && !set.is_edited;
        state.bitmaps.set = Some(set);
        result
    }

    /// Gives back the memory of bitmaps that are on disk as they are.
    fn forget_bitmaps(&self, state: &mut State) {
        if let (Some(set), Some(allocator)) = (state.bitmaps.set.take(), &mut state.allocator) {
            set.unguard_tables(&mut allocator.guard, self.geometry);
        }
    }

    fn check_disk_range(&self, range: &Range<u64>) -> Result<()> {
        if range.start <= range.end && range.end <= self.size_bytes() {
            Ok(())
        } else {
            Err(Error::Misuse("range past the end of the disk"))
        }
    }
}

/// How many bytes bitmaps take in a qcow2 image with a disk of `disk_bytes` and clusters of
/// `cluster_bytes`, every bit set: what a copy with its bitmaps needs beyond the copy itself, as
/// `qemu-img measure` counts it.
pub(crate) fn bitmaps_bytes(bitmaps: &[BitmapInfo], disk_bytes: u64, cluster_bytes: u64) -> u64 {
    let round_up = |bytes: u64| bytes.div_ceil(cluster_bytes.max(1)).saturating_mul(cluster_bytes);
    let (mut total, mut directory) = (0_u64, 0_u64);
    for bitmap in bitmaps {
        let bits = bitmap.granularity_bytes.trailing_zeros();
        let clusters = chunks::clusters_for(disk_bytes, bits, cluster_bytes);
        let table = round_up(clusters.saturating_mul(8));
        total = total.saturating_add(clusters.saturating_mul(cluster_bytes)).saturating_add(table);
        directory = directory.saturating_add(directory::Bitmap::new(&bitmap.name, 0).len_bytes());
    }
    total.saturating_add(round_up(directory))
}
