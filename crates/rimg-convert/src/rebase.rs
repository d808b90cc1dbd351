//! Putting an overlay onto another image.

mod plan;

use crate::align;
use crate::crew;
use crate::error::ConvertError;
use crate::options::threads;
use crate::place::Target;
use crate::plan::push_zeroes;
use crate::progress::{Meter, Observer};
use crate::rate::Rate;
use crate::recode::{Coding, encode_cluster, push_write};
use crate::reorder::{Order, Window};
use crate::source::{SECTOR_BYTES, Source};
use crate::stop::{Cancelled, Stop, lock};
use crate::unit::{Op, Unit};
use core::num::NonZeroUsize;
use plan::{Pair, Planner, UNIT_BYTES};
use rimg_codec::{Encoder, Level};
use rimg_core::num::to_u64;
use rimg_core::{BlockImage, Error, ExtentKind, zeroes};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How to rebase. `Default` is what `qemu-img rebase` does without options.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RebaseOptions {
    /// How many threads work, the calling one included; `None` for one per available core. The
    /// overlay's bytes do not depend on it.
    pub threads: Option<NonZeroUsize>,
    /// Encode what goes into the overlay (`-c`).
    pub compress: bool,
}

/// What an overlay is to lie on.
#[derive(Debug, Clone, Copy)]
pub struct NewBacking<'a> {
    /// The image.
    pub image: &'a dyn BlockImage,
    /// Its name as the overlay will have it: relative to the overlay's own folder.
    pub name: &'a str,
    /// Its format.
    pub format: &'a str,
}

/// What a rebase did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RebaseSummary {
    /// The guest bytes that went into the overlay, because the new backing image has others there.
    pub copied_bytes: u64,
}

/// Makes `overlay` lie on another image, or on none, and show the same as before: what it got from
/// below and will not get any more goes into it. Then it names its new backing image.
///
/// Where the overlay has data, nothing is read. Where both chains get their data from the same
/// place of the same file, nothing is read either. Whenever the work ends early, or what was
/// written since the last flush is lost, the overlay names its old backing image and shows the
/// same bytes.
///
/// # Errors
/// [`ConvertError`]; [`ReadOnly`](ConvertError::ReadOnly), [`NoOverlay`](ConvertError::NoOverlay)
/// and [`NoCompression`](ConvertError::NoCompression) before anything is read.
pub fn rebase(
    overlay: &dyn BlockImage,
    onto: Option<NewBacking<'_>>,
    options: &RebaseOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<RebaseSummary, ConvertError> {
    let writer = overlay.writer().ok_or(ConvertError::ReadOnly)?;
    let names = overlay.overlay().filter(|names| names.can_change_backing());
    let names = names.ok_or(ConvertError::NoOverlay)?;
    let target_error = |source| ConvertError::Target { doing: "encoding for", source };
    let coding = if options.compress {
        let compressor = overlay.compressor().ok_or(ConvertError::NoCompression)?;
        Some(Coding::of(compressor, overlay.size_bytes()).map_err(target_error)?)
    } else {
        None
    };
    let new = onto.map(|onto| onto.image);
    let old = overlay.backing().map(|image| -> &dyn BlockImage { &**image });
    let sources = [source_of(old), source_of(new)];
    let threads = threads(options.threads);
    // What the overlay takes in one piece.
    let granule = match coding {
        Some(coding) => to_u64(coding.cluster_bytes),
        None => overlay.info().ok().and_then(|info| info.granule_bytes()).unwrap_or(SECTOR_BYTES),
    };
    let engine = Engine {
        overlay,
        planner: Mutex::new(Planner::new(overlay, &sources, new, granule)),
        sources: &sources,
        granule,
        coding,
        had_backing: old.is_some(),
        target: Target {
            writer,
            compressor: overlay.compressor().filter(|_| coding.is_some()),
            rate: Rate::new(None),
            is_cached: true,
        },
        window: Window::new(Order::Planned, threads.saturating_add(2)),
        meter: Meter::new(observer, || overlay.size_bytes()),
        stop: Stop::new(cancel),
        copied: AtomicU64::new(0),
    };
    let summary = engine.run(threads)?;
    names.change_backing(onto.map(|onto| onto.name), onto.map(|onto| onto.format)).map_err(
        |source| ConvertError::ChangeBacking {
            name: onto.map_or_else(String::new, |onto| onto.name.to_owned()),
            source,
        },
    )?;
    Ok(summary)
}

/// Zeroes where there is no image.
fn source_of(image: Option<&dyn BlockImage>) -> Source<'_> {
    match image {
        Some(image) => Source::new(&[image]),
        None => Source::new(&[]),
    }
}

