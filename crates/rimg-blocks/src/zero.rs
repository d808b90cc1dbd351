//! Zeroes and discards: by the table alone where it can say so.

use crate::claims::Kind;
use crate::engine::{Blocks, State};
use crate::{BlockMap, Zeroed};
use core::ops::Range;
use rimg_core::{Error, ExtentKind, Result, Zeroing, num};

/// Zeroes that are written because nothing else helps go in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// What is left to do for a piece of a range.
enum Step {
    /// Nothing: so many bytes are done.
    Done(u64),
    /// Zeroes are to be written over so many bytes of data at this place of the file.
    Data { host: u64, len: u64 },
    /// Zeroes are to be written to so many bytes of a block that cannot be written where it is.
    Block { len: u64 },
}

impl<M: BlockMap> Blocks<M> {
    pub(crate) fn zero(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            at = at.saturating_add(self.zero_some(at..range.end)?);
            self.flush_when_much_is_dirty()?;
        }
        Ok(())
    }

    /// Zeroes a part from the start of `range`, and returns its length.
    fn zero_some(&self, range: Range<u64>) -> Result<u64> {
        let mut state = self.lock();
        loop {
            state.refuse_outdated()?;
            if range.end > state.map.size_bytes() {
                return Err(Error::Misuse("zeroes behind the end of the disk"));
            }
            if let Some(len) = self.zero_already(&mut state, &range)? {
                return Ok(len);
            }
            let block = range.start / self.block_bytes;
            let blocks = block..block.saturating_add(1);
            if state.claims.stand_against(&blocks, Kind::Exclusive) {
                state = self.wait(state);
                continue;
            }
            self.begin(&mut state)?;
            return match self.zero_step(&mut state, &range)? {
                Step::Done(len) => Ok(len),
                Step::Data { host, len } => {
                    let claim = state.claims.add(blocks, Kind::Exclusive);
                    drop(state);
                    let result = self.zero_data(host, len);
                    self.give_back(claim);
                    result.map(|()| len)
                }
                Step::Block { len } => {
                    drop(state);
                    let zeroes = vec![0; num::to_usize(len)?];
                    self.write(&zeroes, range.start).map(|()| len)
                }
            };
        }
    }

    /// As [`zero`](Self::zero), by somebody who has claimed all that it touches, and flushes: what
    /// waits in memory is his to bound.
    pub(crate) fn zero_claimed(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let rest = at..range.end;
            let step = {
                let mut state = self.lock();
                match self.zero_already(&mut state, &rest)? {
                    Some(len) => Step::Done(len),
                    None => self.zero_step(&mut state, &rest)?,
                }
            };
            let len = match step {
                Step::Done(len) => len,
                Step::Data { host, len } => self.zero_data(host, len).map(|()| len)?,
                Step::Block { len } => {
                    let zeroes = vec![0; num::to_usize(len)?];
                    self.write_claimed(&zeroes, at).map(|()| len)?
                }
            };
            at = at.saturating_add(len);
        }
        Ok(())
    }

    /// How many bytes from the start of `range` are zeroes already.
    fn zero_already(&self, state: &mut State<M>, range: &Range<u64>) -> Result<Option<u64>> {
        // A run of blocks that have to be zeroed is not looked through for each of them.
        let block = self.range_of(range.start / self.block_bytes, range.end);
        let first = state.map.extent(range.start..block.end)?;
        let is_unmarked =
            matches!(first.kind, ExtentKind::Backing { .. }) && state.map.marks_zeroes();
        if is_unmarked || !self.is_zero(first.kind, range.start) {
            return Ok(None);
        }
        let extent = state.map.extent(range.clone())?;
        // Of a run of what lies below, only what is behind the end of that reads as zeroes.
        Ok(Some(extent.len_bytes.max(1)))
    }

    /// Zeroes the start of `range` by the table, or says how else.
    fn zero_step(&self, state: &mut State<M>, range: &Range<u64>) -> Result<Step> {
        let block = range.start / self.block_bytes;
        let all = self.range_of(block, state.map.size_bytes());
        if range.start <= all.start
            && all.end <= range.end
            && let Zeroed::Done(freed) = state.map.set_zero(block)?
        {
            state.readers.let_go(freed);
            return Ok(Step::Done(all.end.saturating_sub(range.start)));
        }
        let extent = state.map.extent(range.start..range.end.min(all.end))?;
        Ok(match extent.kind {
            ExtentKind::Data(place) if self.cipher.is_none() => {
                Step::Data { host: place.host.0, len: extent.len_bytes }
            }
            _ => Step::Block { len: extent.len_bytes.min(PIECE_BYTES) },
        })
    }

    pub(crate) fn zero_data(&self, host: u64, len: u64) -> Result<()> {
        self.storage_writer()?
            .write_zeroes_at(host..host.saturating_add(len), Zeroing::MayPunch)
            .map_err(Error::io("write zeroes", host))
    }

    /// Lets go of the blocks that lie wholly in `range`, where the format can.
    pub(crate) fn discard(&self, range: Range<u64>) -> Result<()> {
        let size = self.size_bytes();
        let first = range.start.div_ceil(self.block_bytes);
        let end = if range.end == size {
            range.end.div_ceil(self.block_bytes)
        } else {
            range.end / self.block_bytes
        };
        let mut block = first;
        while block < end {
            block = self.discard_some(block..end)?;
            self.flush_when_much_is_dirty()?;
        }
        Ok(())
    }

    /// Discards the first of `blocks`, and returns the next that has to be looked at.
    fn discard_some(&self, blocks: Range<u64>) -> Result<u64> {
        let one = blocks.start..blocks.start.saturating_add(1);
        let mut state = self.lock();
        while state.claims.stand_against(&one, Kind::Exclusive) {
            state = self.wait(state);
        }
        state.refuse_outdated()?;
        let size = state.map.size_bytes();
        let range = self.range_of(blocks.start, size);
        if range.is_empty() {
            return Ok(blocks.end);
        }
        let extent = state.map.extent(range.clone())?;
        if let ExtentKind::Zero { allocation: None } | ExtentKind::Backing { .. } = extent.kind
            && extent.len_bytes >= range.end.saturating_sub(range.start)
        {
            let rest = range.start..self.range_of(blocks.end.saturating_sub(1), size).end;
            let extent = state.map.extent(rest)?;
            let done = range.start.saturating_add(extent.len_bytes) / self.block_bytes;
            return Ok(done.max(one.end));
        }
        self.begin(&mut state)?;
        match state.map.set_zero(blocks.start)? {
            Zeroed::Done(freed) => state.readers.let_go(freed),
            // The block keeps its place, which need not take space.
            Zeroed::Impossible => {
                if let ExtentKind::Data(place) = extent.kind
                    && self.cipher.is_none()
                {
                    let claim = state.claims.add(one.clone(), Kind::Exclusive);
                    drop(state);
                    let len = extent.len_bytes.min(range.end.saturating_sub(range.start));
                    let result = self.zero_data(place.host.0, len);
                    self.give_back(claim);
                    result?;
                }
            }
        }
        Ok(one.end)
    }
}
