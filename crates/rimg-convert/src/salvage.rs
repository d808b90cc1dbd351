//! Reading what can still be read.

use crate::progress::Warning;
use crate::runs::{Run, RunKind};
use crate::source::{SECTOR_BYTES, Source};
use rimg_core::Error;
use rimg_core::num::to_u64;

/// Fills `buf` from `at`; sectors that cannot be read become zeroes, with a warning each.
///
/// Halving what fails finds a few bad sectors in many with few reads.
pub(crate) fn read_at(source: &Source<'_>, buf: &mut [u8], at: u64, warnings: &mut Vec<Warning>) {
    let Err(error) = source.read_at(buf, at) else { return };
    let end = at.saturating_add(to_u64(buf.len()));
    let first_sector_end = at.saturating_add(SECTOR_BYTES - at % SECTOR_BYTES);
    if end <= first_sector_end {
        buf.fill(0);
        warnings.push(Warning::UnreadableSector { at, source: error });
        return;
    }
    let middle = at.saturating_add((end - at) / 2);
    let middle = (middle - middle % SECTOR_BYTES).max(first_sector_end);
    let half = usize::try_from(middle - at).unwrap_or(buf.len()).min(buf.len());
    let (left, right) = buf.split_at_mut(half);
    read_at(source, left, at, warnings);
    read_at(source, right, middle, warnings);
}

/// The sector at `at`, which nobody can tell the kind of: it may still be read.
pub(crate) fn unknown_at<'a>(
    at: u64,
    end: u64,
    error: Error,
    warnings: &mut Vec<Warning>,
) -> Run<'a> {
    warnings.push(Warning::UnknownStatus { at, source: error });
    let next_sector = at.saturating_add(SECTOR_BYTES - at % SECTOR_BYTES);
    Run { end: next_sector.min(end), kind: RunKind::Opaque }
}
