//! What a crash leaves: everything up to the last sync, and any part of what came later.

use super::{Entry, Record};
use crate::Rng;
use rimg_core::{StorageWrite, num};
use rimg_storage::MemoryStorage;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a disk writes whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// How many records of a prefix are lost alone, at most.
const MAX_SINGLES: usize = 16;

/// What became of a record that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// It reached the disk.
    Kept,
    /// It did not.
    Lost,
    /// Of a write only some sectors of 512 bytes reached the disk, which the seed decides, though
    /// the length grew as it should; other records are kept.
    Torn(u64),
}

/// What a crash could have left.
#[derive(Debug, Clone)]
pub struct CrashState {
    /// How many records there were when the crash came.
    pub prefix: usize,
    /// How many of them were durable for sure: up to the first that no sync covers.
    pub synced: usize,
    /// What became of those from `synced` to `prefix`. Those of a file that was synced since are
    /// kept.
    pub fates: Vec<Fate>,
    /// The bytes; of the first one where several storages share the log.
    pub storage: Arc<MemoryStorage>,
    /// The bytes of the others, in the order in which they came.
    pub beside: Vec<Arc<MemoryStorage>>,
}

/// All the states of [`crash_states`](super::RecordingStorage::crash_states), prefix by prefix.
#[derive(Debug)]
pub struct CrashStates {
    entries: Vec<Entry>,
    samples: usize,
    rng: Rng,
    /// Of each file the bytes that are durable.
    durable: Vec<MemoryStorage>,
    prefix: usize,
    /// The places of the records before `prefix` that no sync covers.
    unsynced: Vec<usize>,
    /// What is to be tried with this prefix, last one first: a fate for each unsynced record.
    pending: Vec<Vec<Fate>>,
}

impl CrashStates {
    pub(super) fn new(
        starts: Vec<MemoryStorage>,
        entries: Vec<Entry>,
        samples: usize,
        seed: u64,
    ) -> Self {
        let rng = Rng::new(seed);
        let pending = vec![Vec::new()];
        let unsynced = Vec::new();
        Self { entries, samples, rng, durable: starts, prefix: 0, unsynced, pending }
    }

    /// Goes to the next prefix; `None` when that was the last.
    fn advance(&mut self) -> Option<()> {
        let Entry { file, record } = self.entries.get(self.prefix)?;
        if *record == Record::Sync {
            let durable = &self.durable[*file];
            self.unsynced.retain(|at| {
                let entry = &self.entries[*at];
                if entry.file == *file {
                    entry.record.apply(durable);
                }
                entry.file != *file
            });
        } else {
            self.unsynced.push(self.prefix);
        }
        self.prefix += 1;
        self.pending = self.combinations();
        Some(())
    }

    /// What may have become of the records that no sync covers.
    fn combinations(&mut self) -> Vec<Vec<Fate>> {
        let len = self.unsynced.len();
        let mut all = BTreeSet::from([vec![Fate::Kept; len], vec![Fate::Lost; len]]);
        for at in self.singles(len) {
            let mut fates = vec![Fate::Kept; len];
            fates[at] = Fate::Lost;
            all.insert(fates.clone());
            if matches!(self.entries[self.unsynced[at]].record, Record::Write { .. }) {
                fates[at] = Fate::Torn(self.rng.next_u64());
                all.insert(fates);
            }
        }
        if len > 1 {
            for _ in 0..self.samples {
                // Some crashes keep most records, some lose most.
                let lose_of_8 = 1 + self.rng.below(7);
                let rng = &mut self.rng;
                let fate = || match rng.below(8) {
                    n if n >= lose_of_8 => Fate::Kept,
                    0 => Fate::Torn(rng.next_u64()),
                    _ => Fate::Lost,
                };
                all.insert(std::iter::repeat_with(fate).take(len).collect());
            }
            all.extend(self.without_a_file());
        }
        all.into_iter().collect()
    }

    /// Each of several files loses everything while the others keep it.
    fn without_a_file(&self) -> impl Iterator<Item = Vec<Fate>> {
        let files = if self.durable.len() > 1 { 0..self.durable.len() } else { 0..0 };
        files.map(|file| {
            let fate = |at: &usize| match self.entries[*at].file == file {
                true => Fate::Lost,
                false => Fate::Kept,
            };
            self.unsynced.iter().map(fate).collect()
        })
    }

    /// Which of `len` records are lost alone: the newest ones, and some of those that earlier
    /// prefixes tried with fewer others behind them.
    fn singles(&mut self, len: usize) -> BTreeSet<usize> {
        let newest = len.saturating_sub(MAX_SINGLES / 2)..len;
        let older = newest.start;
        let some = if older == 0 { 0 } else { MAX_SINGLES / 2 };
        let draw = || usize::try_from(self.rng.below(num::to_u64(older))).unwrap();
        newest.chain(std::iter::repeat_with(draw).take(some)).collect()
    }
}

