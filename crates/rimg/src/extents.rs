//! A backing chain seen from above: what lies where, without reading any data.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use core::ops::Range;
use rimg_core::{BlockImage, Error, ExtentKind, Result};

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
        matches!(self.kind, ExtentKind::Zero { .. } | ExtentKind::Backing)
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
    layers: Vec<CachedLayer<'a>>,
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
        let below = std::iter::successors(top.backing(), |image| image.backing());
        let layers = std::iter::once(top).chain(below.map(|image| image.as_ref()));
        let layers = layers.map(|image| CachedLayer::new(image, end)).collect();
        Self { layers, at: range.start.min(end), end, pending: None }
    }

    /// The images that [`ChainExtent::depth`] counts.
    #[must_use]
    pub fn image(&self, depth: usize) -> Option<&'a dyn BlockImage> {
        self.layers.get(depth).map(|layer| layer.image)
    }

    /// The piece at `self.at`, as short as the images have it.
    fn piece(&mut self) -> Result<ChainExtent> {
        let at = self.at;
        let mut end = self.end;
        let mut depth: usize = 0;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            // Behind its end an image hides what is below it.
            if at >= layer.size {
                break;
            }
            depth = index;
            let (run, kind) = layer.run_at(at)?;
            end = end.min(run.end);
            if !matches!(kind, ExtentKind::Backing) {
                let kind = kind.advanced(at.saturating_sub(run.start));
                return Ok(ChainExtent {
                    start: at,
                    len_bytes: end.saturating_sub(at),
                    depth,
                    kind,
                });
            }
        }
        let len_bytes = end.saturating_sub(at);
        Ok(ChainExtent { start: at, len_bytes, depth, kind: ExtentKind::Backing })
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

/// An image and the run it was last asked for: the images above cut long runs into pieces, and
/// asking for each anew would take quadratic time.
#[derive(Debug)]
struct CachedLayer<'a> {
    image: &'a dyn BlockImage,
    size: u64,
    /// Up to where the walk will ask.
    end: u64,
    run: Range<u64>,
    kind: ExtentKind,
}

impl<'a> CachedLayer<'a> {
    fn new(image: &'a dyn BlockImage, end: u64) -> Self {
        let size = image.size_bytes();
        Self { image, size, end: end.min(size), run: 0..0, kind: ExtentKind::Backing }
    }

    /// The run around `at`, which is below the size.
    fn run_at(&mut self, at: u64) -> Result<(&Range<u64>, ExtentKind)> {
        if !self.run.contains(&at) {
            let extent = self.image.extent_at(at..self.end)?;
            if extent.len_bytes == 0 {
                return Err(Error::Misuse("an image gave an empty extent"));
            }
            self.run = at..at.saturating_add(extent.len_bytes).min(self.end);
            self.kind = extent.kind;
        }
        Ok((&self.run, self.kind))
    }
}