struct Engine<'a> {
    overlay: &'a dyn BlockImage,
    planner: Mutex<Planner<'a>>,
    /// What lies below until now, and from now on.
    sources: &'a [Source<'a>; 2],
    /// Differences are looked for in pieces of this length and alignment in bytes.
    granule: u64,
    coding: Option<Coding>,
    /// Whether there was an image below until now.
    had_backing: bool,
    target: Target<'a>,
    window: Window<'a>,
    meter: Meter<'a>,
    stop: Stop<'a, ConvertError>,
    copied: AtomicU64,
}

impl<'a> Engine<'a> {
    fn run(self, threads: usize) -> Result<RebaseSummary, ConvertError> {
        crew::run(threads, &|hire| self.work(hire));
        match self.stop.into_outcome() {
            Err(Cancelled) => return Err(ConvertError::Cancelled),
            Ok(Some(error)) => return Err(error),
            Ok(None) => {}
        }
        self.target
            .writer
            .flush()
            .map_err(|source| ConvertError::Target { doing: "flushing", source })?;
        self.meter.finish();
        Ok(RebaseSummary { copied_bytes: self.copied.into_inner() })
    }

    /// What one thread does.
    fn work(&self, hire: &dyn Fn()) {
        let _alarm = Alarm(self);
        let mut pairs = Vec::new();
        let mut worker = match Worker::new(self.coding, self.had_backing) {
            Ok(worker) => worker,
            Err(source) => {
                self.stop.fail(0, ConvertError::Target { doing: "encoding for", source });
                return;
            }
        };
        while let Some(mut unit) = self.window.acquire(&self.stop) {
            if !self.plan(&mut unit, &mut pairs, hire) {
                self.window.release(unit);
                return;
            }
            if let Err(error) = self.process(&mut worker, &pairs, &mut unit) {
                self.stop.fail(unit.seq, error);
                return;
            }
            self.window.complete(unit, |unit| self.place(unit));
        }
    }

    /// Draws the next unit; `false` when there is none.
    fn plan(&self, unit: &mut Unit<'a>, pairs: &mut Vec<Pair<'a>>, hire: &dyn Fn()) -> bool {
        let mut planner = lock(&self.planner);
        if planner.is_finished() || self.stop.is_requested() {
            return false;
        }
        unit.clear();
        unit.data.clear();
        unit.seq = planner.next_seq();
        match planner.fill(pairs) {
            Ok(range) => unit.range = range,
            Err(error) => {
                self.stop.fail(unit.seq, error);
                return false;
            }
        }
        if !planner.is_finished() {
            drop(planner);
            hire();
        }
        true
    }

    fn process(
        &self,
        worker: &mut Worker,
        pairs: &[Pair<'a>],
        unit: &mut Unit<'a>,
    ) -> Result<(), ConvertError> {
        let mut copied = 0;
        // Pairs next to each other make up whole granules.
        for group in pairs.chunk_by(|a, b| a.old.end() == b.old.at) {
            let Some(first) = group.first() else { continue };
            let len = group.iter().map(|pair| pair.old.len).sum();
            let [old, new] = worker.buffers(len);
            let mut used = 0;
            for pair in group {
                let end = used + pair.old.len;
                let read = |source: &Source<'_>, piece, buffer: &mut [u8]| {
                    let bytes = buffer.get_mut(used..end).unwrap_or_default();
                    source
                        .read_piece(piece, bytes)
                        .map_err(|source| ConvertError::Read { at: pair.old.at, source })
                };
                let [old_source, new_source] = self.sources;
                read(old_source, &pair.old, old)?;
                read(new_source, &pair.new, new)?;
                used = end;
            }
            copied += worker.differences(len, first.old.at, self.granule, unit);
        }
        self.copied.fetch_add(copied, Ordering::Relaxed);
        Ok(())
    }

    fn place(&self, unit: &Unit<'a>) {
        // After a failure only what comes before it may still be placed.
        if self.stop.is_cancelled() || self.stop.failed_before(unit.seq) {
            return;
        }
        let placed = self.target.place(unit, &self.stop);
        if let Err(error) = placed.and_then(|()| self.cover(unit)) {
            self.stop.fail(unit.seq, error);
            return;
        }
        self.meter.add(unit.range.end.saturating_sub(unit.range.start));
    }

