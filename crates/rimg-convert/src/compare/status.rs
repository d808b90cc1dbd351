//! What an image says of a run beside its contents, as strict comparison sees it.

use crate::runs::{Run, RunKind};
use crate::source::{Source, Walk};
use rimg_core::{BlockImage, FileOffset, ImageInfo, Result};

/// What has to agree in strict mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    zero: bool,
    allocated: bool,
    encoded: bool,
    /// Whether the run has a place in a file.
    placed: bool,
    /// Whether the run is the image's last: qemu-img counts that as well.
    last: bool,
}

/// A status and how far it reaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatusRun {
    pub(super) status: Status,
    pub(super) end: u64,
}

/// How much of an image qemu-img learns at once.
#[derive(Debug, Clone, Copy)]
enum Told {
    /// Runs, as far as they go.
    Runs,
    /// Runs, to the next multiple of so many bytes: what one table, or one cluster, covers.
    Within(u64),
    /// Nothing: it is data, somewhere.
    Nothing,
}

impl Told {
    fn of(info: &ImageInfo) -> Self {
        let Some(cluster) = info.cluster_bytes.filter(|&bytes| bytes != 0) else {
            return if info.format == "dmg" { Self::Nothing } else { Self::Runs };
        };
        match info.format {
            "bochs" | "cloop" | "dmg" | "vhdx" => Self::Nothing,
            "qcow" | "vdi" | "vmdk" => Self::Within(cluster),
            // Tables are read in slices of a cluster, of 64 KiB at most.
            "qcow2" => {
                let entry_bytes = if info.subcluster_bytes.is_some() { 16 } else { 8 };
                Self::Within(cluster.min(64 << 10) / entry_bytes * cluster)
            }
            // What images are made with: tables of four clusters.
            "qed" => Self::Within((cluster / 2).saturating_mul(cluster)),
            _ => Self::Runs,
        }
    }
}

/// An image of a chain.
struct Layer<'a> {
    image: &'a dyn BlockImage,
    told: Told,
    cluster_bytes: Option<u64>,
    size: u64,
}

/// Walks an image by runs of the same status that are contiguous in their file.
pub(super) struct StatusWalk<'a> {
    walk: Walk<'a>,
    /// The image and those below it, from the top.
    layers: Vec<Layer<'a>>,
    size: u64,
    current: Option<StatusRun>,
    /// Already taken from the walk, and begins where `current` ends.
    ahead: Option<Run<'a>>,
}

impl<'a> StatusWalk<'a> {
    pub(super) fn new(image: &'a dyn BlockImage) -> Self {
        let source = Source::new(&[image]);
        let below = |image: &&'a dyn BlockImage| image.backing().map(|image| &**image);
        let layers = std::iter::successors(Some(image), below).map(|image| {
            // An image that cannot tell of itself cannot tell where anything lies either.
            let info = image.info().unwrap_or_default();
            let (told, cluster_bytes) = (Told::of(&info), info.cluster_bytes);
            Layer { image, told, cluster_bytes, size: image.size_bytes() }
        });
        Self {
            walk: source.walk(None),
            layers: layers.collect(),
            size: source.size_bytes(),
            current: None,
            ahead: None,
        }
    }

    /// The run around `at`, which is no less than the last time. The last one has no end: images
    /// count in whole sectors.
    pub(super) fn at(&mut self, at: u64) -> Result<StatusRun> {
        loop {
            match self.current {
                Some(run) if at < run.end => return Ok(run),
                Some(run) => self.advance(run.end)?,
                None => self.advance(0)?,
            }
        }
    }

    fn advance(&mut self, start: u64) -> Result<()> {
        let mut last = match self.ahead.take() {
            Some(run) => run,
            None => self.run_at(start)?,
        };
        let mut last_start = start;
        let mut status = self.status(start, &last.kind);
        let asked = self.layers_asked(start, &last.kind);
        while last.end < self.size {
            let next = self.run_at(last.end)?;
            let is_alike = status == self.status(last.end, &next.kind)
                && asked == self.layers_asked(last.end, &next.kind);
            if !is_alike || !continues(&last, last_start, &next) {
                self.ahead = Some(next);
                break;
            }
            last_start = last.end;
            last = next;
        }
        let mut end = if last.end >= self.size { u64::MAX } else { last.end };
        if self.is_end(&last, status) {
            let last_answer = self.last_answer(asked, &last);
            if start < last_answer {
                // The rest will be met again.
                self.ahead = Some(last);
                end = last_answer;
            } else {
                status.last = true;
            }
        }
        self.current = Some(StatusRun { status, end });
        Ok(())
    }

