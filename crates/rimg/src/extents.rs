//! A backing chain seen from above: what lies where, without reading any data.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use core::ops::Range;
use rimg_core::{BlockImage, ChainWalk, ExtentKind, Result};

/// A run of guest bytes and the image of the chain that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainExtent {
    /// Where it starts, in bytes.
    pub start: u64,
    /// How long it is, in bytes; never 0.
    pub len_bytes: u64,
    /// Which image it comes from: 0 is the top. Where nobody says anything, the last one that
    /// was asked.
    pub depth: usize,
    /// What it is. [`ExtentKind::Backing`] where no image says anything: zeroes, if the whole
    /// chain is open.
    pub kind: ExtentKind,
}

impl ChainExtent {
    /// Where it ends, in bytes.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.len_bytes)
    }

    /// Whether it can be taken for zeroes without reading.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        matches!(self.kind, ExtentKind::Zero { .. } | ExtentKind::Backing { .. })
    }

    /// Whether `next` goes on in the same way: same image, same kind, next place. Encoded clusters
    /// stay apart.
    fn goes_on_with(&self, next: &Self) -> bool {
        self.depth == next.depth
            && !matches!(next.kind, ExtentKind::Encoded { .. })
            && self.kind.advanced(self.len_bytes) == next.kind
    }
}

/// Walks over the extents of a chain from one end of a range to the other.
///
/// Neighbours that belong together come as one. Memory depends on the number of images only,
/// time on the number of runs that they consist of. An error ends the walk.
/// ```
/// use rimg::{ChainExtents, MemoryStorage, Opener, StorageWrite};
/// use std::sync::Arc;
///
/// let store = MemoryStorage::with_len(1 << 20);
/// store.write_all_at(b"data", 1 << 19)?;
/// let image = Opener::new().format("raw").open_storage(Arc::new(store))?;
///
/// let extents: Result<Vec<_>, _> = ChainExtents::new(&*image).collect();
/// let kinds: Vec<bool> = extents?.iter().map(|extent| extent.is_zero()).collect();
/// assert_eq!(kinds, [true, false, true]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ChainExtents<'a> {
    walk: ChainWalk<'a>,
    at: u64,
    end: u64,
    /// Found already, but not known to be whole.
    pending: Option<ChainExtent>,
}

impl<'a> ChainExtents<'a> {
    /// Over the whole disk of `top`.
    #[must_use]
    pub fn new(top: &'a dyn BlockImage) -> Self {
        Self::within(top, 0..top.size_bytes())
    }

    /// Over part of the disk of `top`; what reaches past its end is left out.
    #[must_use]
    pub fn within(top: &'a dyn BlockImage, range: Range<u64>) -> Self {
        let end = range.end.min(top.size_bytes());
        let walk = ChainWalk::new(top, end, usize::MAX);
        Self { walk, at: range.start.min(end), end, pending: None }
    }

    /// The images that [`ChainExtent::depth`] counts.
    #[must_use]
    pub fn image(&self, depth: usize) -> Option<&'a dyn BlockImage> {
        self.walk.image(depth)
    }

    /// The piece at `self.at`, as short as the images have it.
    fn piece(&mut self) -> Result<ChainExtent> {
        let run = self.walk.run_at(self.at, self.end)?;
        Ok(ChainExtent {
            start: self.at,
            len_bytes: run.end.saturating_sub(self.at),
            depth: run.depth,
            kind: run.kind,
        })
    }
}

impl Iterator for ChainExtents<'_> {
    type Item = Result<ChainExtent>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.end {
            let piece = match self.piece() {
                Ok(piece) => piece,
                Err(error) => {
                    self.end = self.at;
                    self.pending = None;
                    return Some(Err(error));
                }
            };
            self.at = piece.end();
            match &mut self.pending {
                Some(whole) if whole.goes_on_with(&piece) => {
                    whole.len_bytes = whole.len_bytes.saturating_add(piece.len_bytes);
                }
                Some(_) => return self.pending.replace(piece).map(Ok),
                None => self.pending = Some(piece),
            }
        }
        self.pending.take().map(Ok)
    }
}
