//! When a place that was given back may be used again.

use crate::Freed;
use std::collections::{BTreeMap, VecDeque};

/// Everybody who reads outside the lock, by when he began, and what waits for him.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    epoch: u64,
    active: BTreeMap<u64, usize>,
    /// Let go of by the map in memory; the disk may still refer to it.
    let_go: Vec<Freed>,
    /// The disk does not refer to it any more; readers who began in or before the epoch might.
    waiting: VecDeque<(u64, Freed)>,
}

/// When a reader began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(u64);

impl Readers {
    pub(crate) fn begin(&mut self) -> Epoch {
        let count = self.active.entry(self.epoch).or_default();
        *count = count.saturating_add(1);
        Epoch(self.epoch)
    }

    pub(crate) fn end(&mut self, epoch: Epoch) {
        if let Some(count) = self.active.get_mut(&epoch.0) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.active.remove(&epoch.0);
            }
        }
    }

    /// Whether nobody reads.
    pub(crate) fn are_none(&self) -> bool {
        self.active.is_empty()
    }

    /// Whether places that nothing durable refers to wait for readers.
    pub(crate) fn are_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The map in memory does not refer to it any more.
    pub(crate) fn let_go(&mut self, freed: impl IntoIterator<Item = Freed>) {
        self.let_go.extend(freed);
    }

    /// What a flush that begins now will make free.
    pub(crate) fn take_let_go(&mut self) -> Vec<Freed> {
        std::mem::take(&mut self.let_go)
    }

    /// The flush is done: the disk refers to these no more.
    pub(crate) fn durable(&mut self, freed: Vec<Freed>) {
        let epoch = self.epoch;
        self.epoch = epoch.wrapping_add(1);
        self.waiting.extend(freed.into_iter().map(|freed| (epoch, freed)));
    }

    /// The next place for which nobody has to be waited for any more.
    pub(crate) fn next_free(&mut self) -> Option<Freed> {
        let oldest = self.active.first_key_value().map(|(&epoch, _)| epoch);
        let (epoch, _) = self.waiting.front()?;
        if oldest.is_some_and(|oldest| oldest <= *epoch) {
            return None;
        }
        self.waiting.pop_front().map(|(_, freed)| freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Freed = Freed { host: 512, len_bytes: 512 };

    #[test]
    fn who_began_before_is_waited_for_and_who_came_after_is_not() {
        let mut readers = Readers::default();
        let before = readers.begin();
        readers.let_go([PLACE]);
        let taken = readers.take_let_go();
        let during = readers.begin();
        readers.durable(taken);
        let after = readers.begin();
        assert_eq!(readers.next_free(), None);
        readers.end(before);
        assert_eq!(readers.next_free(), None, "it may have looked before the map let go");
        readers.end(during);
        assert_eq!(readers.next_free(), Some(PLACE));
        readers.end(after);
        assert_eq!(readers.next_free(), None);
    }
}
