//! Which parts of the file hold nothing.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::spec::whole_sectors;
use core::ops::Range;
use std::collections::BTreeMap;

/// Parts between blocks that are large enough for one, and where everything ends.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// What a block takes with its bitmap, in bytes.
    stride: u64,
    /// Starts and ends of free parts, each as large as some blocks.
    free: BTreeMap<u64, u64>,
    end: u64,
}

impl Space {
    pub(super) fn new(stride: u64) -> Self {
        Self { stride, ..Self::default() }
    }

    /// Something ends at `end`.
    pub(super) fn reach(&mut self, end: u64) {
        self.end = self.end.max(whole_sectors(end));
    }

    /// Where everything ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Between two blocks there is nothing that is known. If it is just as large as some blocks, it
    /// is where some were.
    pub(super) fn add_gap(&mut self, gap: Range<u64>) {
        let len = gap.end.saturating_sub(gap.start);
        if len > 0 && len.checked_rem(self.stride) == Some(0) {
            self.free.insert(gap.start, gap.end);
        }
    }

    /// Room for a block: where it starts.
    pub(super) fn take(&mut self) -> u64 {
        if let Some((&start, &end)) = self.free.first_key_value() {
            self.free.remove(&start);
            let behind = start.saturating_add(self.stride);
            if behind < end {
                self.free.insert(behind, end);
            }
            return start;
        }
        self.append(self.stride)
    }

    /// Room at the end, which comes back never.
    pub(super) fn append(&mut self, len_bytes: u64) -> u64 {
        let start = self.end;
        self.end = start.saturating_add(len_bytes);
        start
    }

    /// There is no block at `start` any more.
    pub(super) fn give_back(&mut self, start: u64) {
        let (mut from, mut until) = (start, start.saturating_add(self.stride));
        if let Some((&before, &end)) = self.free.range(..start).next_back()
            && end == start
        {
            self.free.remove(&before);
            from = before;
        }
        if let Some(end) = self.free.remove(&until) {
            until = end;
        }
        if until == self.end {
            self.end = from;
        } else {
            self.free.insert(from, until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIDE: u64 = 1024;

    #[test]
    fn gaps_are_filled_first_and_the_end_follows() {
        let mut space = Space::new(STRIDE);
        space.reach(10_000);
        space.add_gap(2048..4096);
        space.add_gap(5120..5632);
        assert_eq!([space.take(), space.take(), space.take()], [2048, 3072, 10_240]);
        assert_eq!(space.end(), 11_264);
        space.give_back(3072);
        space.give_back(10_240);
        assert_eq!(space.end(), 10_240);
        assert_eq!([space.take(), space.take()], [3072, 10_240]);
    }

    #[test]
    fn neighbours_become_one() {
        let mut space = Space::new(STRIDE);
        space.reach(10 * STRIDE);
        for nth in [5, 7, 6] {
            space.give_back(nth * STRIDE);
        }
        assert_eq!(space.free, BTreeMap::from([(5 * STRIDE, 8 * STRIDE)]));
        space.give_back(9 * STRIDE);
        space.give_back(8 * STRIDE);
        assert_eq!((space.end(), space.free.len()), (5 * STRIDE, 0));
    }
}
