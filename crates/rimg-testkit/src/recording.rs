//! Storages that remember everything that was done to them, and what a crash could have left.

mod crash;

pub use crash::{CrashState, CrashStates, Fate};

use core::ops::Range;
use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing};
use rimg_storage::MemoryStorage;
use std::io;
use std::sync::{Arc, Mutex};

/// A storage in memory that remembers every change and every sync. Storages
/// [`beside`](Self::beside) it share its log, so that there is one order of what was done to all.
#[derive(Debug)]
pub struct RecordingStorage {
    log: Arc<Mutex<Log>>,
    /// Which one of those that share the log.
    file: usize,
    now: MemoryStorage,
}

/// What was done to some storages.
#[derive(Debug)]
struct Log {
    /// What each storage started with.
    starts: Vec<MemoryStorage>,
    entries: Vec<Entry>,
}

/// What was done to one of some storages.
#[derive(Debug, Clone)]
struct Entry {
    file: usize,
    record: Record,
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
    /// Everything that was done to this storage before became durable.
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
        let now = start.clone();
        let log = Log { starts: vec![start], entries: Vec::new() };
        Self { log: Arc::new(Mutex::new(log)), file: 0, now }
    }

    /// Another storage that starts with these bytes, and whose records come into the same log.
    #[must_use]
    pub fn beside(&self, start: MemoryStorage) -> Self {
        let mut log = self.log.lock().unwrap();
        let file = log.starts.len();
        let now = start.clone();
        log.starts.push(start);
        Self { log: Arc::clone(&self.log), file, now }
    }

    /// What was done to this storage until now.
    #[must_use]
    pub fn log(&self) -> Vec<Record> {
        let log = self.log.lock().unwrap();
        log.of_file(self.file).map(|(_, record)| record.clone()).collect()
    }

    /// How much was done until now to all that share the log: a place in it. Everything that is
    /// done later gets a place that is not lower.
    #[must_use]
    pub fn position(&self) -> usize {
        self.log.lock().unwrap().entries.len()
    }

    /// The bytes as they were after the first `prefix` records.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn state_after(&self, prefix: usize) -> MemoryStorage {
        self.crash_state(prefix, |_| Fate::Kept)
    }

    /// The bytes as a crash after the first `prefix` records could have left them: `fate` says for
    /// each record since this storage's last sync, by its place in the log, what became of it.
    ///
    /// # Panics
    /// When there are fewer records.
    #[must_use]
    pub fn crash_state(&self, prefix: usize, mut fate: impl FnMut(usize) -> Fate) -> MemoryStorage {
        let log = self.log.lock().unwrap();
        assert!(prefix <= log.entries.len(), "there are {} records", log.entries.len());
        let records = || log.of_file(self.file).take_while(|(at, _)| *at < prefix);
        let synced = records().filter(|(_, record)| **record == Record::Sync).last();
        let synced = synced.map_or(0, |(at, _)| at + 1);
        let state = log.starts[self.file].clone();
        for (at, record) in records() {
            let fate = if at < synced { Fate::Kept } else { fate(at) };
            crash::apply(&state, record, fate);
        }
        state
    }

    /// What crashes could have left of all storages that share the log, after every prefix of it:
    /// with all records that no sync made durable, without them, without one of them (up to 16 in
    /// turn), with that one torn, and with `samples` random subsets that `seed` decides.
    #[must_use]
    pub fn crash_states(&self, samples: usize, seed: u64) -> CrashStates {
        let log = self.log.lock().unwrap();
        CrashStates::new(log.starts.clone(), log.entries.clone(), samples, seed)
    }

    /// Does something and remembers it, as one step.
    fn record(&self, record: Record) {
        let mut log = self.log.lock().unwrap();
        record.apply(&self.now);
        log.entries.push(Entry { file: self.file, record });
    }
}

impl Default for RecordingStorage {
    fn default() -> Self {
        Self::starting_with(MemoryStorage::new())
    }
}

impl Log {
    /// What was done to one of the storages, with the places in the log.
    fn of_file(&self, file: usize) -> impl Iterator<Item = (usize, &Record)> {
        let entries = self.entries.iter().enumerate().filter(move |(_, entry)| entry.file == file);
        entries.map(|(at, entry)| (at, &entry.record))
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
