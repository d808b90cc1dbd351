//! A backing chain seen from above: which image says what of a run of guest bytes.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::{BlockImage, Error, ExtentKind, Result};
use core::ops::Range;

/// Looks down a backing chain.
///
/// Each image is remembered with the run that it was last asked for: the images above cut long
/// runs into pieces, and asking for each anew would take quadratic time. Positions may be asked
/// for in any order; rising ones are fast.
#[derive(Debug)]
pub struct ChainWalk<'a> {
    layers: Vec<Layer<'a>>,
    end: u64,
}

/// A run of guest bytes, and what the chain says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainRun {
    /// Where it ends, in bytes.
    pub end: u64,
    /// Which image says so: 0 is the top. Where none says anything, the last one that was asked.
    pub depth: usize,
    /// What it is. [`ExtentKind::Backing`] where no image says anything, as the last one has it.
    pub kind: ExtentKind,
    /// The guest bytes of which that image said so at once; the run is in there. Where none says
    /// anything, what was asked for.
    pub whole: Range<u64>,
    /// The next image below, or the top if none was asked, ends before here, and hides what is
    /// further below.
    pub is_behind_end: bool,
}

impl<'a> ChainWalk<'a> {
    /// The chain from `top` down, of which no byte at or behind `end` is looked at, and no more
    /// than `depth` images.
    #[must_use]
    pub fn new(top: &'a dyn BlockImage, end: u64, depth: usize) -> Self {
        let below = std::iter::successors(top.backing(), |image| image.backing());
        let images = std::iter::once(top).chain(below.map(|image| image.as_ref()));
        Self { layers: images.take(depth).map(|image| Layer::new(image, end)).collect(), end }
    }

    /// The images from the top down.
    pub fn images(&self) -> impl Iterator<Item = &'a dyn BlockImage> + '_ {
        self.layers.iter().map(|layer| layer.image)
    }

    /// The image that [`ChainRun::depth`] counts.
    #[must_use]
    pub fn image(&self, depth: usize) -> Option<&'a dyn BlockImage> {
        self.layers.get(depth).map(|layer| layer.image)
    }

    /// What lies at `at`, up to `end` at most: as short a run as the images have it, never empty.
    ///
    /// # Errors
    /// What an image says of its own tables; [`Error::Misuse`] for an `at` that is not before
    /// `end` and the end of the walk.
    pub fn run_at(&mut self, at: u64, end: u64) -> Result<ChainRun> {
        let end = end.min(self.end);
        if at >= end {
            return Err(Error::Misuse("a run behind the end of a chain"));
        }
        let mut run = ChainRun {
            end,
            depth: 0,
            kind: ExtentKind::Backing { allocation: None },
            whole: at..end,
            is_behind_end: false,
        };
        for (depth, layer) in self.layers.iter_mut().enumerate() {
            if at >= layer.size {
                run.is_behind_end = true;
                break;
            }
            run.depth = depth;
            let (whole, kind) = layer.run_at(at)?;
            run.end = run.end.min(whole.end);
            run.kind = kind.advanced(at.saturating_sub(whole.start));
            if !matches!(kind, ExtentKind::Backing { .. }) {
                run.whole = whole.clone();
                break;
            }
        }
        Ok(run)
    }
}

/// An image of a chain and the run that it was last asked for.
#[derive(Debug)]
struct Layer<'a> {
    image: &'a dyn BlockImage,
    size: u64,
    /// Up to where it is asked.
    end: u64,
    run: Range<u64>,
    kind: ExtentKind,
}

impl<'a> Layer<'a> {
    fn new(image: &'a dyn BlockImage, end: u64) -> Self {
        let size = image.size_bytes();
        Self {
            image,
            size,
            end: end.min(size),
            run: 0..0,
            kind: ExtentKind::Backing { allocation: None },
        }
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
