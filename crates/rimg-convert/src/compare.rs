//! Telling whether two images hold the same.

mod plan;
mod status;

use crate::align;
use crate::crew;
use crate::options::threads;
use crate::progress::{Meter, Observer};
use crate::source::{SECTOR_BYTES, Source};
use crate::stop::{Cancelled, Stop, lock};
use crate::unit::{Origin, Piece};
use core::fmt;
use core::num::NonZeroUsize;
use core::ops::Range;
use plan::{Next, Pair, Planner};
use rimg_core::num::to_u64;
use rimg_core::{BlockImage, Error, zeroes};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// How to compare.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CompareOptions {
    /// How many threads work, the calling one included; `None` for one per available core. The
    /// result does not depend on it.
    pub threads: Option<NonZeroUsize>,
    /// Sizes, and what is allocated where, have to agree as well (`-s`).
    pub strict: bool,
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Comparison {
    /// The first difference that counts.
    pub difference: Option<Difference>,
    /// One image is longer, and they do not differ before the other one's end. The rest has to be
    /// zero for them to count as identical.
    pub sizes_differ: bool,
}

/// The first difference of two images. `Display` is in qemu-img's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The sector at this guest offset in bytes differs.
    Content {
        /// The guest offset, a multiple of 512.
        at: u64,
    },
    /// From this guest offset in bytes on, what is allocated, zero or encoded differs (strict).
    Status {
        /// The guest offset.
        at: u64,
    },
    /// One image is longer (strict).
    Size,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content { at } => write!(f, "Content mismatch at offset {at}!"),
            Self::Status { at } => write!(f, "Strict mode: Offset {at} block status mismatch!"),
            Self::Size => f.write_str("Strict mode: Image size mismatch!"),
        }
    }
}

/// One of the two images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first.
    First,
    /// The second.
    Second,
}

/// Why a comparison could not be finished. `Display` never repeats the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// An image does not say what lies there.
    #[error("error while reading block status at offset {at}")]
    Map {
        /// Which image.
        side: Side,
        /// The guest offset in bytes.
        at: u64,
        /// Why.
        source: Error,
    },
    /// An image cannot be read there.
    #[error("error while reading offset {at}")]
    Read {
        /// Which image.
        side: Side,
        /// The guest offset in bytes.
        at: u64,
        /// Why.
        source: Error,
    },
    /// The work was cancelled from outside.
    #[error("interrupted")]
    Cancelled,
}

impl CompareError {
    /// The guest offset in bytes, of what has one.
    #[must_use]
    pub fn at(&self) -> Option<u64> {
        match self {
            Self::Map { at, .. } | Self::Read { at, .. } => Some(*at),
            Self::Cancelled => None,
        }
    }
}

/// Compares what the guest sees of two images, backing images included.
///
/// Sizes count in sectors of 512 bytes. What both know to be zero is not read. The difference is
/// the first one, whatever the number of threads.
///
/// # Errors
/// [`CompareError`]: what cannot be read before a difference is found.
pub fn compare(
    first: &dyn BlockImage,
    second: &dyn BlockImage,
    options: &CompareOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<Comparison, CompareError> {
    let sources = [Source::new(&[first]), Source::new(&[second])];
    let [first_size, second_size] = sources.each_ref().map(|source| {
        let size = source.size_bytes();
        size.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(size)
    });
    let sizes_differ = first_size != second_size;
    if options.strict && sizes_differ {
        return Ok(Comparison { difference: Some(Difference::Size), sizes_differ });
    }
    let size = first_size.max(second_size);
    let engine = Engine {
        planner: Mutex::new(Planner::new([first, second], &sources, size, options.strict)),
        sources: &sources,
        meter: Meter::new(observer, move || size),
        stop: Stop::new(cancel),
    };
    let difference = engine.run(threads(options.threads))?;
    let within_both = match difference {
        Some(Difference::Content { at }) => at < first_size.min(second_size),
        _ => false,
    };
    Ok(Comparison { difference, sizes_differ: sizes_differ && !within_both })
}

/// What ends the work early.
enum End {
    Difference(Difference),
    Error(CompareError),
}

struct Engine<'a> {
    planner: Mutex<Planner<'a>>,
    sources: &'a [Source<'a>; 2],
    meter: Meter<'a>,
    stop: Stop<'a, End>,
}

