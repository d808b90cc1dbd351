//! What a thread does to a unit: read, tell zeroes from data, encode.

use crate::align;
use crate::error::ConvertError;
use crate::offload::Offload;
use crate::plan::{Geometry, push_zeroes};
use crate::progress::Warning;
use crate::recode::{Coding, Recoder, push_write};
use crate::salvage;
use crate::source::Source;
use crate::unit::{Piece, Unit};
use rimg_core::num::to_u64;
use rimg_core::zeroes;

/// What all workers know.
pub(crate) struct Task<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) geometry: Geometry,
    /// Whether zeroes are looked for in data.
    pub(crate) detect: bool,
    pub(crate) salvage: bool,
    /// How the kernel moves data by itself, if it is to.
    pub(crate) offload: Option<Offload<'a>>,
    /// How the target encodes, if it is to.
    pub(crate) coding: Option<Coding>,
}

impl Task<'_> {
    /// Whether the target is given the encoded bytes of `piece` as they are.
    pub(crate) fn passes(&self, piece: &Piece<'_>) -> bool {
        // Salvaging reads sector by sector what does not decode.
        !self.salvage
            && self
                .coding
                .zip(piece.encoded())
                .is_some_and(|(coding, encoded)| coding.takes(piece, &encoded))
    }

    /// Fills `buf` with the bytes of `piece`.
    pub(crate) fn read(
        &self,
        piece: &Piece<'_>,
        buf: &mut [u8],
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ConvertError> {
        match self.source.read_piece(piece, buf) {
            Ok(()) => Ok(()),
            Err(_) if self.salvage => {
                salvage::read_at(self.source, buf, piece.at, warnings);
                Ok(())
            }
            Err(source) => Err(ConvertError::Read { at: piece.at, source }),
        }
    }

    /// The runs of zeroes and of data in `bytes`, which come from `at`.
    pub(crate) fn runs<'b>(
        &self,
        bytes: &'b [u8],
        at: u64,
    ) -> impl Iterator<Item = (&'b [u8], bool)> + use<'b> {
        let granule = self.geometry.granule;
        let detect = self.detect;
        let mut rest = bytes;
        let mut at = at;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            // Pieces are counted from the start of the disk, wherever the bytes begin.
            let ahead = usize::try_from(granule - at % granule).unwrap_or(usize::MAX);
            let (len, zero) = if !detect {
                (rest.len(), false)
            } else if at.is_multiple_of(granule) {
                zeroes::run(rest, usize::try_from(granule).unwrap_or(usize::MAX))
            } else {
                let len = ahead.min(rest.len());
                (len, rest.get(..len).is_some_and(zeroes::is_zero))
            };
            let (run, later) = rest.split_at(len);
            rest = later;
            at = at.saturating_add(to_u64(len));
            Some((run, zero))
        })
    }
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
        let Some(coding) = self.task.coding else { return self.copy(unit) };
        let recoder = match &mut self.recoder {
            Some(recoder) => recoder,
            none => none.insert(
                Recoder::new(coding)
                    .map_err(|source| ConvertError::Target { doing: "encoding for", source })?,
            ),
        };
        recoder.process(self.task, unit)
    }

    fn copy(&self, unit: &mut Unit<'_>) -> Result<(), ConvertError> {
        let Unit { pieces, data, ops, warnings, .. } = unit;
        let mut used = align::make_room(data, self.task.geometry.unit_bytes);
        let mut pieces = pieces.as_slice();
        while let Some((first, rest)) = pieces.split_first() {
            if self.task.offload.as_ref().is_some_and(|offload| offload.copies(first)) {
                pieces = rest;
                continue;
            }
            let start = used;
            let mut at = first.at;
            while let Some((piece, rest)) = pieces.split_first().filter(|(next, _)| next.at == at) {
                let end = used + piece.len;
                self.task.read(piece, data.get_mut(used..end).unwrap_or_default(), warnings)?;
                used = end;
                at = piece.end();
                pieces = rest;
            }
            let mut at = first.at;
            let mut run_start = start;
            for (run, zero) in self.task.runs(data.get(start..used).unwrap_or_default(), at) {
                let end = at.saturating_add(to_u64(run.len()));
                let run_end = run_start + run.len();
                if zero {
                    push_zeroes(ops, at..end, self.task.geometry.zero_from);
                } else {
                    push_write(ops, at, run_start..run_end);
                }
                at = end;
                run_start = run_end;
            }
        }
        Ok(())
    }
}
