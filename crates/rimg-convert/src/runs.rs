//! A backing chain seen from above: one run after the other, with the layer it comes from.

use core::ops::Range;
use rimg_core::{BlockImage, ChainWalk, Codec, ExtentKind, FileHoles, FileOffset, InFile, Result};

/// An image and what lies below it.
pub(crate) struct Chain<'a> {
    walk: ChainWalk<'a>,
    /// What is to be known of each image; 0 is the top.
    layers: Vec<Layer<'a>>,
    /// Below the images that are looked at there are others.
    is_shared_below: bool,
}

struct Layer<'a> {
    image: &'a dyn BlockImage,
    size: u64,
    cluster_bytes: Option<u64>,
    holes: FileHoles<'a>,
}

impl<'a> Chain<'a> {
    /// `shared_from`: the first layer whose contents the caller has elsewhere, counted from 0.
    pub(crate) fn new(top: &'a dyn BlockImage, shared_from: Option<usize>) -> Self {
        let walk = ChainWalk::new(top, top.size_bytes(), shared_from.unwrap_or(usize::MAX));
        let layers: Vec<_> = walk.images().map(Layer::new).collect();
        let has_more = layers.last().is_none_or(|layer| layer.image.backing().is_some());
        Self { walk, layers, is_shared_below: shared_from.is_some() && has_more }
    }

    /// What lies at `at`, up to `end` at most.
    pub(crate) fn run_at(&mut self, at: u64, end: u64) -> Result<Run<'a>> {
        let mut run = self.walk.run_at(at, end)?;
        let Some(layer) = self.layers.get_mut(run.depth) else {
            return Ok(Run { end, kind: RunKind::Shared });
        };
        let depth = Some(run.depth);
        let kind = match run.kind {
            ExtentKind::Backing { .. } if self.is_shared_below && !run.is_behind_end => {
                RunKind::Shared
            }
            ExtentKind::Backing { .. } => RunKind::Zero { allocation: None, depth: None },
            ExtentKind::Zero { allocation } => RunKind::Zero { allocation, depth },
            ExtentKind::Data(place) => {
                let (len, what) = layer.holes.run_at(place, run.end.saturating_sub(at))?;
                run.end = at.saturating_add(len);
                match what {
                    InFile::Hole => RunKind::Zero { allocation: Some(place), depth },
                    InFile::Data | InFile::BehindEnd => {
                        RunKind::Data { image: layer.image, at: place }
                    }
                }
            }
            ExtentKind::Encoded { at: place, len_bytes, codec } => {
                let whole = layer.whole_cluster(&run.whole).filter(|_| run.whole == (at..run.end));
                RunKind::Encoded(Encoded { image: layer.image, at: place, len_bytes, codec, whole })
            }
            _ => RunKind::Opaque,
        };
        Ok(Run { end: run.end, kind })
    }
}

impl<'a> Layer<'a> {
    fn new(image: &'a dyn BlockImage) -> Self {
        // What an image cannot say of itself only costs speed here.
        let cluster_bytes = image.info().ok().and_then(|info| info.cluster_bytes);
        Self { image, size: image.size_bytes(), cluster_bytes, holes: FileHoles::of(image) }
    }

    /// The cluster size, if `range` is a whole cluster. The length alone does not tell: the rest
    /// of a larger one may be as long.
    fn whole_cluster(&self, range: &Range<u64>) -> Option<u64> {
        let cluster = self.cluster_bytes.filter(|&cluster| cluster != 0)?;
        let aligned = range.start.is_multiple_of(cluster);
        let whole = range.end.saturating_sub(range.start) == cluster || range.end == self.size;
        (aligned && whole).then_some(cluster)
    }
}

/// Guest bytes up to `end`, all of one kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) end: u64,
    pub(crate) kind: RunKind<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum RunKind<'a> {
    /// Bytes as they are in a file of `image`.
    Data {
        image: &'a dyn BlockImage,
        at: FileOffset,
    },
    Encoded(Encoded<'a>),
    /// Reads as zeroes; `depth` is the layer that says so, `None` where all are silent.
    Zero {
        allocation: Option<FileOffset>,
        depth: Option<usize>,
    },
    /// See the layers from `shared_from` on.
    Shared,
    /// Only to be had by reading the image.
    Opaque,
}

/// An encoded cluster, or the rest of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoded<'a> {
    pub(crate) image: &'a dyn BlockImage,
    pub(crate) at: FileOffset,
    /// An upper bound.
    pub(crate) len_bytes: u64,
    pub(crate) codec: Codec,
    /// The cluster size in bytes of the layer, when the run is a whole cluster of it (or ends
    /// where the layer ends).
    pub(crate) whole: Option<u64>,
}
