//! Walking two images side by side.

use super::status::StatusWalk;
use super::{CompareError, Difference, End, Side};
use crate::runs::{Run, RunKind};
use crate::same::SameFiles;
use crate::source::{Source, Walk};
use crate::unit::{Piece, UNIT_PIECES};
use rimg_core::BlockImage;
use rimg_core::num::to_u64;

/// How much is read of each image for one unit, in bytes: both together stay in a core's cache.
const UNIT_BYTES: u64 = 256 << 10;

/// The same guest bytes in both images, to be read and compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) first: Piece<'a>,
    pub(super) second: Piece<'a>,
}

/// What there is to do next.
pub(super) enum Next {
    /// The pairs, after which so many more guest bytes are done.
    Unit { seq: u64, bytes: u64 },
    /// Nothing, since the comparison ends here.
    End { seq: u64, end: End },
    /// Nothing any more.
    Nothing,
}

/// Walks both images once, from start to end.
pub(super) struct Planner<'a> {
    walks: [Walk<'a>; 2],
    statuses: Option<[StatusWalk<'a>; 2]>,
    /// Two overlays may have their backing image in common.
    same: SameFiles<'a>,
    at: u64,
    end: u64,
    next_seq: u64,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        images: [&'a dyn BlockImage; 2],
        sources: &[Source<'a>; 2],
        end: u64,
        strict: bool,
    ) -> Self {
        let walks = sources.each_ref().map(|source| source.walk(None));
        let statuses = strict.then(|| images.map(StatusWalk::new));
        let same = SameFiles::of(images);
        Self { walks, statuses, same, at: 0, end, next_seq: 0 }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.at >= self.end
    }

    /// Plans the next unit.
    pub(super) fn fill(&mut self, pairs: &mut Vec<Pair<'a>>) -> Next {
        pairs.clear();
        if self.is_finished() {
            return Next::Nothing;
        }
        let start = self.at;
        let mut room = UNIT_BYTES;
        while !self.is_finished() && room > 0 && pairs.len() < UNIT_PIECES {
            if let Err(end) = self.step(pairs, &mut room) {
                if self.at > start {
                    // What comes before is compared first; this will be met again.
                    break;
                }
                return Next::End { seq: self.next_seq, end };
            }
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        Next::Unit { seq, bytes: self.at - start }
    }

    fn step(&mut self, pairs: &mut Vec<Pair<'a>>, room: &mut u64) -> Result<(), End> {
        let mut end = self.end;
        if let Some(statuses) = &mut self.statuses {
            let [first, second] = statuses;
            let first_status = first.at(self.at).map_err(map_error(Side::First, self.at))?;
            let second_status = second.at(self.at).map_err(map_error(Side::Second, self.at))?;
            if first_status.status != second_status.status {
                return Err(End::Difference(Difference::Status { at: self.at }));
            }
            end = end.min(first_status.end).min(second_status.end);
        }
        let [first, second] = &mut self.walks;
        let first = first.run_at(self.at, end).map_err(map_error(Side::First, self.at))?;
        let second = second.run_at(self.at, end).map_err(map_error(Side::Second, self.at))?;
        let end = first.end.min(second.end);
        if self.same.holds(&first.kind, &second.kind) {
            self.at = end;
            return Ok(());
        }
        let mut end_now = end.min(self.at.saturating_add(*room));
        if end_now < end && (is_encoded(&first) || is_encoded(&second)) {
            // A cluster that two units share would be decoded twice.
            if !pairs.is_empty() {
                *room = 0;
                return Ok(());
            }
            end_now = end;
        }
        let len = usize::try_from(end_now - self.at).unwrap_or(usize::MAX);
        let piece = |run: Run<'a>| Piece { at: self.at, len, origin: run.kind.into() };
        let pair = Pair { first: piece(first), second: piece(second) };
        match pairs.last_mut() {
            Some(last)
                if last.first.continues_in(&pair.first)
                    && last.second.continues_in(&pair.second) =>
            {
                last.first.len += len;
                last.second.len += len;
            }
            _ => pairs.push(pair),
        }
        *room = room.saturating_sub(to_u64(len));
        self.at = end_now;
        Ok(())
    }
}

fn is_encoded(run: &Run<'_>) -> bool {
    matches!(run.kind, RunKind::Encoded(_))
}

fn map_error(side: Side, at: u64) -> impl FnOnce(rimg_core::Error) -> End {
    move |source| End::Error(CompareError::Map { side, at, source })
}
