//! Adding, removing and changing bitmaps, in memory until they are stored.

use crate::bitmap::chunks::{self, Chunks};
use crate::bitmap::directory::Bitmap;
use crate::bitmap::load::{BitmapSet, Tracked, cluster_of};
use crate::bitmap::table::TableEntry;
use crate::error::FORMAT;
use crate::image::{Qcow2Image, State};
use crate::spec::{self, bitmap_flag};
use core::ops::Range;
use rimg_core::{BitmapEdit, Error, MetadataBudget, Result, Storage, num};

impl BitmapEdit for Qcow2Image {
    fn add(&self, name: &str, granularity_bytes: Option<u64>) -> Result<()> {
        let default = self.geometry.cluster_bytes().clamp(MIN_DEFAULT, MAX_DEFAULT);
        let granularity_bytes = granularity_bytes.unwrap_or(default);
        self.edit(|image, state, set| {
            let entry = image.new_entry(state, set, name, granularity_bytes)?;
            let chunks = image.blank(state, &entry, &mut set.budget)?;
            set.bitmaps.push(Tracked {
                entry,
                is_trusted: true,
                is_in_use: false,
                chunks,
                table: 0..0,
            });
            image.mark_claimed(state, set, name)
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.edit(|image, _, set| {
            let index = set.position(name)?;
            let tracked = set.bitmaps.remove(index);
            let stored = tracked.chunks.stored_table();
            set.dropped.extend(stored.filter_map(|entry| cluster_of(entry, image.geometry)));
            set.dropped.push(tracked.table);
            Ok(())
        })
    }

    fn clear(&self, name: &str) -> Result<()> {
        self.edit(|image, state, set| {
            set.usable(name)?.chunks.clear();
            image.mark_claimed(state, set, name)
        })
    }

    fn set_enabled(&self, name: &str, enabled: bool) -> Result<()> {
        self.edit(|image, state, set| {
            let flags = &mut set.usable(name)?.entry.raw.flags;
            *flags &= !bitmap_flag::AUTO;
            if enabled {
                *flags |= bitmap_flag::AUTO;
                image.mark_claimed(state, set, name)?;
            }
            Ok(())
        })
    }

    fn mark(&self, name: &str, range: Range<u64>) -> Result<()> {
        self.check_disk_range(&range)?;
        self.edit(|image, _, set| {
            let index = set.position(name)?;
            set.usable(name)?;
            set.set_bits(image.file.as_ref(), index, &range)
        })
    }
}

/// Where nothing is said, a bit stands for a cluster of the image within these bounds, as QEMU has
/// it.
const MIN_DEFAULT: u64 = 4 << 10;
const MAX_DEFAULT: u64 = 64 << 10;

impl Qcow2Image {
    /// Changes the bitmaps in memory.
    fn edit(
        &self,
        change: impl FnOnce(&Self, &mut State, &mut BitmapSet) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.lock()?;
        self.begin_writing(&mut state)?;
        self.with_bitmaps(&mut state, |image, state, set| {
            change(image, state, set)?;
            set.is_edited = true;
            Ok(())
        })
    }

    /// Sets the bits for writes that are under way: they end after the bitmap began to follow.
    fn mark_claimed(&self, state: &State, set: &mut BitmapSet, name: &str) -> Result<()> {
        let index = set.position(name)?;
        for clusters in state.writers.claimed() {
            let g = self.geometry;
            let range = g.cluster_offset(clusters.start)..g.cluster_offset(clusters.end);
            let range = range.start..range.end.min(state.header.size_bytes);
            set.set_bits(self.file.as_ref(), index, &range)?;
        }
        Ok(())
    }

    /// The entry of a new bitmap, with everything checked that QEMU checks, in its order.
    fn new_entry(
        &self,
        state: &State,
        set: &BitmapSet,
        name: &str,
        granularity_bytes: u64,
    ) -> Result<Bitmap> {
        if name.is_empty() {
            return Err(invalid("Bitmap name cannot be empty"));
        }
        let bits = granularity_bytes.trailing_zeros();
        if !granularity_bytes.is_power_of_two() || !spec::BITMAP_GRANULARITY_BITS.contains(&bits) {
            return Err(invalid("Granularity must be power of 2 and at least 512"));
        }
        if set.position(name).is_ok() {
            return Err(invalid(format!("Bitmap already exists: {name}")));
        }
        if state.header.version < 3 {
            return Err(not_persistent("Cannot store dirty bitmaps in qcow2 v2 files"));
        }
        if name.len() > spec::MAX_BITMAP_NAME_BYTES {
            return Err(not_persistent("Name length exceeds maximum (1023 characters)"));
        }
        let g = self.geometry;
        let clusters = chunks::clusters_for(state.header.size_bytes, bits, g.cluster_bytes());
        if clusters == 0 {
            return Err(not_persistent("A disk of no bytes has no bitmaps"));
        }
        if clusters.saturating_mul(g.cluster_bytes()) > spec::MAX_BITMAP_BYTES {
            let reason = "Too much space will be occupied by the bitmap. Use larger granularity";
            return Err(not_persistent(reason));
        }
        if num::to_u64(set.bitmaps.len()) >= u64::from(spec::MAX_BITMAPS) {
            return Err(not_persistent("Maximum number of persistent bitmaps is already reached"));
        }
        let entry = Bitmap::new(name, u8::try_from(bits).unwrap_or(u8::MAX));
        let others = set.bitmaps.iter().map(|tracked| tracked.entry.len_bytes());
        let directory = others.fold(entry.len_bytes(), u64::saturating_add);
        if directory > spec::MAX_BITMAP_DIRECTORY_BYTES {
            return Err(not_persistent("Not enough space in the bitmap directory"));
        }
        Ok(entry)
    }

    fn blank(&self, state: &State, entry: &Bitmap, budget: &mut MetadataBudget) -> Result<Chunks> {
        let g = self.geometry;
        let bits = u32::from(entry.raw.granularity_bits);
        let disk_bytes = state.header.size_bytes;
        let clusters = chunks::clusters_for(disk_bytes, bits, g.cluster_bytes());
        budget.reserve("bitmap", clusters.saturating_mul(Chunks::CHUNK_BYTES))?;
        let table = (0..clusters).map(|_| TableEntry::Zeroes);
        Ok(Chunks::stored(bits, g.cluster_bytes(), disk_bytes, table))
    }
}

impl BitmapSet {
    pub(crate) fn position(&self, name: &str) -> Result<usize> {
        let found = self.bitmaps.iter().position(|tracked| tracked.entry.name == name);
        found.ok_or_else(|| invalid(format!("Dirty bitmap '{name}' not found")))
    }

    /// A bitmap whose bits may be looked at and changed.
    pub(crate) fn usable(&mut self, name: &str) -> Result<&mut Tracked> {
        let index = self.position(name)?;
        let tracked = self.bitmaps.get_mut(index);
        let tracked = tracked.ok_or(Error::Misuse("no such bitmap"))?;
        if !tracked.is_trusted {
            return Err(inconsistent(name));
        }
        if tracked.entry.is_unusable() {
            return Err(unusable(name));
        }
        Ok(tracked)
    }

    /// Sets the bits of a bitmap for a range of the disk.
    pub(crate) fn set_bits(
        &mut self,
        file: &dyn Storage,
        index: usize,
        range: &Range<u64>,
    ) -> Result<()> {
        let mut source = chunks::Source { file, budget: &mut self.budget };
        match self.bitmaps.get_mut(index) {
            Some(tracked) => tracked.chunks.set(range, &mut source),
            None => Ok(()),
        }
    }
}

/// The error for a bitmap that was in use when the image was closed, in QEMU's words.
pub(crate) fn inconsistent(name: &str) -> Error {
    invalid(format!(
        "Bitmap '{name}' is inconsistent and cannot be used\n\
         Try block-dirty-bitmap-remove to delete this bitmap from disk"
    ))
}

/// The error for a bitmap whose extra data forbids using it.
pub(crate) fn unusable(name: &str) -> Error {
    Error::Unsupported { format: FORMAT, feature: format!("extra data of bitmap '{name}'") }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::InvalidOption { option: "bitmap", reason: reason.into() }
}

/// The error for a bitmap that could be, but not in this image's file.
fn not_persistent(reason: &str) -> Error {
    Error::InvalidOption { option: "persistent bitmap", reason: reason.to_owned() }
}
