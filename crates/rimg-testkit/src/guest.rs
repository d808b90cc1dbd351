//! Contents of a disk that are the same on every run and look like a guest's.

use crate::Rng;
use core::ops::Range;
use rimg_core::{ImageWrite, StorageWrite, num};
use std::io;
use std::path::Path;

/// The size in which contents change their kind, in bytes.
const SEGMENT_UNIT_BYTES: u64 = 4096;

/// The contents of a disk: a row of segments of data, text, zeroes and holes, which a seed
/// decides. Any part can be had without the rest.
#[derive(Debug, Clone)]
pub struct GuestContents {
    seed: u64,
    size_bytes: u64,
    segments: Vec<Segment>,
}

/// A part of the disk with contents of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Which part, in bytes.
    pub range: Range<u64>,
    /// What is in it.
    pub kind: SegmentKind,
}

/// What is in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// Random bytes, which do not compress.
    Data,
    /// Lines of words, which compress about as text does.
    Text,
    /// Zeroes that were written.
    Zeroes,
    /// Nothing that was ever written.
    Hole,
}

impl GuestContents {
    /// A disk of `size_bytes` with segments of 4 KiB to 256 KiB, a quarter of each kind.
    #[must_use]
    pub fn new(seed: u64, size_bytes: u64) -> Self {
        Self::with_segments_up_to(seed, size_bytes, 256 << 10)
    }

    /// As [`new`](Self::new), with segments up to `max_bytes`.
    #[must_use]
    pub fn with_segments_up_to(seed: u64, size_bytes: u64, max_bytes: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut segments = Vec::new();
        let mut at = 0;
        while at < size_bytes {
            let units = 1 + rng.below((max_bytes / SEGMENT_UNIT_BYTES).max(1));
            let end = at.saturating_add(units * SEGMENT_UNIT_BYTES).min(size_bytes);
            let kind = match rng.below(4) {
                0 => SegmentKind::Data,
                1 => SegmentKind::Text,
                2 => SegmentKind::Zeroes,
                _ => SegmentKind::Hole,
            };
            segments.push(Segment { range: at..end, kind });
            at = end;
        }
        Self { seed, size_bytes, segments }
    }

    /// The size of the disk in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What the disk is made of, in order and without gaps.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The bytes in `range`.
    ///
    /// # Panics
    /// Past the end.
    #[must_use]
    pub fn read(&self, range: Range<u64>) -> Vec<u8> {
        assert!(range.end <= self.size_bytes, "read past the end");
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        let first = self.segments.partition_point(|segment| segment.range.end <= range.start);
        for segment in &self.segments[first..] {
            let part = segment.range.start.max(range.start)..segment.range.end.min(range.end);
            if part.is_empty() {
                break;
            }
            let place = |at: u64| usize::try_from(at - range.start).unwrap();
            self.fill(segment.kind, &mut bytes[place(part.start)..place(part.end)], part.start);
        }
        bytes
    }

    /// Everything.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.read(0..self.size_bytes)
    }

    /// Writes everything but the holes to an image that reads as zeroes.
    ///
    /// # Errors
    /// The image's.
    pub fn write_to(&self, image: &dyn ImageWrite) -> rimg_core::Result<()> {
        for Segment { range, kind } in &self.segments {
            match kind {
                SegmentKind::Hole => {}
                SegmentKind::Zeroes => image.write_zeroes_at(range.clone())?,
                _ => image.write_at(&self.read(range.clone()), range.start)?,
            }
        }
        Ok(())
    }

    /// Sets the length of a storage and writes everything but the holes to it.
    ///
    /// # Errors
    /// The storage's.
    pub fn write_to_storage(&self, storage: &dyn StorageWrite) -> io::Result<()> {
        storage.set_len_bytes(self.size_bytes)?;
        for Segment { range, kind } in &self.segments {
            if *kind != SegmentKind::Hole {
                storage.write_all_at(&self.read(range.clone()), range.start)?;
            }
        }
        Ok(())
    }

    /// Makes a sparse raw file.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let options = rimg_storage::FileOptions::create();
        self.write_to_storage(&rimg_storage::FileStorage::open(path, options)?)
    }

    /// Fills a buffer that lies at `at` in a segment of this kind.
    fn fill(&self, kind: SegmentKind, buf: &mut [u8], at: u64) {
        let write: fn(&mut Rng, &mut [u8]) = match kind {
            SegmentKind::Zeroes | SegmentKind::Hole => return buf.fill(0),
            SegmentKind::Data => |rng, unit| rng.fill(unit),
            SegmentKind::Text => text,
        };
        // Each unit comes from a generator of its own, so that any part can be had alone.
        let mut unit = [0; 4096];
        let end = at + num::to_u64(buf.len());
        let mut rest = buf;
        let mut at = at;
        while at < end {
            let number = at / SEGMENT_UNIT_BYTES;
            write(&mut Rng::new(Rng::new(self.seed ^ number).next_u64()), &mut unit);
            let skip = usize::try_from(at % SEGMENT_UNIT_BYTES).unwrap();
            let (piece, after) = rest.split_at_mut((unit.len() - skip).min(rest.len()));
            piece.copy_from_slice(&unit[skip..][..piece.len()]);
            at += num::to_u64(piece.len());
            rest = after;
        }
    }
}

fn text(rng: &mut Rng, buf: &mut [u8]) {
    const WORDS: &[&str] = &[
        "cluster", "disk", "the", "of", "a", "sector", "refcount", "offset", "table", "guest",
        "host", "is", "zero", "and", "data", "image",
    ];
    let mut at = 0;
    while at < buf.len() {
        let number = rng.below(100_000).to_string();
        let word = match rng.below(4) {
            0 => number.as_str(),
            n => WORDS[usize::try_from(rng.below(16 / n)).unwrap()],
        };
        let end = if rng.one_in(8) { b'\n' } else { b' ' };
        for byte in word.bytes().chain([end]) {
            if let Some(place) = buf.get_mut(at) {
                *place = byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;
    use rimg_core::Storage;
    use rimg_storage::MemoryStorage;

    #[test]
    fn parts_are_parts_of_the_whole() {
        let guest = GuestContents::new(7, 1_000_001);
        let whole = guest.to_vec();
        assert_eq!(whole.len(), 1_000_001);
        for range in [0..1, 4095..4097, 5_000..300_000, 999_990..1_000_001] {
            let place = |at| usize::try_from(at).unwrap();
            assert_eq!(guest.read(range.clone()), &whole[place(range.start)..place(range.end)]);
        }
    }

    #[test]
    fn all_kinds_come_up_and_a_seed_decides() {
        let guest = GuestContents::new(1, 8 << 20);
        for kind in [SegmentKind::Data, SegmentKind::Text, SegmentKind::Zeroes, SegmentKind::Hole] {
            assert!(guest.segments().iter().any(|segment| segment.kind == kind), "{kind:?}");
        }
        let digest = |seed| digest::of_bytes(&GuestContents::new(seed, 8 << 20).to_vec());
        assert_eq!(digest(1), digest(1));
        assert_ne!(digest(1), digest(2));
    }

    #[test]
    fn holes_stay_holes() {
        let guest = GuestContents::new(1, 8 << 20);
        let storage = MemoryStorage::new();
        guest.write_to_storage(&storage).unwrap();
        assert_eq!(storage.to_vec().unwrap(), guest.to_vec());
        let is_hole = |segment: &&Segment| segment.kind == SegmentKind::Hole;
        for hole in guest.segments().iter().filter(is_hole) {
            assert!(!storage.run_at(hole.range.start).unwrap().is_data);
        }
    }
}
