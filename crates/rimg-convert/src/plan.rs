//! Cutting the source into units of work.

use crate::error::ConvertError;
use crate::progress::Warning;
use crate::runs::{Run, RunKind};
use crate::salvage;
use crate::source::Walk;
use crate::unit::{Op, Piece, UNIT_PIECES, Unit};
use core::ops::Range;
use rimg_core::num::to_u64;
use std::sync::atomic::{AtomicBool, Ordering};

/// How the target wants to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    /// Zeroes are skipped in pieces of this length and alignment in bytes: never 0.
    pub(crate) granule: u64,
    /// How many bytes of data make a unit: a multiple of `granule`.
    pub(crate) unit_bytes: usize,
    /// Whether what the source knows to be zero is told from data.
    pub(crate) skip_known: bool,
    /// Origin this guest offset on the target reads as zeroes already.
    pub(crate) zero_from: u64,
}

/// Walks the source once, from start to end.
pub(crate) struct Planner<'a> {
    walk: Walk<'a>,
    geometry: Geometry,
    /// Whether what nobody can tell the kind of is taken for data, with a warning.
    salvage: bool,
    at: u64,
    end: u64,
    next_seq: u64,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(walk: Walk<'a>, end: u64, geometry: Geometry, salvage: bool) -> Self {
        Self { walk, geometry, salvage, at: 0, end, next_seq: 0 }
    }

    /// How many bytes all units together hold of data: what takes time. Less where it is cancelled.
    pub(crate) fn data_bytes(
        mut self,
        warn: impl Fn(&Warning),
        cancel: &AtomicBool,
    ) -> Result<u64, ConvertError> {
        let mut unit = Unit::default();
        let mut bytes = 0_u64;
        while !self.is_finished() && !cancel.load(Ordering::Relaxed) {
            self.fill(&mut unit)?;
            unit.warnings.iter().for_each(&warn);
            bytes = bytes.saturating_add(unit.data_bytes());
        }
        Ok(bytes)
    }

    /// Whether there is no more to do.
    pub(crate) fn is_finished(&self) -> bool {
        self.at >= self.end
    }

    /// The number of the next unit.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Plans the next unit. The planner is not to be used after an error.
    pub(crate) fn fill(&mut self, unit: &mut Unit<'a>) -> Result<(), ConvertError> {
        unit.clear();
        unit.seq = self.next_seq;
        self.next_seq += 1;
        let start = self.at;
        let mut room = self.geometry.unit_bytes;
        while !self.is_finished() && room > 0 && unit.pieces.len() < UNIT_PIECES {
            self.step(unit, &mut room)?;
        }
        unit.range = start..self.at;
        Ok(())
    }

    /// Moves on by whole granules: `at` is at the start of one.
    fn step(&mut self, unit: &mut Unit<'a>, room: &mut usize) -> Result<(), ConvertError> {
        let run = self.run_at(self.at, &mut unit.warnings)?;
        let whole = self.granules_end(run.end);
        if whole <= self.at {
            return self.mixed_granule(unit, room, run);
        }
        match run.kind {
            RunKind::Shared => self.at = whole,
            RunKind::Zero { .. } if self.geometry.skip_known => {
                push_zeroes(&mut unit.ops, self.at..whole, self.geometry.zero_from);
                self.at = whole;
            }
            RunKind::Encoded(_)
                if whole.saturating_sub(self.at) > to_u64(*room) && !unit.pieces.is_empty() =>
            {
                // A cluster that two units share would be decoded twice.
                *room = 0;
            }
            kind => self.take(unit, room, kind, whole),
        }
        Ok(())
    }

    /// Takes one granule that holds runs of several kinds, of which `run` is the first, all of it
    /// as data.
    fn mixed_granule(
        &mut self,
        unit: &mut Unit<'a>,
        room: &mut usize,
        run: Run<'a>,
    ) -> Result<(), ConvertError> {
        let mut run = run;
        let end = self.at.saturating_add(self.geometry.granule).min(self.end);
        // All zeroes, though of several kinds, are still zeroes.
        let first = unit.pieces.len();
        let mut data = false;
        loop {
            data |= !matches!(run.kind, RunKind::Zero { .. });
            self.take(unit, room, run.kind, run.end.min(end));
            if self.at >= end {
                break;
            }
            run = self.run_at(self.at, &mut unit.warnings)?;
        }
        if !data && self.geometry.skip_known {
            let start = unit.pieces.get(first).map_or(end, |piece| piece.at);
            for piece in unit.pieces.drain(first..) {
                *room = room.saturating_add(piece.len);
            }
            push_zeroes(&mut unit.ops, start..end, self.geometry.zero_from);
        }
        Ok(())
    }

    /// Takes the bytes up to `end`, or as many as there is room for.
    fn take(&mut self, unit: &mut Unit<'a>, room: &mut usize, kind: RunKind<'a>, end: u64) {
        let len = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(*room);
        let piece = Piece { at: self.at, len, origin: kind.into() };
        match unit.pieces.last_mut() {
            Some(last) if last.continues_in(&piece) => last.len = last.len.saturating_add(len),
            _ => unit.pieces.push(piece),
        }
        *room = room.saturating_sub(len);
        self.at = self.at.saturating_add(to_u64(len));
    }

    fn run_at(&mut self, at: u64, warnings: &mut Vec<Warning>) -> Result<Run<'a>, ConvertError> {
        match self.walk.run_at(at, self.end) {
            Ok(run) => Ok(run),
            Err(error) if self.salvage => Ok(salvage::unknown_at(at, self.end, error, warnings)),
            Err(source) => Err(ConvertError::Map { at, source }),
        }
    }

    /// The end of the last whole granule before `end`, or `end` where the disk ends.
    fn granules_end(&self, end: u64) -> u64 {
        if end >= self.end { self.end } else { end - end % self.geometry.granule }
    }
}

/// Adds what has to be done for `range` to read as zeroes.
pub(crate) fn push_zeroes(ops: &mut Vec<Op>, range: Range<u64>, zero_from: u64) {
    let range = range.start..range.end.min(zero_from);
    if range.is_empty() {
        return;
    }
    match ops.last_mut() {
        Some(Op::Zeroes { range: last }) if last.end == range.start => last.end = range.end,
        _ => ops.push(Op::Zeroes { range }),
    }
}