impl CrashStates {
    /// What the files are with these fates of the unsynced records.
    fn state(&self, unsynced_fates: Vec<Fate>) -> Option<CrashState> {
        let files = self.durable.clone();
        let synced = self.unsynced.first().copied().unwrap_or(self.prefix);
        let mut fates = vec![Fate::Kept; self.prefix - synced];
        for (at, fate) in self.unsynced.iter().zip(unsynced_fates) {
            let Entry { file, record } = &self.entries[*at];
            apply(&files[*file], record, fate);
            fates[*at - synced] = fate;
        }
        let mut files = files.into_iter().map(Arc::new);
        let storage = files.next()?;
        Some(CrashState { prefix: self.prefix, synced, fates, storage, beside: files.collect() })
    }
}

impl Iterator for CrashStates {
    type Item = CrashState;

    fn next(&mut self) -> Option<CrashState> {
        self.nth(0)
    }

    /// What is passed over, as by [`Iterator::step_by`], costs next to nothing.
    fn nth(&mut self, mut n: usize) -> Option<CrashState> {
        while self.pending.len() <= n {
            n -= self.pending.len();
            self.advance()?;
        }
        self.pending.truncate(self.pending.len() - n);
        let fates = self.pending.pop()?;
        self.state(fates)
    }
}

/// Does to `state` what is left of a record.
pub(super) fn apply(state: &MemoryStorage, record: &Record, fate: Fate) {
    match (fate, record) {
        (Fate::Lost, _) => {}
        (Fate::Torn(seed), Record::Write { at, bytes }) => tear(state, *at, bytes, seed),
        (Fate::Kept | Fate::Torn(_), record) => record.apply(state),
    }
}