    /// Writes those of a unit's zeroes as data of which the overlay says nothing even now: what
    /// lies below it now is zero there, or nothing, but what comes below would show.
    fn cover(&self, unit: &Unit<'a>) -> Result<(), ConvertError> {
        let mut zeroes = Vec::new();
        for op in &unit.ops {
            let Op::Zeroes { range } = op else { continue };
            let mut at = range.start;
            while at < range.end && !self.stop.is_cancelled() {
                let extent = self.overlay.extent_at(at..range.end);
                let extent = extent.map_err(|source| ConvertError::Map { at, source })?;
                let mut len = extent.len_bytes;
                if matches!(extent.kind, ExtentKind::Backing { .. }) {
                    len = len.min(to_u64(UNIT_BYTES));
                    zeroes.resize(usize::try_from(len).unwrap_or(UNIT_BYTES), 0);
                    let written = self.target.writer.write_at(&zeroes, at);
                    written.map_err(|source| ConvertError::Write { at, source })?;
                }
                at = at.saturating_add(len.max(1));
            }
        }
        Ok(())
    }
}

/// Wakes the others when a thread ends, even by a panic.
struct Alarm<'e, 'a>(&'e Engine<'a>);

impl Drop for Alarm<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.halt();
        }
        self.0.window.wake();
    }
}

/// One thread's buffers.
struct Worker {
    old: Vec<u8>,
    new: Vec<u8>,
    encoder: Option<(Coding, Encoder, Vec<u8>)>,
    /// Whether zeroes stay zeroes. What an image below had is data like any other, as QEMU writes
    /// it, unless it is compressed: scripts look at what the map says.
    keeps_zeroes: bool,
}

impl Worker {
    fn new(coding: Option<Coding>, had_backing: bool) -> Result<Self, Error> {
        let keeps_zeroes = coding.is_some() || !had_backing;
        let encoder = match coding {
            None => None,
            Some(coding) => {
                let encoder = Encoder::new(coding.codec, Level::Default).map_err(|error| {
                    Error::Unsupported { format: "target", feature: error.to_string() }
                })?;
                Some((coding, encoder, vec![0; coding.cluster_bytes]))
            }
        };
        Ok(Self { old: Vec::new(), new: Vec::new(), encoder, keeps_zeroes })
    }

    /// `len` bytes of both buffers.
    fn buffers(&mut self, len: usize) -> [&mut [u8]; 2] {
        [&mut self.old, &mut self.new].map(|buffer| {
            let start = align::make_room(buffer, len.max(UNIT_BYTES));
            buffer.get_mut(start..start + len).unwrap_or_default()
        })
    }

    /// Adds what it takes for the first `len` bytes, which come from `at`, to stay the same.
    /// Returns how many of them do not by themselves.
    fn differences(&mut self, len: usize, at: u64, granule: u64, unit: &mut Unit<'_>) -> u64 {
        let (old_bytes, new_bytes) = (behind_first_line(&self.old), behind_first_line(&self.new));
        let mut start = 0;
        let mut copied = 0;
        while start < len {
            let from = at.saturating_add(to_u64(start));
            let ahead = usize::try_from(granule - from % granule).unwrap_or(usize::MAX);
            let end = start.saturating_add(ahead).min(len);
            let old = old_bytes.get(start..end).unwrap_or_default();
            let new = new_bytes.get(start..end).unwrap_or_default();
            start = end;
            if old == new {
                continue;
            }
            copied += to_u64(old.len());
            if self.keeps_zeroes && zeroes::is_zero(old) {
                let to = from.saturating_add(to_u64(old.len()));
                push_zeroes(&mut unit.ops, from..to, u64::MAX);
                continue;
            }
            match &mut self.encoder {
                Some((coding, encoder, scratch)) if from.is_multiple_of(granule) => {
                    encode_cluster(*coding, encoder, scratch, old, from, unit);
                }
                _ => {
                    if unit.data.is_empty() {
                        unit.data.reserve(len.saturating_add(align::LINE_BYTES));
                        unit.data.resize(align::ahead(&unit.data), 0);
                    }
                    let data = unit.data.len();
                    unit.data.extend_from_slice(old);
                    push_write(&mut unit.ops, from, data..unit.data.len());
                }
            }
        }
        copied
    }
}

fn behind_first_line(buffer: &[u8]) -> &[u8] {
    buffer.get(align::ahead(buffer)..).unwrap_or_default()
}
