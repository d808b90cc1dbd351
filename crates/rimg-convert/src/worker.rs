//! What a thread does to a unit: read, tell zeroes from data, encode.

use crate::chain::Encoded;
use crate::error::ConvertError;
use crate::plan::{Geometry, push_zeroes};
use crate::recode::{Recoder, Target as Coding};
use crate::salvage;
use crate::source::Source;
use crate::unit::{From, Op, Piece, Unit};
use core::ops::Range;
use rimg_core::num::to_u64;
use rimg_core::zeroes;

/// What all workers know.
pub(crate) struct Task<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) geometry: Geometry,
    /// Whether zeroes are looked for in data.
    pub(crate) detect: bool,
    pub(crate) salvage: bool,
    /// How the target encodes, if it is to.
    pub(crate) coding: Option<Coding>,
}

/// One thread's share: its buffers are made when they are first needed.
pub(crate) struct Worker<'a> {
    task: &'a Task<'a>,
    recoder: Option<Recoder>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(task: &'a Task<'a>) -> Self {
        Self { task, recoder: None }
    }

    /// Turns the pieces of a unit into operations.
    pub(crate) fn process(&mut self, unit: &mut Unit<'_>) -> Result<(), ConvertError> {
        if unit.pieces.is_empty() {
            return Ok(());
        }
        // The length never changes: pages are zeroed by the system once, not by us each time.
        unit.data.resize(self.task.geometry.unit_bytes, 0);
        match self.task.coding {
            None => self.copy(unit),
            Some(coding) => self.encode(unit, coding),
        }
    }

    fn copy(&self, unit: &mut Unit<'_>) -> Result<(), ConvertError> {
        let mut used = 0;
        let mut pieces = unit.pieces.as_slice();
        while let Some((span, rest)) = next_span(pieces) {
            pieces = rest;
            let start = used;
            for piece in span {
                let end = used + piece.len;
                let buf = unit.data.get_mut(used..end).unwrap_or_default();
                self.task.read(piece, buf, &mut unit.warnings)?;
                used = end;
            }
            let at = span.first().map_or(0, |piece| piece.at);
            self.task.sort_out(&unit.data, at, start..used, &mut unit.ops);
        }
        Ok(())
    }
}