impl<'a> Engine<'a> {
    fn run(self, threads: usize) -> Result<Option<Difference>, CompareError> {
        crew::run(threads, &|hire| self.work(hire));
        match self.stop.into_outcome() {
            Err(Cancelled) => Err(CompareError::Cancelled),
            Ok(Some(End::Error(error))) => Err(error),
            Ok(Some(End::Difference(difference))) => Ok(Some(difference)),
            Ok(None) => {
                self.meter.finish();
                Ok(None)
            }
        }
    }

    /// What one thread does.
    fn work(&self, hire: &dyn Fn()) {
        let mut pairs = Vec::new();
        let mut buffers = [Vec::new(), Vec::new()];
        while let Some((seq, bytes)) = self.plan(&mut pairs, hire) {
            if let Some(end) = self.first_difference(&pairs, &mut buffers) {
                self.stop.fail(seq, end);
                return;
            }
            self.meter.add(bytes);
        }
    }

    /// Draws the next unit: its number and how many guest bytes are done with it.
    fn plan(&self, pairs: &mut Vec<Pair<'a>>, hire: &dyn Fn()) -> Option<(u64, u64)> {
        let mut planner = lock(&self.planner);
        if self.stop.is_requested() {
            return None;
        }
        match planner.fill(pairs) {
            Next::Unit { seq, bytes } => {
                if !planner.is_finished() {
                    drop(planner);
                    hire();
                }
                Some((seq, bytes))
            }
            Next::End { seq, end } => {
                self.stop.fail(seq, end);
                None
            }
            Next::Nothing => None,
        }
    }

    fn first_difference(&self, pairs: &[Pair<'_>], buffers: &mut [Vec<u8>; 2]) -> Option<End> {
        pairs.iter().find_map(|pair| match self.compare_pair(pair, buffers) {
            Ok(None) => None,
            Ok(Some(at)) => Some(End::Difference(Difference::Content { at })),
            Err(error) => Some(End::Error(error)),
        })
    }

    /// The guest offset of the first sector in which a pair differs.
    fn compare_pair(
        &self,
        pair: &Pair<'_>,
        [first, second]: &mut [Vec<u8>; 2],
    ) -> Result<Option<u64>, CompareError> {
        let first = self.load(Side::First, &pair.first, first)?;
        let second = self.load(Side::Second, &pair.second, second)?;
        let differs = match (first, second) {
            (None, None) => None,
            (Some(bytes), None) | (None, Some(bytes)) => first_byte(bytes.len(), |range| {
                bytes.get(range).is_some_and(|bytes| !zeroes::is_zero(bytes))
            }),
            (Some(first), Some(second)) => {
                first_byte(first.len(), |range| first.get(range.clone()) != second.get(range))
            }
        };
        Ok(differs.map(|offset| {
            let at = pair.first.at.saturating_add(to_u64(offset));
            at - at % SECTOR_BYTES
        }))
    }

    /// The bytes of a piece, `None` for zeroes.
    fn load<'b>(
        &self,
        side: Side,
        piece: &Piece<'_>,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Option<&'b [u8]>, CompareError> {
        if matches!(piece.origin, Origin::Fill) {
            return Ok(None);
        }
        let start = align::make_room(buffer, piece.len);
        let bytes = buffer.get_mut(start..start + piece.len).unwrap_or_default();
        let [first, second] = self.sources;
        let source = if side == Side::First { first } else { second };
        source.read_piece(piece, bytes).map_err(|source| CompareError::Read {
            side,
            at: piece.at,
            source,
        })?;
        Ok(Some(bytes))
    }
}

/// The first of `len` bytes that `differs`, which is asked about ranges.
fn first_byte(len: usize, differs: impl Fn(Range<usize>) -> bool) -> Option<usize> {
    let mut range = 0..len;
    for step in [64 << 10, 512, 1] {
        let end = range.end;
        range = range
            .step_by(step)
            .map(|start| start..end.min(start.saturating_add(step)))
            .find(|range| differs(range.clone()))?;
    }
    Some(range.start)
}