    /// The run at `at`, as far as qemu-img is told of it. None reaches past the end of a layer.
    fn run_at(&mut self, at: u64) -> Result<Run<'a>> {
        let ends = self.layers.iter().map(|layer| layer.size).filter(|&end| end > at);
        let end = ends.min().unwrap_or(self.size).min(self.size);
        let run = self.walk.run_at(at, end)?;
        let depth = self.layers_asked(at, &run.kind).checked_sub(1);
        let layer = depth.and_then(|depth| self.layers.get(depth)).filter(|layer| at < layer.size);
        let is_untold = layer.is_some_and(|layer| matches!(layer.told, Told::Nothing));
        Ok(if is_untold { Run { kind: RunKind::Opaque, ..run } } else { run })
    }

    /// Whether qemu-img sees an end where `run` ends: that of the disk, or that of the lowest image
    /// while it finds nothing in it.
    fn is_end(&self, run: &Run<'_>, status: Status) -> bool {
        let lowest = self.layers.last().map(|layer| layer.size);
        run.end >= self.size || !status.allocated && Some(run.end) == lowest
    }

    /// Where the last answer begins that qemu-img gets for what ends with `run`, of which so many
    /// layers are asked.
    fn last_answer(&self, asked: usize, run: &Run<'_>) -> u64 {
        let steps =
            self.layers.iter().take(asked).filter_map(|layer| match (layer.told, run.kind) {
                // Compressed clusters are told of one by one.
                (Told::Within(_), RunKind::Encoded(encoded))
                    if std::ptr::addr_eq(layer.image, encoded.image) =>
                {
                    layer.cluster_bytes
                }
                (Told::Within(bytes), _) => Some(bytes),
                _ => None,
            });
        let last_byte = run.end.saturating_sub(1);
        let start_of = |step: u64| Some(last_byte.checked_div(step)?.saturating_mul(step));
        steps.filter_map(start_of).max().unwrap_or(0)
    }

    /// How many layers, from the top, are asked about what lies at `at`, the one that has it
    /// included. One that ends before `at` is the last, and has zeroes there, but does not bound
    /// the answer.
    fn layers_asked(&self, at: u64, kind: &RunKind<'_>) -> usize {
        let of = |image: &dyn BlockImage| {
            self.layers.iter().position(|layer| std::ptr::addr_eq(layer.image, image))
        };
        let depth = match *kind {
            RunKind::Data { image, .. } => of(image),
            RunKind::Encoded(encoded) => of(encoded.image),
            RunKind::Zero { depth, .. } => depth,
            RunKind::Shared | RunKind::Opaque => Some(0),
        };
        match depth {
            Some(depth) => depth.saturating_add(1),
            None => self.short_layer(at).unwrap_or(self.layers.len()),
        }
    }

    /// The first layer that ends before `at`.
    fn short_layer(&self, at: u64) -> Option<usize> {
        self.layers.iter().position(|layer| layer.size <= at)
    }

    fn status(&self, at: u64, kind: &RunKind<'_>) -> Status {
        let (zero, allocated) = match kind {
            // Zeroes behind the end of a layer are that layer's.
            RunKind::Zero { depth, .. } => {
                (true, depth.is_some() || self.short_layer(at).is_some())
            }
            _ => (false, true),
        };
        let encoded = matches!(kind, RunKind::Encoded(_));
        Status { zero, allocated, encoded, placed: place(kind).is_some(), last: false }
    }
}

/// Where a run lies in a file, byte for byte.
fn place<'a>(kind: &RunKind<'a>) -> Option<(Option<&'a dyn BlockImage>, FileOffset)> {
    match *kind {
        RunKind::Data { image, at } => Some((Some(image), at)),
        RunKind::Zero { allocation: Some(at), .. } => Some((None, at)),
        _ => None,
    }
}

/// Whether `next`, which follows on `last` and is of the same status, lies where `last` ends.
fn continues(last: &Run<'_>, last_start: u64, next: &Run<'_>) -> bool {
    match (place(&last.kind), place(&next.kind)) {
        (Some((image, at)), Some((next_image, next_at))) => {
            let same_image = match (image, next_image) {
                (Some(image), Some(next_image)) => std::ptr::addr_eq(image, next_image),
                (None, None) => true,
                _ => false,
            };
            let len = last.end.saturating_sub(last_start);
            same_image
                && at.file == next_at.file
                && at.host.0.checked_add(len) == Some(next_at.host.0)
        }
        (None, None) => true,
        _ => false,
    }
}
