//! Which blocks of the file are in use.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::FORMAT;
use crate::spec::entry;
use rimg_core::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// The blocks of the file by their numbers.
///
/// Each is in use, free, handed out but not in use yet, or let go of: free once the disk and all
/// readers have forgotten it.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    used: BTreeMapRanges,
    /// Free ones before `end`.
    free: BTreeMapRanges,
    let_go: BTreeSet<u32>,
    /// From here on all are free.
    end: u32,
    /// The first that may be handed out.
    from: u32,
}

impl Slots {
    /// With those in use that `used` names in ascending order.
    pub(super) fn with_used(used: impl Iterator<Item = u32>) -> Self {
        let mut slots = Self::default();
        for index in used {
            slots.free.insert_all(slots.end, index);
            slots.used.insert_all(index, index.saturating_add(1));
            slots.end = index.saturating_add(1);
        }
        slots
    }

    /// Hands out the first free one.
    pub(crate) fn take(&mut self) -> Result<u32> {
        if let Some(index) = self.free.first_from(self.from) {
            self.free.remove(index);
            return Ok(index);
        }
        let index = self.end.max(self.from);
        if index >= entry::DISCARDED {
            let feature = "file of more than 2^32 blocks".to_owned();
            return Err(Error::Unsupported { format: FORMAT, feature });
        }
        self.free.insert_all(self.end, index);
        self.end = index.saturating_add(1);
        Ok(index)
    }

    /// One that was handed out is in use.
    pub(crate) fn use_it(&mut self, index: u32) {
        self.used.insert_all(index, index.saturating_add(1));
    }

    /// One that was in use is free as soon as it is [given back](Self::give_back).
    pub(super) fn let_go(&mut self, index: u32) {
        self.used.remove(index);
        self.let_go.insert(index);
    }

    /// One that was handed out, or let go of, is free.
    pub(super) fn give_back(&mut self, index: u32) {
        self.let_go.remove(&index);
        self.free.insert_all(index, index.saturating_add(1));
        if let Some(start) = self.free.start_of_last_at(self.end) {
            self.free.cut(start);
            self.end = start;
        }
    }

    /// One in use is free at once: nobody looks, and the disk does not refer to it.
    pub(crate) fn free_now(&mut self, index: u32) {
        self.let_go(index);
        self.give_back(index);
    }

    /// The first free one that lies before one in use.
    pub(crate) fn first_hole(&self) -> Option<u32> {
        self.free.first_from(0).filter(|index| *index < self.used_end())
    }

    /// Hands out that hole.
    pub(crate) fn take_hole(&mut self, index: u32) {
        self.free.remove(index);
    }

    /// From now on only those from `from` on are handed out.
    pub(super) fn keep_from(&mut self, from: u32) {
        self.from = from;
    }

    /// The first `count` are no blocks any more; the others count from there.
    pub(super) fn take_lowest(&mut self, count: u32) -> Result<()> {
        if self.let_go.first().is_some_and(|index| *index < count) {
            return Err(Error::Misuse("a reader is at work where the block map has to grow"));
        }
        if self.used.first_from(0).is_some_and(|index| index < count) {
            return Err(Error::Misuse("a block is in use where the block map has to grow"));
        }
        self.used.shift_down(count);
        self.free.shift_down(count);
        self.let_go = self.let_go.iter().map(|index| index.saturating_sub(count)).collect();
        self.end = self.end.saturating_sub(count);
        self.from = 0;
        Ok(())
    }

    /// Behind the last one in use.
    pub(super) fn used_end(&self) -> u32 {
        self.used.end()
    }
}

/// Numbers, in ranges that do not touch: start and end.
#[derive(Debug, Default)]
struct BTreeMapRanges(BTreeMap<u32, u32>);

impl BTreeMapRanges {
    /// Adds the numbers from `start` to `end`, none of which is there.
    fn insert_all(&mut self, start: u32, end: u32) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        if let Some((&before, &until)) = self.0.range(..start).next_back()
            && until == start
        {
            start = before;
        }
        if let Some(after) = self.0.remove(&end) {
            end = after;
        }
        self.0.insert(start, end);
    }

    fn remove(&mut self, index: u32) {
        let Some((&start, &end)) = self.0.range(..=index).next_back() else { return };
        if index >= end {
            return;
        }
        self.0.remove(&start);
        if start < index {
            self.0.insert(start, index);
        }
        let behind = index.saturating_add(1);
        if behind < end {
            self.0.insert(behind, end);
        }
    }

    fn first_from(&self, from: u32) -> Option<u32> {
        let around = self.0.range(..=from).next_back().filter(|(_, end)| **end > from);
        around.map(|_| from).or_else(|| self.0.range(from..).next().map(|(start, _)| *start))
    }

    fn end(&self) -> u32 {
        self.0.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// Where the range starts that ends at `end`.
    fn start_of_last_at(&self, end: u32) -> Option<u32> {
        self.0.last_key_value().filter(|(_, last)| **last == end).map(|(start, _)| *start)
    }

    /// Takes the range away that starts at `start`.
    fn cut(&mut self, start: u32) {
        self.0.remove(&start);
    }

    fn shift_down(&mut self, by: u32) {
        let shifted = self.0.iter().filter(|(_, end)| **end > by);
        self.0 = shifted
            .map(|(start, end)| (start.saturating_sub(by), end.saturating_sub(by)))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_first_and_the_end_follows() {
        let mut slots = Slots::with_used([0, 1, 4].into_iter());
        assert_eq!((slots.used_end(), slots.first_hole()), (5, Some(2)));
        assert_eq!(slots.take().unwrap(), 2);
        assert_eq!(slots.take().unwrap(), 3);
        assert_eq!(slots.take().unwrap(), 5);
        assert_eq!(slots.used_end(), 5);
        slots.give_back(5);
        slots.use_it(2);
        slots.use_it(3);
        assert_eq!(slots.first_hole(), None);
        assert_eq!(slots.take().unwrap(), 5);
    }

    #[test]
    fn what_was_let_go_of_waits() {
        let mut slots = Slots::with_used([0, 1].into_iter());
        slots.let_go(0);
        assert_eq!(slots.take().unwrap(), 2);
        slots.give_back(0);
        assert_eq!(slots.take().unwrap(), 0);
    }

    #[test]
    fn the_first_ones_can_be_taken_away() {
        let mut slots = Slots::with_used([0, 1].into_iter());
        slots.keep_from(1);
        assert_eq!(slots.take().unwrap(), 2);
        slots.use_it(2);
        slots.let_go(0);
        assert_eq!(
            slots.take_lowest(1).unwrap_err().to_string(),
            "misuse: a reader is at work where the block map has to grow"
        );
        slots.give_back(0);
        slots.take_lowest(1).unwrap();
        assert_eq!((slots.used_end(), slots.take().unwrap()), (2, 2));
    }

    #[test]
    fn an_image_without_blocks_may_keep_room_for_its_map() {
        let mut slots = Slots::default();
        slots.keep_from(3);
        assert_eq!(slots.take().unwrap(), 3);
        slots.use_it(3);
        slots.take_lowest(3).unwrap();
        assert_eq!((slots.used_end(), slots.take().unwrap()), (1, 1));
    }
}
