//! A storage that counts what is done to it.

use super::{Hook, Hooked, Operation, OperationKind};
use core::ops::Range;
use rimg_core::Storage;
use std::io;
use std::sync::{Arc, Mutex};

/// A storage that counts what is done to it, and remembers what was read.
pub type CountingStorage = Hooked<Counter>;

/// The hook of a [`CountingStorage`].
#[derive(Debug, Default)]
pub struct Counter(Mutex<Counts>);

/// How often things were done, and to how many bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Which bytes were read, in the order of the reads.
    pub read_ranges: Vec<Range<u64>>,
    /// Questions for runs.
    pub runs: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Writes of zeroes.
    pub zeroes: u64,
    /// Bytes of zeroes.
    pub zeroed_bytes: u64,
    /// Discards.
    pub discards: u64,
    /// Changes of the length.
    pub set_lens: u64,
    /// Syncs.
    pub syncs: u64,
}

impl Counts {
    /// Whether a byte of `range` was read.
    #[must_use]
    pub fn has_read(&self, range: &Range<u64>) -> bool {
        self.read_ranges.iter().any(|read| read.start < range.end && range.start < read.end)
    }
}

impl CountingStorage {
    /// Counts what is done to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self::with_hook(inner, Counter::default())
    }

    /// What was done since the beginning, or since the counts were last taken.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.hook().0.lock().unwrap().clone()
    }

    /// As [`counts`](Self::counts), and begins again from 0.
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.hook().0.lock().unwrap())
    }
}

impl Hook for Counter {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        let mut counts = self.0.lock().unwrap();
        let len = operation.range.end.saturating_sub(operation.range.start);
        match operation.kind {
            OperationKind::Len => {}
            OperationKind::Read => {
                counts.reads += 1;
                counts.read_bytes += len;
                counts.read_ranges.push(operation.range.clone());
            }
            OperationKind::Run => counts.runs += 1,
            OperationKind::Write => {
                counts.writes += 1;
                counts.written_bytes += len;
            }
            OperationKind::Zero => {
                counts.zeroes += 1;
                counts.zeroed_bytes += len;
            }
            OperationKind::Discard => counts.discards += 1,
            OperationKind::SetLen => counts.set_lens += 1,
            OperationKind::Sync => counts.syncs += 1,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_storage::MemoryStorage;

    #[test]
    fn reads_and_writes_are_counted() {
        let storage = CountingStorage::new(Arc::new(MemoryStorage::with_len(100)));
        storage.read_exact_at(&mut [0; 10], 20).unwrap();
        storage.writer().unwrap().write_all_at(b"abc", 0).unwrap();
        let counts = storage.take_counts();
        assert_eq!((counts.reads, counts.read_bytes), (1, 10));
        assert_eq!((counts.writes, counts.written_bytes), (1, 3));
        assert!(counts.has_read(&(29..40)) && !counts.has_read(&(30..40)));
        assert_eq!(storage.counts(), Counts::default());
    }
}
