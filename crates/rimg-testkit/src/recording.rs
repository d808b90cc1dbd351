//! A storage that remembers everything that was done to it, and what a crash could have left.

mod crash;

pub use crash::{CrashState, CrashStates, Fate};

use core::ops::Range;
use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing};
use rimg_storage::MemoryStorage;
use std::io;
use std::sync::{Arc, Mutex};

/// A storage in memory that remembers every change and every sync.
#[derive(Debug, Default)]
pub struct RecordingStorage {
    start: MemoryStorage,
    now: MemoryStorage,
    log: Mutex<Vec<Record>>,
}

/// Something that was done to a [`RecordingStorage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Bytes were written.
    Write {
        /// Where.
        at: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// Zeroes were written.
    Zero {
        /// Where.
        range: Range<u64>,
        /// How.
        how: Zeroing,
    },
    /// Bytes were discarded.
    Discard {
        /// Where.
        range: Range<u64>,
    },
    /// The length was set.
    SetLen {
        /// To so many bytes.
        len: u64,
    },
    /// Everything before became durable.
    Sync,
}

impl RecordingStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A storage that starts with these bytes, which are durable.
    #[must_use]
    pub fn starting_with(start: MemoryStorage) -> Self {
        Self { now: start.clone(), start, log: Mutex::default() }
    }

    /// What was done until now.
    #[must_use]
    pub fn log(&self) -> Vec<Record> {
        self.log.lock().unwrap().clone()
    }

    /// How much was done until now: a place in the log. Everything that is done later gets a place
    /// that is not lower.
    #[must_use]
    pub fn position(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// The bytes as they were after the first `prefix` records.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn state_after(&self, prefix: usize) -> MemoryStorage {
        let state = self.start.clone();
        for record in &self.log.lock().unwrap()[..prefix] {
            record.apply(&state);
        }
        state
    }

    /// The bytes as a crash after the first `prefix` records could have left them: `fate` says for
    /// each record since the last sync, by its place in the log, what became of it.
    ///
    /// # Panics
    /// When there are fewer records.
    #[must_use]
    pub fn crash_state(&self, prefix: usize, fate: impl FnMut(usize) -> Fate) -> MemoryStorage {
        let log = self.log.lock().unwrap();
        let synced = crash::synced(&log[..prefix]);
        let state = self.start.clone();
        for record in &log[..synced] {
            record.apply(&state);
        }
        crash::apply(&state, &log[..prefix], synced, fate);
        state
    }

    /// What crashes could have left, after every prefix of the log: with all records since the
    /// last sync, without them, without one of them (up to 16 in turn), with that one torn, and
    /// with `samples` random subsets that `seed` decides.
    #[must_use]
    pub fn crash_states(&self, samples: usize, seed: u64) -> CrashStates {
        CrashStates::new(self.start.clone(), self.log(), samples, seed)
    }

    /// Does something and remembers it, as one step.
    fn record(&self, record: Record) {
        let mut log = self.log.lock().unwrap();
        record.apply(&self.now);
        log.push(record);
    }
}

impl Record {
    fn apply(&self, state: &MemoryStorage) {
        match self {
            Self::Write { at, bytes } => state.write_all_at(bytes, *at),
            Self::Zero { range, how } => state.write_zeroes_at(range.clone(), *how),
            Self::Discard { range } => state.discard_at(range.clone()),
            Self::SetLen { len } => state.set_len_bytes(*len),
            Self::Sync => Ok(()),
        }
        .unwrap();
    }
}

impl Storage for RecordingStorage {
    fn len_bytes(&self) -> io::Result<u64> {
        self.now.len_bytes()
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.now.read_exact_at(buf, at)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        self.now.run_at(at)
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        Some(self)
    }

    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        self.now.allocated_bytes()
    }
}

impl StorageWrite for RecordingStorage {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.record(Record::Write { at, bytes: buf.into() });
        Ok(())
    }

    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        self.record(Record::Zero { range, how });
        Ok(())
    }

    fn discard_at(&self, range: Range<u64>) -> io::Result<()> {
        self.record(Record::Discard { range });
        Ok(())
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        self.record(Record::SetLen { len });
        Ok(())
    }

    fn is_zero_where_unwritten(&self) -> bool {
        true
    }

    fn sync(&self) -> io::Result<()> {
        self.record(Record::Sync);
        Ok(())
    }
}
