//! Doing to the target what a unit says.

use crate::error::ConvertError;
use crate::rate::Rate;
use crate::stop::Stop;
use crate::unit::{Op, Unit};
use core::ops::Range;
use rimg_core::{CompressedWrite, EncodedCluster, ImageWrite};

/// As much is zeroed in one call, in bytes: a target that has to write its zeroes can be
/// interrupted between two.
const ZEROES_BYTES: u64 = 256 << 20;

/// The target.
pub(crate) struct Target<'a> {
    pub(crate) writer: &'a dyn ImageWrite,
    pub(crate) compressor: Option<&'a dyn CompressedWrite>,
    pub(crate) rate: Rate,
    /// Whether its bytes go through the operating system's cache.
    pub(crate) is_cached: bool,
}

impl Target<'_> {
    /// Does all that the unit says.
    pub(crate) fn place(
        &self,
        unit: &Unit<'_>,
        stop: &Stop<'_, ConvertError>,
    ) -> Result<(), ConvertError> {
        let mut ops = unit.ops.as_slice();
        while let Some((op, rest)) = ops.split_first() {
            if stop.is_cancelled() {
                return Err(ConvertError::Cancelled);
            }
            ops = rest;
            match op {
                Op::Write { at, data } => {
                    let bytes = unit.data.get(data.clone()).unwrap_or_default();
                    self.rate.wait(bytes.len(), || stop.is_cancelled());
                    self.writer.write_at(bytes, *at).map_err(|source| write_error(*at, source))?;
                }
                Op::Zeroes { range } => self.write_zeroes(range.clone(), stop)?,
                Op::Encoded { at, data } => {
                    let more =
                        rest.iter().take_while(|op| matches!(op, Op::Encoded { .. })).count();
                    let (same, others) = rest.split_at(more);
                    ops = others;
                    self.write_encoded(unit, (*at, data), same, stop)?;
                }
            }
        }
        Ok(())
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        stop: &Stop<'_, ConvertError>,
    ) -> Result<(), ConvertError> {
        let mut at = range.start;
        while at < range.end && !stop.is_cancelled() {
            let end = at.saturating_add(ZEROES_BYTES).min(range.end);
            self.writer.write_zeroes_at(at..end).map_err(|source| write_error(at, source))?;
            at = end;
        }
        Ok(())
    }

    fn write_encoded(
        &self,
        unit: &Unit<'_>,
        first: (u64, &Range<usize>),
        more: &[Op],
        stop: &Stop<'_, ConvertError>,
    ) -> Result<(), ConvertError> {
        let bytes = |data: &Range<usize>| unit.data.get(data.clone()).unwrap_or_default();
        let mut clusters = Vec::with_capacity(more.len().saturating_add(1));
        clusters.push(EncodedCluster { at: first.0, bytes: bytes(first.1) });
        clusters.extend(more.iter().filter_map(|op| match op {
            Op::Encoded { at, data } => Some(EncodedCluster { at: *at, bytes: bytes(data) }),
            _ => None,
        }));
        let total = clusters.iter().map(|cluster| cluster.bytes.len()).sum();
        self.rate.wait(total, || stop.is_cancelled());
        let compressor = self.compressor.ok_or(ConvertError::NoCompression)?;
        compressor.write_encoded(&clusters).map_err(|source| write_error(first.0, source))
    }
}

fn write_error(at: u64, source: rimg_core::Error) -> ConvertError {
    ConvertError::Write { at, source }
}
