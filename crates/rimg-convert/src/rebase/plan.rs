//! Finding what an overlay gets from below, and whether it would get the same from elsewhere.

use crate::error::ConvertError;
use crate::runs::{Chain, Run, RunKind};
use crate::same::SameFiles;
use crate::source::{Source, Walk};
use crate::unit::{Piece, UNIT_PIECES};
use core::ops::Range;
use rimg_core::num::to_u64;
use rimg_core::{BlockImage, Result};

/// About how much is read of each chain for one unit, in bytes.
pub(super) const UNIT_BYTES: usize = 512 << 10;

/// The same guest bytes below the overlay, until now and from now on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) old: Piece<'a>,
    pub(super) new: Piece<'a>,
}

/// Walks the overlay and both chains once, from start to end.
pub(super) struct Planner<'a> {
    overlay: Chain<'a>,
    old: Walk<'a>,
    new: Walk<'a>,
    same: SameFiles<'a>,
    granule: u64,
    at: u64,
    end: u64,
    next_seq: u64,
}

impl<'a> Planner<'a> {
    /// `sources` are the overlay's backing image and `onto`, the one that it gets.
    pub(super) fn new(
        overlay: &'a dyn BlockImage,
        sources: &[Source<'a>; 2],
        onto: Option<&'a dyn BlockImage>,
        granule: u64,
    ) -> Self {
        let [old, new] = sources;
        let old_image = overlay.backing().map(|image| -> &dyn BlockImage { &**image });
        Self {
            overlay: Chain::new(overlay, Some(1)),
            old: old.walk(None),
            new: new.walk(None),
            same: SameFiles::of(old_image.into_iter().chain(onto)),
            granule,
            at: 0,
            end: overlay.size_bytes(),
            next_seq: 0,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.at >= self.end
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Plans the next unit; the guest bytes returned are done with it. The planner is not to be
    /// used after an error.
    pub(super) fn fill(&mut self, pairs: &mut Vec<Pair<'a>>) -> Result<Range<u64>, ConvertError> {
        pairs.clear();
        self.next_seq += 1;
        let start = self.at;
        let mut room = to_u64(UNIT_BYTES);
        while !self.is_finished() && room > 0 && pairs.len() < UNIT_PIECES {
            let at = self.at;
            self.step(pairs, &mut room).map_err(|source| ConvertError::Map { at, source })?;
        }
        Ok(start..self.at)
    }

    fn step(&mut self, pairs: &mut Vec<Pair<'a>>, room: &mut u64) -> Result<()> {
        let run = self.overlay.run_at(self.at, self.end)?;
        // Without a backing image, nobody says anything of what the overlay does not say.
        let from_below = matches!(run.kind, RunKind::Shared | RunKind::Zero { depth: None, .. });
        if !from_below {
            self.at = run.end;
            return Ok(());
        }
        let (old, new) = self.runs_at(self.at, run.end)?;
        let is_same = self.same.holds(&old.kind, &new.kind);
        let both_end = old.end.min(new.end);
        let whole = if both_end >= run.end { run.end } else { both_end - both_end % self.granule };
        if is_same && whole > self.at {
            self.at = whole;
            return Ok(());
        }
        let granule_end = (self.at - self.at % self.granule).saturating_add(self.granule);
        let stop = if whole > self.at {
            let most = self.at.saturating_add(*room);
            whole.min((most - most % self.granule).max(granule_end))
        } else {
            granule_end.min(run.end)
        };
        *room = room.saturating_sub(stop - self.at);
        while self.at < stop {
            let (old, new) = self.runs_at(self.at, stop)?;
            self.take(pairs, old, new);
        }
        Ok(())
    }

    fn runs_at(&mut self, at: u64, end: u64) -> Result<(Run<'a>, Run<'a>)> {
        Ok((self.old.run_at(at, end)?, self.new.run_at(at, end)?))
    }

    fn take(&mut self, pairs: &mut Vec<Pair<'a>>, old: Run<'a>, new: Run<'a>) {
        let end = old.end.min(new.end);
        let len = usize::try_from(end - self.at).unwrap_or(usize::MAX);
        let piece = |run: Run<'a>| Piece { at: self.at, len, origin: run.kind.into() };
        let pair = Pair { old: piece(old), new: piece(new) };
        match pairs.last_mut() {
            Some(last) if last.old.continues_in(&pair.old) && last.new.continues_in(&pair.new) => {
                last.old.len += len;
                last.new.len += len;
            }
            _ => pairs.push(pair),
        }
        self.at = end;
    }
}
