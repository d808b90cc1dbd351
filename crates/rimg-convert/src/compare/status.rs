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

/// How much qemu-img learns of an image at once.
#[derive(Debug, Clone, Copy)]
enum Told {
    /// Runs, as far as they go.
    Runs,
    /// One cluster of so many bytes: none but the last one is the end of the image.
    Clusters(u64),
    /// Nothing: it is data, somewhere.
    Nothing,
}

impl Told {
    fn of(info: &ImageInfo) -> Self {
        match (info.format, info.granule_bytes()) {
            ("bochs" | "cloop" | "dmg" | "vhdx", _) => Self::Nothing,
            ("qcow" | "vdi" | "vmdk", Some(bytes)) => Self::Clusters(bytes),
            _ => Self::Runs,
        }
    }
}

/// An image of a chain.
struct Layer<'a> {
    image: &'a dyn BlockImage,
    told: Told,
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
            // What an image cannot say of itself makes a comparison stricter, no more.
            let told = image.info().map_or(Told::Runs, |info| Told::of(&info));
            Layer { image, told }
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
        while last.end < self.size {
            let next = self.run_at(last.end)?;
            if !continues(&last, last_start, &next) {
                self.ahead = Some(next);
                break;
            }
            last_start = last.end;
            last = next;
        }
        let last_cluster = self.last_cluster(&last.kind);
        let (end, is_last) = match last.end >= self.size {
            true if start < last_cluster => {
                // The rest will be met again.
                self.ahead = Some(last);
                (last_cluster, false)
            }
            true => (u64::MAX, true),
            false => (last.end, false),
        };
        self.current = Some(StatusRun { status: status(&last.kind, is_last), end });
        Ok(())
    }

    /// The run at `at`, as far as qemu-img is told of it.
    fn run_at(&mut self, at: u64) -> Result<Run<'a>> {
        let run = self.walk.run_at(at, self.size)?;
        let layer = self.layers.get(self.depth(&run.kind));
        let is_untold = layer.is_some_and(|layer| matches!(layer.told, Told::Nothing));
        Ok(if is_untold { Run { kind: RunKind::Opaque, ..run } } else { run })
    }

    /// Where the last cluster of those begins that qemu-img looks at one by one, on its way to the
    /// layer that a run comes from.
    fn last_cluster(&self, kind: &RunKind<'_>) -> u64 {
        let depth = self.depth(kind);
        let upper = self.layers.iter().take(depth.saturating_add(1));
        let starts = upper.filter_map(|layer| match layer.told {
            Told::Clusters(bytes) => {
                let clusters = self.size.checked_div(bytes)?;
                let whole = self.size.is_multiple_of(bytes);
                Some(clusters.saturating_sub(u64::from(whole)).saturating_mul(bytes))
            }
            _ => None,
        });
        starts.max().unwrap_or(0)
    }

    /// The layer that a run comes from; the lowest where none has it.
    fn depth(&self, kind: &RunKind<'_>) -> usize {
        let of = |image: &dyn BlockImage| {
            self.layers.iter().position(|layer| std::ptr::addr_eq(layer.image, image))
        };
        let depth = match *kind {
            RunKind::Data { image, .. } => of(image),
            RunKind::Encoded(encoded) => of(encoded.image),
            RunKind::Zero { depth, .. } => depth,
            RunKind::Shared | RunKind::Opaque => Some(0),
        };
        depth.unwrap_or(usize::MAX)
    }
}

fn status(kind: &RunKind<'_>, last: bool) -> Status {
    let (zero, allocated) = match kind {
        RunKind::Zero { depth, .. } => (true, depth.is_some()),
        _ => (false, true),
    };
    let encoded = matches!(kind, RunKind::Encoded(_));
    Status { zero, allocated, encoded, placed: place(kind).is_some(), last }
}

/// Where a run lies in a file, byte for byte.
fn place<'a>(kind: &RunKind<'a>) -> Option<(Option<&'a dyn BlockImage>, FileOffset)> {
    match *kind {
        RunKind::Data { image, at } => Some((Some(image), at)),
        RunKind::Zero { allocation: Some(at), .. } => Some((None, at)),
        _ => None,
    }
}

/// Whether `next`, which follows on `last`, is of the same kind and where `last` ends.
fn continues(last: &Run<'_>, last_start: u64, next: &Run<'_>) -> bool {
    if status(&last.kind, false) != status(&next.kind, false) {
        return false;
    }
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
