//! Copying images into another one.

use crate::crew;
use crate::error::ConvertError;
use crate::offload::Offload;
use crate::options::{ConvertOptions, threads};
use crate::place::Target;
use crate::plan::{Geometry, Planner};
use crate::progress::{Meter, Observer, Warning};
use crate::rate::Rate;
use crate::recode::Coding;
use crate::reorder::{Order, Window};
use crate::source::{SECTOR_BYTES, Source};
use crate::stop::{Cancelled, Stop, lock};
use crate::unit::{ENCODED_UNIT_BYTES, UNIT_BYTES, Unit};
use crate::worker::{Task, Worker};
use core::ops::Range;
use rimg_core::num::to_u64;
use rimg_core::{BlockImage, CompressedWrite, ExtentKind, ImageWrite};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

/// The largest zero run that can be asked for, in bytes: qemu-img's bound.
const MAX_SPARSE_BYTES: u32 = 16 << 20;

/// What a conversion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConvertSummary {
    /// The guest bytes of all sources.
    pub guest_bytes: u64,
    /// Encoded clusters that went into the target without being encoded again.
    pub passed_clusters: u64,
    /// Sectors that could not be read and became zeroes.
    pub lost_sectors: u64,
}

/// Copies `sources`, one behind the other, to the start of `target` and flushes it.
///
/// Each source counts in whole sectors of 512 bytes, but for the last where the target ends with
/// it. What the target holds behind the sources stays as it is.
///
/// A `cancel` that turns true ends the work within about one unit of work. After an error the
/// target is incomplete: see [`TargetGuard`](crate::TargetGuard).
///
/// # Errors
/// [`ConvertError`]; no thread is left behind.
pub fn convert(
    sources: &[&dyn BlockImage],
    target: &dyn BlockImage,
    options: &ConvertOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<ConvertSummary, ConvertError> {
    let writer = target.writer().ok_or(ConvertError::ReadOnly)?;
    let part = Part {
        shared_from: options.backing.map(|backing| backing.layers_above),
        zero_from: zero_from(writer, options),
    };
    convert_part(&Source::new(sources), target, part, options, observer, cancel)
}

/// As [`convert`], for the bytes of `range` of one image, as far as it has them.
///
/// # Errors
/// As for [`convert`].
pub fn convert_range(
    source: &dyn BlockImage,
    range: Range<u64>,
    target: &dyn BlockImage,
    options: &ConvertOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<ConvertSummary, ConvertError> {
    if options.compress || options.backing.is_some() {
        return Err(ConvertError::Options("Part of an image is copied as it is"));
    }
    let writer = target.writer().ok_or(ConvertError::ReadOnly)?;
    let part = Part { shared_from: None, zero_from: zero_from(writer, options) };
    convert_part(&Source::range(source, range), target, part, options, observer, cancel)
}

/// Which part of the sources goes into the target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// The first layer of the sources, counted from 0, whose contents the target has already.
    pub(crate) shared_from: Option<usize>,
    /// From this guest offset on the target reads as zeroes, in bytes.
    pub(crate) zero_from: u64,
}

/// As [`convert`], for a part of what the sources show.
pub(crate) fn convert_part(
    source: &Source<'_>,
    target: &dyn BlockImage,
    part: Part,
    options: &ConvertOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<ConvertSummary, ConvertError> {
    let writer = target.writer().ok_or(ConvertError::ReadOnly)?;
    check_sizes(source, target)?;
    check_options(options)?;
    let coding = coding(target, options)?;
    let compressor = target.compressor().filter(|_| coding.is_some());
    let copy_offload = options.copy_offload && coding.is_none() && !writer.places_in_order();
    let task = Task {
        source,
        geometry: geometry(target, part.zero_from, coding, options),
        detect: options.sparse_bytes != 0 && !options.copy_offload,
        salvage: options.salvage,
        offload: if copy_offload { Offload::new(target) } else { None },
        coding,
    };
    if options.target_is_new {
        writer.relax_until_flush();
    }
    let target = Target {
        writer,
        compressor,
        rate: Rate::new(options.bytes_per_second),
        is_cached: target.file(0).is_some_and(|file| file.align_bytes() == 1),
    };
    let engine = Engine::new(&task, target, part, options, observer, cancel);
    engine.run(threads(options.threads))
}

/// What all threads share.
struct Engine<'a> {
    task: &'a Task<'a>,
    target: Target<'a>,
    planner: Mutex<Planner<'a>>,
    window: Window<'a>,
    meter: Meter<'a>,
    observer: &'a dyn Observer,
    stop: Stop<'a, ConvertError>,
    summary: Mutex<ConvertSummary>,
}

impl<'a> Engine<'a> {
    fn new(
        task: &'a Task<'a>,
        target: Target<'a>,
        part: Part,
        options: &ConvertOptions,
        observer: &'a dyn Observer,
        cancel: &'a AtomicBool,
    ) -> Self {
        let size = task.source.size_bytes();
        let planner = move || {
            Planner::new(task.source.walk(part.shared_from), size, task.geometry, task.salvage)
        };
        // Holes take no time; counting them would cost nothing but show little.
        let count =
            move |warn: &dyn Fn(&Warning)| planner().data_bytes(warn, cancel).unwrap_or(size);
        // What nobody can tell the kind of is told before anything is copied, and again on the way.
        let counted = task.salvage.then(|| count(&|warning| observer.warning(warning)));
        let work = move || counted.unwrap_or_else(|| count(&|_| {}));
        let order = order(&target, options);
        let threads = threads(options.threads);
        let units = match options.units_in_flight {
            Some(units) => units.get(),
            None if order == Order::Any => threads,
            // One more than are at work: it waits to be written. More of them only take memory.
            None => threads.saturating_add(1),
        };
        Self {
            task,
            target,
            planner: Mutex::new(planner()),
            window: Window::new(order, units),
            meter: Meter::new(observer, work),
            observer,
            stop: Stop::new(cancel),
            summary: Mutex::new(ConvertSummary { guest_bytes: size, ..ConvertSummary::default() }),
        }
    }

    fn run(self, threads: usize) -> Result<ConvertSummary, ConvertError> {
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
        Ok(self.summary.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// What one thread does.
    fn work(&self, hire: &dyn Fn()) {
        let _alarm = Alarm(self);
        let mut worker = Worker::new(self.task);
        while let Some(mut unit) = self.window.acquire(&self.stop) {
            if !self.plan(&mut unit, hire) {
                self.window.release(unit);
                return;
            }
            if let Err(error) = worker.process(&mut unit) {
                self.stop.fail(unit.seq, error);
                return;
            }
            // What planning and reading found.
            unit.warnings.sort_by_key(Warning::at);
            self.window.complete(unit, |unit| self.place(unit));
        }
    }

    /// Draws the next unit; `false` when there is none.
    fn plan(&self, unit: &mut Unit<'a>, hire: &dyn Fn()) -> bool {
        let mut planner = lock(&self.planner);
        if planner.is_finished() || self.stop.is_requested() {
            return false;
        }
        let seq = planner.next_seq();
        if let Err(error) = planner.fill(unit) {
            self.stop.fail(seq, error);
            return false;
        }
        if !planner.is_finished() {
            drop(planner);
            hire();
        }
        true
    }

    fn place(&self, unit: &Unit<'a>) {
        // After a failure only what comes before it may still be placed.
        if self.stop.is_cancelled() || self.stop.failed_before(unit.seq) {
            return;
        }
        for warning in &unit.warnings {
            self.observer.warning(warning);
        }
        if let Err(error) = self.target.place(unit, &self.stop) {
            self.stop.fail(unit.seq, error);
            return;
        }
        if unit.passed != 0 || !unit.warnings.is_empty() {
            let mut summary = lock(&self.summary);
            summary.passed_clusters += unit.passed;
            let lost = |warning: &&Warning| matches!(warning, Warning::UnreadableSector { .. });
            summary.lost_sectors += to_u64(unit.warnings.iter().filter(lost).count());
        }
        self.meter.add(unit.data_bytes());
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

fn check_sizes(source: &Source<'_>, target: &dyn BlockImage) -> Result<(), ConvertError> {
    let needed = source.size_bytes();
    let size = target.size_bytes();
    if needed > size { Err(ConvertError::TargetTooSmall { needed, size }) } else { Ok(()) }
}

fn check_options(options: &ConvertOptions) -> Result<(), ConvertError> {
    if options.sparse_bytes > MAX_SPARSE_BYTES
        || !u64::from(options.sparse_bytes).is_multiple_of(SECTOR_BYTES)
    {
        return Err(ConvertError::Options(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up \
             to 16777216. Select 0 to disable sparse detection (fully allocates output).",
        ));
    }
    if options.copy_offload && options.compress {
        return Err(ConvertError::Options("Cannot enable copy offloading when -c is used"));
    }
    if options.copy_offload && options.salvage {
        return Err(ConvertError::Options("Cannot use copy offloading in salvaging mode"));
    }
    Ok(())
}

fn coding(
    target: &dyn BlockImage,
    options: &ConvertOptions,
) -> Result<Option<Coding>, ConvertError> {
    let is_required = target.compressor().is_some_and(CompressedWrite::is_required);
    if !options.compress && !is_required {
        return Ok(None);
    }
    let compressor = target.compressor().ok_or(ConvertError::NoCompression)?;
    Coding::of(compressor, target.size_bytes())
        .map(Some)
        .map_err(|source| ConvertError::Target { doing: "encoding for", source })
}

fn order(target: &Target<'_>, options: &ConvertOptions) -> Order {
    // Warnings come in order as well.
    if target.writer.places_in_order() || options.salvage {
        Order::Planned
    } else if target.is_cached {
        Order::OneByOne
    } else {
        Order::Any
    }
}

/// From where on the target reads as zeroes.
fn zero_from(writer: &dyn ImageWrite, options: &ConvertOptions) -> u64 {
    if options.target_is_zero {
        0
    } else if options.target_is_new && writer.is_zero_initialised() {
        options.backing.map_or(0, |backing| backing.size_bytes)
    } else {
        u64::MAX
    }
}

/// Whether the disk has its clusters in their places already.
fn is_preallocated(target: &dyn BlockImage) -> bool {
    let first = target.size_bytes().min(SECTOR_BYTES);
    let extent = (first > 0).then(|| target.extent_at(0..first).ok()).flatten();
    extent.is_some_and(|extent| matches!(extent.kind, ExtentKind::Data(_)))
}

/// How the target is to be written, from what it is and what was asked for.
fn geometry(
    target: &dyn BlockImage,
    zero_from: u64,
    coding: Option<Coding>,
    options: &ConvertOptions,
) -> Geometry {
    let sparse = match coding {
        // An encoded cluster is written or left out, whatever length was asked for.
        Some(_) => SECTOR_BYTES,
        None => u64::from(options.sparse_bytes).clamp(SECTOR_BYTES, to_u64(UNIT_BYTES)),
    };
    let whole = match coding {
        Some(coding) => Some(to_u64(coding.cluster_bytes)),
        // Zeroes in parts of a cluster, or of a subcluster, cost more than they save where they
        // have to be written; and one that has data is whole, as with QEMU, unless that would be a
        // lot. Those that are there beforehand are not.
        None if zero_from == 0 && is_preallocated(target) => None,
        None => {
            let whole = target.info().ok().and_then(|info| info.granule_bytes());
            whole.filter(|whole| zero_from != 0 || *whole < to_u64(UNIT_BYTES))
        }
    };
    let granule = match whole {
        Some(whole) if whole != 0 => sparse.next_multiple_of(whole),
        _ => sparse,
    };
    // Encoding takes long: smaller units keep all threads busy to the end.
    let unit = if coding.is_some() { ENCODED_UNIT_BYTES } else { UNIT_BYTES };
    let unit_bytes = to_u64(unit).max(granule);
    let unit_bytes = unit_bytes - unit_bytes % granule;
    Geometry {
        granule,
        unit_bytes: usize::try_from(unit_bytes).unwrap_or(unit),
        skip_known: options.sparse_bytes != 0 || options.copy_offload,
        zero_from,
    }
}
