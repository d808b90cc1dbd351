//! Grain tables in memory: those used last, and all that changed.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use rimg_core::num;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// How much memory tables that did not change take, in bytes: hosted sparse tables of 64 GiB.
const CACHE_BYTES: usize = 4 << 20;

/// Grain tables by number, as they are on disk.
#[derive(Debug, Default)]
pub(crate) struct TableCache {
    tables: HashMap<u64, Vec<u8>>,
    /// In the order in which they came.
    order: VecDeque<u64>,
    dirty: BTreeSet<u64>,
    /// Those that were dirty when they were taken last: what is on disk may be older until the
    /// next time.
    taken: BTreeSet<u64>,
    bytes: usize,
}

impl TableCache {
    pub(crate) fn get(&self, number: u64) -> Option<&[u8]> {
        self.tables.get(&number).map(Vec::as_slice)
    }

    /// Adds a table as it is on disk; others that did not change make room.
    pub(crate) fn insert(&mut self, number: u64, table: Vec<u8>) {
        for _ in 0..self.order.len() {
            if self.bytes.saturating_add(table.len()) <= CACHE_BYTES {
                break;
            }
            let Some(oldest) = self.order.pop_front() else { break };
            if self.dirty.contains(&oldest) || self.taken.contains(&oldest) {
                self.order.push_back(oldest);
            } else if let Some(gone) = self.tables.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(gone.len());
            }
        }
        self.bytes = self.bytes.saturating_add(table.len());
        if let Some(old) = self.tables.insert(number, table) {
            self.bytes = self.bytes.saturating_sub(old.len());
        } else {
            self.order.push_back(number);
        }
    }

    /// Changes a table that is here.
    pub(crate) fn change(&mut self, number: u64, change: impl FnOnce(&mut [u8])) {
        if let Some(table) = self.tables.get_mut(&number) {
            change(table);
            self.dirty.insert(number);
        }
    }

    /// The numbers of the tables that changed, in order. They count as unchanged from now on, but
    /// stay until the next call.
    pub(crate) fn take_dirty(&mut self) -> Vec<u64> {
        self.taken = std::mem::take(&mut self.dirty);
        self.taken.iter().copied().collect()
    }

    /// What was taken last is newer than on disk after all.
    pub(crate) fn taken_again(&mut self) {
        self.dirty.append(&mut self.taken);
    }

    /// Bytes of tables that changed.
    pub(crate) fn dirty_bytes(&self, table_bytes: u64) -> usize {
        self.dirty.len().saturating_mul(num::to_usize(table_bytes).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_stays() {
        let mut cache = TableCache::default();
        cache.insert(0, vec![0; 1 << 20]);
        cache.change(0, |table| table.fill(1));
        for number in 1..10 {
            cache.insert(number, vec![0; 1 << 20]);
        }
        assert_eq!(cache.get(0).map(|table| table.first().copied()), Some(Some(1)));
        assert!(cache.get(1).is_none() && cache.get(9).is_some());
        assert_eq!(cache.dirty_bytes(1 << 20), 1 << 20);
        assert_eq!(cache.take_dirty(), [0]);
        for number in 10..20 {
            cache.insert(number, vec![0; 1 << 20]);
        }
        assert!(cache.get(0).is_some());
        assert_eq!(cache.take_dirty(), [0; 0]);
        for number in 20..30 {
            cache.insert(number, vec![0; 1 << 20]);
        }
        assert!(cache.get(0).is_none());
    }
}
