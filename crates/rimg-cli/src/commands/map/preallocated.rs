//! Space that an image's tables give to the guest, but that was never written.
//!
//! With `preallocation=metadata` every guest cluster has its place in the file, and the file has
//! holes there. `map` then says that the data is zero. Looking for holes costs, and small ones
//! are everywhere, so this is done where the file is clearly smaller than what its clusters need.

use rimg::{BlockImage, FileOffset, HostOffset, MapEntry, Result, Storage};
use std::collections::VecDeque;

/// Cuts entries at the borders of holes, in the layers where that is worth it.
#[derive(Debug)]
pub(super) struct Holes<'a> {
    /// The file to look into, for each layer of the chain; 0 is the top.
    layers: Vec<Option<Preallocated<'a>>>,
    /// Pieces of the last entry.
    pieces: VecDeque<MapEntry>,
}

#[derive(Debug, Clone, Copy)]
struct Preallocated<'a> {
    file: &'a dyn Storage,
    /// All of the disk has its place, by the format: what qemu-img calls data.
    entirely: bool,
}

impl<'a> Holes<'a> {
    pub(super) fn new(top: &'a dyn BlockImage) -> Self {
        let below = std::iter::successors(top.backing(), |image| image.backing());
        let images = std::iter::once(top).chain(below.map(|image| &**image));
        Self { layers: images.map(preallocated_file).collect(), pieces: VecDeque::new() }
    }

    /// The next piece of what was cut last.
    pub(super) fn next_piece(&mut self) -> Option<MapEntry> {
        self.pieces.pop_front()
    }

    /// Takes an entry apart.
    pub(super) fn cut(&mut self, entry: MapEntry) -> Result<()> {
        let layer = self.layers.get(entry.depth).copied().flatten();
        let has_place = entry.place.is_some() && layer.is_some_and(|layer| layer.entirely);
        let entry = MapEntry { data: entry.data || has_place, ..entry };
        let file = layer.map(|layer| layer.file);
        // Only the image's own file was found to have holes: what lies in another is as it was.
        let in_own_file = |place: &FileOffset| entry.data && place.file == 0;
        let (Some(file), Some(place)) = (file, entry.place.filter(in_own_file)) else {
            self.pieces.push_back(entry);
            return Ok(());
        };
        let mut done = 0;
        while done < entry.len_bytes {
            let left = entry.len_bytes.saturating_sub(done);
            let host = place.host.0.saturating_add(done);
            let (len_bytes, zero) = run_in_file(file, host, left)?;
            let piece = MapEntry {
                start: entry.start.saturating_add(done),
                len_bytes,
                zero,
                place: Some(FileOffset { file: place.file, host: HostOffset(host) }),
                ..entry
            };
            match self.pieces.back_mut() {
                Some(last) if last.zero == zero => {
                    last.len_bytes = last.len_bytes.saturating_add(len_bytes);
                }
                _ => self.pieces.push_back(piece),
            }
            done = done.saturating_add(len_bytes);
        }
        Ok(())
    }
}

/// How long the run at `at` is, at most `max`, and whether it is a hole.
fn run_in_file(file: &dyn Storage, at: u64, max: u64) -> Result<(u64, bool)> {
    let failed = |error| rimg::Error::Io { op: "look for holes", at, source: error };
    if at >= file.len_bytes().map_err(failed)? {
        return Ok((max, true));
    }
    let run = file.run_at(at).map_err(failed)?;
    Ok((run.len_bytes.clamp(1, max), !run.is_data))
}

/// The image's file, if it says so, or if it has clearly less space than its clusters.
fn preallocated_file(image: &dyn BlockImage) -> Option<Preallocated<'_>> {
    let info = image.info().ok()?;
    let file = &**image.file(0)?;
    match info.preallocated {
        Some(true) => return Some(Preallocated { file, entirely: true }),
        Some(false) => return None,
        None => {}
    }
    let cluster = info.cluster_bytes.filter(|bytes| *bytes > 0)?;
    let clusters = file.len_bytes().ok()?.div_ceil(cluster);
    let stored = file.allocated_bytes().ok()?? / cluster;
    is_preallocated(clusters, stored).then_some(Preallocated { file, entirely: false })
}

/// Whether so many clusters in a file, of which so many take up space, were made beforehand.
fn is_preallocated(clusters: u64, stored: u64) -> bool {
    let tenth_more = stored.saturating_mul(10) / 9;
    clusters >= tenth_more.max(stored.saturating_add(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What qemu-img was seen to do.
    #[test]
    fn a_few_holes_do_not_count() {
        for (stored, clusters) in [(4, 6), (9, 11), (24, 26), (44, 48), (64, 71), (104, 115)] {
            assert!(is_preallocated(clusters, stored), "{stored}");
            assert!(!is_preallocated(clusters - 1, stored), "{stored}");
        }
    }
}
