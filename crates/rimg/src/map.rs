//! Extents as `qemu-img map` shows them.

use crate::extents::{ChainExtent, ChainExtents};
use core::ops::Range;
use rimg_core::{BlockImage, ExtentKind, FileOffset, HostOffset, Result};

/// A line of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// Where it starts in the guest's disk, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub len_bytes: u64,
    /// Which image of the chain it comes from: 0 is the top.
    pub depth: usize,
    /// Whether an image of the chain says anything about it.
    pub present: bool,
    /// Whether it is known to read as zeroes.
    pub zero: bool,
    /// Whether there are bytes for it in a file.
    pub data: bool,
    /// Whether it is compressed.
    pub compressed: bool,
    /// Where its bytes, or the space reserved for them, begin.
    pub place: Option<FileOffset>,
}

impl MapEntry {
    fn new(extent: &ChainExtent) -> Self {
        let (present, zero, data, compressed, place) = match extent.kind {
            ExtentKind::Data(at) => (true, false, true, false, Some(at)),
            ExtentKind::Encoded { .. } => (true, false, true, true, None),
            ExtentKind::Zero { allocation } => (true, true, false, false, allocation),
            ExtentKind::Backing { allocation } => (false, true, false, false, allocation),
            _ => (true, false, true, false, None),
        };
        Self {
            start: extent.start,
            len_bytes: extent.len_bytes,
            depth: extent.depth,
            present,
            zero,
            data,
            compressed,
            place,
        }
    }

    /// Whether `next` is of the same kind and its place, where there is one, comes next.
    fn goes_on_with(&self, next: &Self) -> bool {
        let kind =
            |entry: &Self| (entry.depth, entry.present, entry.zero, entry.data, entry.compressed);
        let next_place = self.place.map(|place| FileOffset {
            file: place.file,
            host: HostOffset(place.host.0.saturating_add(self.len_bytes)),
        });
        kind(self) == kind(next) && next_place == next.place
    }
}

/// Walks over a chain line by line of its map. An error ends the walk.
///
/// It differs from [`ChainExtents`] in that neighbouring compressed clusters come as one, since a
/// map does not tell where they are.
#[derive(Debug)]
pub struct MapEntries<'a> {
    extents: ChainExtents<'a>,
    pending: Option<MapEntry>,
}

impl<'a> MapEntries<'a> {
    /// Over the whole disk of `top`.
    #[must_use]
    pub fn new(top: &'a dyn BlockImage) -> Self {
        Self { extents: ChainExtents::new(top), pending: None }
    }

    /// Over part of the disk of `top`; what reaches past its end is left out.
    #[must_use]
    pub fn within(top: &'a dyn BlockImage, range: Range<u64>) -> Self {
        Self { extents: ChainExtents::within(top, range), pending: None }
    }
}

impl Iterator for MapEntries<'_> {
    type Item = Result<MapEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        for extent in self.extents.by_ref() {
            let entry = match extent {
                Ok(extent) => MapEntry::new(&extent),
                Err(error) => {
                    self.pending = None;
                    return Some(Err(error));
                }
            };
            match &mut self.pending {
                Some(whole) if whole.goes_on_with(&entry) => {
                    whole.len_bytes = whole.len_bytes.saturating_add(entry.len_bytes);
                }
                Some(_) => return self.pending.replace(entry).map(Ok),
                None => self.pending = Some(entry),
            }
        }
        self.pending.take().map(Ok)
    }
}
