//! What writes have to do with bitmaps: before bytes of the disk change, the bitmaps that follow
//! writes say so in memory, and say on disk that they are in use.

use crate::bitmap::chunks;
use crate::bitmap::edit::{inconsistent, unusable};
use crate::bitmap::load::{BitmapSet, cluster_of};
use crate::image::{Qcow2Image, State};
use core::ops::Range;
use rimg_core::{Error, Result};

impl Qcow2Image {
    /// Notes that the bytes of `range` are about to change. Called under the lock, before any of
    /// them does.
    pub(crate) fn note_change(&self, state: &mut State, range: &Range<u64>) -> Result<()> {
        if state.bitmaps.is_idle() {
            return Ok(());
        }
        // The disk must not have an enabled bitmap that memory has not: it would miss the write.
        if state.bitmaps.has_edits() {
            self.store_bitmaps(state)?;
        }
        self.with_bitmaps(state, |image, state, set| image.mark_change(state, set, range))
    }

    fn mark_change(&self, state: &State, set: &mut BitmapSet, range: &Range<u64>) -> Result<()> {
        let mut to_set = Vec::new();
        let mut to_mark = Vec::new();
        let mut source = chunks::Source { file: self.file.as_ref(), budget: &mut set.budget };
        for (index, tracked) in set.bitmaps.iter_mut().enumerate() {
            if !tracked.follows_writes() {
                continue;
            }
            if tracked.entry.is_unusable() {
                return Err(unusable(&tracked.entry.name));
            }
            // What is set on disk already needs no mark, and no storing afterwards.
            if !tracked.is_in_use {
                if tracked.chunks.covers(range, &mut source)? {
                    continue;
                }
                to_mark.push(index);
            }
            to_set.push(index);
        }
        self.mark_in_use(state, set, &to_mark)?;
        for index in to_set {
            set.set_bits(self.file.as_ref(), index, range)?;
            set.is_marked = true;
        }
        Ok(())
    }

    /// Before the size of the disk changes, and with it that of every bitmap.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] where a bitmap cannot follow.
    pub(crate) fn begin_resizing_bitmaps(&self, state: &mut State) -> Result<()> {
        self.store_bitmaps(state)?;
        self.with_bitmaps(state, |image, state, set| {
            for tracked in &set.bitmaps {
                if !tracked.is_trusted {
                    return Err(inconsistent(&tracked.entry.name));
                }
                if tracked.entry.is_unusable() {
                    return Err(unusable(&tracked.entry.name));
                }
            }
            let all: Vec<usize> = (0..set.bitmaps.len()).collect();
            image.mark_in_use(state, set, &all)?;
            set.is_marked = !all.is_empty();
            Ok(())
        })
    }

    /// Refuses to change all of the disk at once, which no bitmap would say.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] where there is a bitmap.
    pub(crate) fn refuse_bitmaps(&self, state: &mut State) -> Result<()> {
        self.with_bitmaps(state, |_, _, set| {
            if set.bitmaps.is_empty() {
                return Ok(());
            }
            let reason = "Device has active dirty bitmaps".into();
            Err(Error::InvalidOption { option: "bitmap", reason })
        })
    }
}

impl BitmapSet {
    /// Fits the bitmaps to the size of the disk.
    pub(crate) fn fit(&mut self, image: &Qcow2Image, disk_bytes: u64) -> Result<(), Error> {
        let mut source = chunks::Source { file: image.file.as_ref(), budget: &mut self.budget };
        for tracked in self.bitmaps.iter_mut().filter(|tracked| tracked.is_trusted) {
            if tracked.chunks.disk_bytes() == disk_bytes {
                continue;
            }
            let dropped = tracked.chunks.resize(disk_bytes, &mut source)?;
            let g = image.geometry;
            let clusters = dropped.into_iter().filter_map(|entry| cluster_of(entry, g));
            self.dropped.extend(clusters);
            self.is_marked = true;
        }
        Ok(())
    }
}
