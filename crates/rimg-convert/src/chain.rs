//! A backing chain seen from above: one run after the other, with the layer it comes from.

use core::ops::Range;
use rimg_core::{BlockImage, Codec, ExtentKind, FileOffset, Result};
use std::sync::Arc;

/// An image and what lies below it.
pub(crate) struct Chain<'a> {
    layers: Vec<Layer<'a>>,
    shared_from: Option<usize>,
}

impl<'a> Chain<'a> {
    /// `shared_from`: the first layer whose contents the caller has elsewhere, counted from 0.
    pub(crate) fn new(top: &'a dyn BlockImage, shared_from: Option<usize>) -> Self {
        let below = std::iter::successors(top.backing(), |image| image.backing());
        let layers = std::iter::once(top)
            .chain(below.map(|image: &Arc<_>| -> &dyn BlockImage { &**image }))
            .map(Layer::new)
            .collect();
        Self { layers, shared_from }
    }

    /// What lies at `at`, up to `end` at most.
    pub(crate) fn run_at(&mut self, at: u64, end: u64) -> Result<Run<'a>> {
        let mut end = end;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            if self.shared_from == Some(index) {
                return Ok(Run { end, kind: RunKind::Shared });
            }
            // Behind its end a layer hides what is below it.
            if at >= layer.size {
                break;
            }
            let (range, kind) = layer.run_at(at)?;
            end = end.min(range.end);
            let by = at.saturating_sub(range.start);
            let kind = match kind.advanced(by) {
                ExtentKind::Backing => continue,
                ExtentKind::Data(at) => RunKind::Data { image: layer.image, at },
                ExtentKind::Encoded { at, len_bytes, codec } => RunKind::Encoded(Encoded {
                    image: layer.image,
                    at,
                    len_bytes,
                    codec,
                    whole: layer.whole_cluster(&range).filter(|_| by == 0 && end == range.end),
                }),
                ExtentKind::Zero { allocation } => RunKind::Zero { allocation, depth: Some(index) },
                _ => RunKind::Opaque,
            };
            return Ok(Run { end, kind });
        }
        Ok(Run { end, kind: RunKind::Zero { allocation: None, depth: None } })
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

/// One image of a chain and the run that it was last asked for: the layers above cut long runs
/// into pieces, and looking them up each time would take quadratic time.
struct Layer<'a> {
    image: &'a dyn BlockImage,
    size: u64,
    cluster_bytes: Option<u64>,
    last: Option<(Range<u64>, ExtentKind)>,
}

impl<'a> Layer<'a> {
    fn new(image: &'a dyn BlockImage) -> Self {
        // What an image cannot say of itself only costs speed here.
        let cluster_bytes = image.info().ok().and_then(|info| info.cluster_bytes);
        Self { image, size: image.size_bytes(), cluster_bytes, last: None }
    }

    /// The cluster size, if `range` is a whole cluster. The length alone does not tell: the rest
    /// of a larger one may be as long.
    fn whole_cluster(&self, range: &Range<u64>) -> Option<u64> {
        let cluster = self.cluster_bytes.filter(|&cluster| cluster != 0)?;
        let aligned = range.start.is_multiple_of(cluster);
        let whole = range.end - range.start == cluster || range.end == self.size;
        (aligned && whole).then_some(cluster)
    }

    /// The known run around `at`, which is below the size.
    fn run_at(&mut self, at: u64) -> Result<(Range<u64>, ExtentKind)> {
        if let Some((range, kind)) = &self.last
            && range.contains(&at)
        {
            return Ok((range.clone(), *kind));
        }
        let extent = self.image.extent_at(at..self.size)?;
        // An empty run would never end.
        let end = at.saturating_add(extent.len_bytes.max(1)).min(self.size);
        self.last = Some((at..end, extent.kind));
        Ok((at..end, extent.kind))
    }
}