/// Writes some of the sectors.
fn tear(state: &MemoryStorage, at: u64, bytes: &[u8], seed: u64) {
    let mut rng = Rng::new(seed);
    let end = at + num::to_u64(bytes.len());
    // An empty range at the end would not make it longer.
    if rimg_core::Storage::len_bytes(state).unwrap() < end {
        state.set_len_bytes(end).unwrap();
    }
    let mut place = at;
    let mut rest = bytes;
    while !rest.is_empty() {
        // Sectors are the disk's, not the write's.
        let into_sector = usize::try_from(place % num::to_u64(SECTOR_BYTES)).unwrap();
        let (sector, after) = rest.split_at((SECTOR_BYTES - into_sector).min(rest.len()));
        if rng.one_in(2) {
            state.write_all_at(sector, place).unwrap();
        }
        place += num::to_u64(sector.len());
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::super::RecordingStorage;
    use super::*;

    fn bytes(state: &MemoryStorage) -> Vec<u8> {
        state.to_vec().unwrap()
    }

    fn recorded() -> RecordingStorage {
        let storage = RecordingStorage::starting_with(MemoryStorage::from(vec![b'-'; 6]));
        storage.write_all_at(b"aa", 0).unwrap();
        storage.sync().unwrap();
        storage.write_all_at(b"bb", 2).unwrap();
        storage.write_all_at(b"cc", 4).unwrap();
        storage.write_all_at(b"dd", 6).unwrap();
        storage
    }

    #[test]
    fn the_state_after_any_prefix_can_be_had() {
        let storage = recorded();
        assert_eq!(bytes(&storage.state_after(0)), b"------");
        assert_eq!(bytes(&storage.state_after(3)), b"aabb--");
        assert_eq!(bytes(&storage.state_after(storage.position())), b"aabbccdd");
    }

    #[test]
    fn only_what_was_not_synced_is_lost() {
        let storage = recorded();
        assert_eq!(bytes(&storage.crash_state(1, |_| Fate::Lost)), b"------");
        assert_eq!(bytes(&storage.crash_state(5, |_| Fate::Lost)), b"aa----");
        let middle = |at| if at == 3 { Fate::Lost } else { Fate::Kept };
        assert_eq!(bytes(&storage.crash_state(5, middle)), b"aabb--dd");
    }

    #[test]
    fn a_sync_makes_only_its_own_file_durable() {
        let first = RecordingStorage::starting_with(MemoryStorage::from(vec![b'-'; 2]));
        let second = first.beside(MemoryStorage::from(vec![b'-'; 2]));
        first.write_all_at(b"a", 0).unwrap();
        second.write_all_at(b"b", 0).unwrap();
        second.sync().unwrap();
        first.write_all_at(b"c", 1).unwrap();
        assert_eq!((first.position(), second.position()), (4, 4));
        assert_eq!(second.log().last(), Some(&Record::Sync));
        let mut seen = BTreeSet::new();
        for state in first.crash_states(200, 1) {
            let files = (bytes(&state.storage), bytes(&state.beside[0]));
            assert_eq!(state.synced, 0, "the first file is never synced");
            assert_eq!(state.fates.len(), state.prefix);
            if state.prefix >= 3 {
                assert_eq!(files.1, b"b-", "what was synced is there");
            }
            seen.insert((state.prefix, files));
        }
        let after = |prefix, first: &str, second: &str| {
            (prefix, (first.as_bytes().to_vec(), second.as_bytes().to_vec()))
        };
        for (first, second) in [("--", "--"), ("a-", "--"), ("--", "b-"), ("a-", "b-")] {
            assert!(seen.contains(&after(2, first, second)), "{first} {second}");
        }
        for first in ["--", "a-", "-c", "ac"] {
            assert!(seen.contains(&after(4, first, "b-")), "{first}");
        }
        assert_eq!(bytes(&first.crash_state(4, |_| Fate::Lost)), b"--");
        assert_eq!(bytes(&second.crash_state(4, |_| Fate::Lost)), b"b-");
        assert_eq!(bytes(&first.state_after(3)), b"a-");
    }

    #[test]
    fn what_two_files_have_durable_is_what_comes_before_the_first_loss() {
        let first = RecordingStorage::new();
        let second = first.beside(MemoryStorage::new());
        first.write_all_at(b"a", 0).unwrap();
        second.write_all_at(b"b", 0).unwrap();
        first.sync().unwrap();
        first.write_all_at(b"c", 1).unwrap();
        second.sync().unwrap();
        first.sync().unwrap();
        let synced = |prefix| first.crash_states(0, 1).find(|s| s.prefix == prefix).unwrap().synced;
        assert_eq!([1, 2, 3, 4, 5, 6].map(synced), [0, 0, 1, 1, 3, 6]);
    }

    #[test]
    fn every_subset_of_few_writes_comes_up() {
        let storage = recorded();
        let mut seen = BTreeSet::new();
        for state in storage.crash_states(200, 1) {
            assert_eq!(state.synced, if state.prefix < 2 { 0 } else { 2 });
            assert_eq!(state.fates.len(), state.prefix - state.synced);
            if state.synced > 0 {
                assert_eq!(&bytes(&state.storage)[..2], b"aa", "what was synced is there");
            }
            seen.insert(bytes(&state.storage));
        }
        for b in ["bb", "--"] {
            for c in ["cc", "--"] {
                for d in ["dd", "\0\0", ""] {
                    let wanted = format!("aa{b}{c}{d}");
                    assert!(seen.contains(wanted.as_bytes()), "{wanted:?} of {seen:?}");
                }
            }
        }
    }

    #[test]
    fn many_writes_without_a_sync_do_not_make_the_states_explode() {
        let storage = RecordingStorage::new();
        for at in 0..60 {
            storage.write_all_at(b"x", at).unwrap();
        }
        let states = storage.crash_states(4, 1).count();
        assert!((60..60 * (2 * MAX_SINGLES + 4 + 2)).contains(&states), "{states}");
    }

    #[test]
    fn a_seed_decides_the_states() {
        let list = |seed| -> Vec<_> {
            recorded().crash_states(20, seed).map(|state| bytes(&state.storage)).collect()
        };
        assert_eq!(list(3), list(3));
    }

    #[test]
    fn states_can_be_passed_over() {
        let all: Vec<_> = recorded().crash_states(5, 1).map(|s| (s.prefix, s.fates)).collect();
        for step in [1, 2, 7, all.len() - 1, all.len() + 9] {
            let some = recorded().crash_states(5, 1).step_by(step).map(|s| (s.prefix, s.fates));
            assert!(some.eq(all.iter().cloned().step_by(step)), "{step}");
        }
    }

    #[test]
    fn torn_writes_are_made_of_whole_sectors() {
        let storage = RecordingStorage::new();
        storage.write_all_at(&[1; 1800], 100).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let state = bytes(&storage.crash_state(1, |_| Fate::Torn(seed)));
            assert_eq!(state.len(), 1900);
            let sectors: Vec<bool> = state.chunks(512).map(|s| s[s.len() - 1] == 1).collect();
            for (at, byte) in state.iter().enumerate() {
                assert_eq!(*byte == 1, at >= 100 && sectors[at / 512], "byte {at}");
            }
            seen.insert(sectors);
        }
        assert_eq!(seen.len(), 16);
    }
}
