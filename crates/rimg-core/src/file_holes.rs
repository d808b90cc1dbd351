//! Space that an image's tables give to the guest, but that was never written.
//!
//! With `preallocation=metadata` every guest cluster has its place in the file, and the file has
//! holes there, which read as zeroes. Looking for holes costs, and small ones are everywhere, so
//! it is done where a file is clearly smaller than what its clusters need.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::{BlockImage, Error, FileOffset, Result, Storage};
use core::ops::Range;

/// What a file has where an image keeps data in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFile {
    /// It was written.
    Data,
    /// It never was, and reads as zeroes.
    Hole,
    /// The file ends before: what an image makes of that differs from format to format.
    BehindEnd,
}

/// The files of an image in which data may lie in holes.
#[derive(Debug, Clone, Default)]
pub struct FileHoles<'a> {
    /// As [`FileOffset::file`] counts them.
    files: Vec<Option<LookedInto<'a>>>,
    has_all_places: bool,
}

#[derive(Debug, Clone)]
struct LookedInto<'a> {
    file: &'a dyn Storage,
    /// What is known to be data. Finding the end of a run may take the file system as long as the
    /// run is, and the image asks again for each of its clusters there.
    data: Range<u64>,
}

impl<'a> FileHoles<'a> {
    /// Looks at an image, once: what is written later is found, but not that holes became many,
    /// nor a hole where there was data.
    #[must_use]
    pub fn of(image: &'a dyn BlockImage) -> Self {
        let Some(info) = image.info().ok().filter(|info| info.preallocated != Some(false)) else {
            return Self::default();
        };
        let has_all_places = info.preallocated == Some(true);
        let has_holes = |index: u16, file: &dyn Storage| match (index, info.cluster_bytes) {
            (0, _) if has_all_places => Some(true),
            (0, Some(cluster)) => has_many_holes(image, file, cluster),
            (0, None) => None,
            _ => Some(file.allocated_bytes().ok()?? < file.len_bytes().ok()?),
        };
        let files = (0..=u16::MAX).map_while(|index| Some((index, &**image.file(index)?)));
        let files = files.map(|(index, file)| {
            (has_holes(index, file) == Some(true)).then_some(LookedInto { file, data: 0..0 })
        });
        Self { files: files.collect(), has_all_places }
    }

    /// Whether all of the disk has its place in the file by the image's own word.
    #[must_use]
    pub const fn has_all_places(&self) -> bool {
        self.has_all_places
    }

    /// Whether the file that `index` counts is looked into.
    #[must_use]
    pub fn looks_into(&self, index: u16) -> bool {
        self.files.get(usize::from(index)).is_some_and(Option::is_some)
    }

    /// How long the run at `place` is, at most `max`, in bytes, and what is there; in files that
    /// are not looked into all is data. 0 bytes only for a `max` of 0.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn run_at(&mut self, place: FileOffset, max: u64) -> Result<(u64, InFile)> {
        let file = self.files.get_mut(usize::from(place.file)).and_then(Option::as_mut);
        let Some(LookedInto { file, data }) = file.filter(|_| max > 0) else {
            return Ok((max, InFile::Data));
        };
        let at = place.host.0;
        if data.contains(&at) {
            return Ok((data.end.saturating_sub(at).min(max), InFile::Data));
        }
        let failed = |error| Error::Io { op: "look for holes", at, source: error };
        if at >= file.len_bytes().map_err(failed)? {
            return Ok((max, InFile::BehindEnd));
        }
        let run = file.run_at(at).map_err(failed)?;
        let what = if run.is_data { InFile::Data } else { InFile::Hole };
        if run.is_data {
            *data = at..at.saturating_add(run.len_bytes);
        }
        Ok((run.len_bytes.clamp(1, max), what))
    }
}

/// Whether the file has clearly less space than the clusters of it that are in use, if it can say
/// so.
fn has_many_holes(image: &dyn BlockImage, file: &dyn Storage, cluster_bytes: u64) -> Option<bool> {
    let len = file.len_bytes().ok()?;
    let tail = u64::from(len.checked_rem(cluster_bytes)? != 0);
    let clusters = len.checked_div(cluster_bytes)?.saturating_add(tail);
    let stored = file.allocated_bytes().ok()??.checked_div(cluster_bytes)?;
    let enough = least_preallocated(stored);
    // Counting takes time, and mostly there is nothing to count.
    Some(clusters >= enough && image.clusters_in_use(enough).ok()?.unwrap_or(clusters) >= enough)
}

/// How many clusters were made beforehand, when so many take up space.
fn least_preallocated(stored: u64) -> u64 {
    let tenth_more = stored.saturating_mul(10) / 9;
    tenth_more.max(stored.saturating_add(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What qemu-img was seen to do.
    #[test]
    fn a_few_holes_do_not_count() {
        for (stored, clusters) in [(4, 6), (9, 11), (24, 26), (44, 48), (64, 71), (104, 115)] {
            assert_eq!(least_preallocated(stored), clusters, "{stored}");
        }
    }
}
