//! Tables of 64-bit entries that are too large to be held in memory whole: a cache of pieces.

use crate::Change;
use core::ops::Range;
use rimg_core::{Error, Result, Storage, num};
use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::sync::Arc;

/// The most that is read at a time, in bytes: 512 entries.
const PIECE_BYTES: u64 = 4096;

/// How many pieces stay in memory when there is nothing to be written: 4 MiB.
const PIECES: usize = 1024;

/// Pieces of tables of 64-bit entries, and what of them has to be written.
///
/// Tables have a level, and those of one level are written in one stage: what refers to a table is
/// of another level. Only tables that were [begun](Self::begin_table) may lie behind the end of the
/// file, where they read as zeroes; one that is cut off was lost, and is an error.
#[derive(Debug)]
pub struct TableCache {
    file: Arc<dyn Storage>,
    order: EntryOrder,
    pieces: HashMap<u64, Piece>,
    /// Where tables begin that the file does not have whole yet.
    begun: BTreeSet<u64>,
    /// Counts uses, to know what was not used for long.
    now: u64,
    dirty_bytes: usize,
}

/// The byte order of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryOrder {
    /// The most significant byte first.
    BigEndian,
    /// The least significant byte first.
    LittleEndian,
}

/// A table in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Where it starts, in bytes.
    pub at: u64,
    /// How many entries it has.
    pub entries: u64,
    /// Which of the tables it is one of.
    pub level: u8,
}

#[derive(Debug)]
struct Piece {
    level: u8,
    bytes: Vec<u8>,
    /// What is newer than in the file.
    dirty: Range<usize>,
    /// What was handed out to be written, and may be there or not.
    taken: Range<usize>,
    used_at: u64,
}

impl TableCache {
    /// An empty cache of the tables of `file`.
    pub fn new(file: Arc<dyn Storage>, order: EntryOrder) -> Self {
        let (pieces, begun) = (HashMap::new(), BTreeSet::new());
        Self { file, order, pieces, begun, now: 0, dirty_bytes: 0 }
    }

    /// The entry with this number, less than the table's entries.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a number that it has not; otherwise what the storage says.
    pub fn entry(&mut self, table: &Table, index: u64) -> Result<u64> {
        let mut first = None;
        self.entries(table, index, |entry| {
            first = Some(entry);
            false
        })?;
        first.ok_or(NO_ENTRY)
    }

    /// Shows the entries from `index` on to `each`, for as long as it says so, but at most to the
    /// end of what is read at once. Returns how many it was shown: at least one.
    ///
    /// # Errors
    /// As for [`entry`](Self::entry).
    pub fn entries(
        &mut self,
        table: &Table,
        index: u64,
        mut each: impl FnMut(u64) -> bool,
    ) -> Result<u64> {
        let order = self.order;
        let (piece, within) = self.piece(table, index)?;
        let (entries, _) = piece.bytes.get(within..).unwrap_or_default().as_chunks::<8>();
        let mut shown = 0_u64;
        for entry in entries {
            shown = shown.saturating_add(1);
            if !each(order.decode(*entry)) {
                break;
            }
        }
        if shown == 0 { Err(NO_ENTRY) } else { Ok(shown) }
    }

    /// Sets an entry; it is written when it is [taken](Self::take).
    ///
    /// # Errors
    /// As for [`entry`](Self::entry).
    pub fn set(&mut self, table: &Table, index: u64, entry: u64) -> Result<()> {
        let bytes = self.order.encode(entry);
        let (piece, within) = self.piece(table, index)?;
        let end = within.saturating_add(bytes.len());
        let place = piece.bytes.get_mut(within..end).ok_or(NO_ENTRY)?;
        place.copy_from_slice(&bytes);
        let more = if piece.dirty.is_empty() { piece.bytes.len() } else { 0 };
        piece.dirty = around(&piece.dirty, &(within..end));
        self.dirty_bytes = self.dirty_bytes.saturating_add(more);
        Ok(())
    }

    /// Begins a table of zeroes where the file has only zeroes, or ends before. Its last bytes are
    /// written with it in any case, so that the file reaches to its end.
    ///
    /// # Errors
    /// As for [`entry`](Self::entry).
    pub fn begin_table(&mut self, table: &Table) -> Result<()> {
        self.begun.insert(table.at);
        match table.entries.checked_sub(1) {
            Some(last) => self.set(table, last, 0),
            None => Ok(()),
        }
    }

    /// Forgets a table, and what of it was not written.
    pub fn forget(&mut self, table: &Table) {
        self.begun.remove(&table.at);
        let end = table.at.saturating_add(table.entries.saturating_mul(8));
        let mut at = table.at;
        while at < end {
            if let Some(piece) = self.pieces.remove(&at).filter(|piece| !piece.dirty.is_empty()) {
                self.dirty_bytes = self.dirty_bytes.saturating_sub(piece.bytes.len());
            }
            at = at.saturating_add(PIECE_BYTES);
        }
    }

    /// Forgets all tables, and what of them was not written: the file was changed.
    pub fn forget_all(&mut self) {
        self.pieces.clear();
        self.begun.clear();
        self.dirty_bytes = 0;
    }

    /// What was taken before was written.
    pub fn written(&mut self) {
        for piece in self.pieces.values_mut() {
            piece.taken = 0..0;
        }
    }

    /// Hands out what has to be written of the tables of one level, in the order of the file. It
    /// stays in memory until [`written`](Self::written) or [`write_failed`](Self::write_failed).
    pub fn take(&mut self, level: u8) -> Vec<Change> {
        let mut changes: Vec<(u64, Vec<u8>)> = Vec::new();
        for (&at, piece) in &mut self.pieces {
            if piece.level != level || piece.dirty.is_empty() {
                continue;
            }
            let dirty = core::mem::take(&mut piece.dirty);
            self.dirty_bytes = self.dirty_bytes.saturating_sub(piece.bytes.len());
            let bytes = piece.bytes.get(dirty.clone()).unwrap_or_default().to_vec();
            changes.push((at.saturating_add(num::to_u64(dirty.start)), bytes));
            piece.taken = around(&piece.taken, &dirty);
        }
        changes.sort_unstable_by_key(|(at, _)| *at);
        changes.into_iter().map(|(at, bytes)| Change::Write { at, bytes }).collect()
    }

    /// What was taken was not written, in part or at all.
    pub fn write_failed(&mut self) {
        for piece in self.pieces.values_mut() {
            let taken = core::mem::take(&mut piece.taken);
            if piece.dirty.is_empty() && !taken.is_empty() {
                self.dirty_bytes = self.dirty_bytes.saturating_add(piece.bytes.len());
            }
            piece.dirty = around(&piece.dirty, &taken);
        }
    }

    /// How many bytes stay in memory because some of them wait to be taken.
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// The piece that has an entry, and where in it.
    fn piece(&mut self, table: &Table, index: u64) -> Result<(&mut Piece, usize)> {
        if index >= table.entries {
            return Err(NO_ENTRY);
        }
        let offset = index.saturating_mul(8);
        let within = num::to_usize(offset % PIECE_BYTES)?;
        let start = num::align_down(offset, PIECE_BYTES);
        let at = table.at.saturating_add(start);
        self.now = self.now.saturating_add(1);
        if !self.pieces.contains_key(&at) {
            let left = table.entries.saturating_mul(8).saturating_sub(start);
            let mut bytes = vec![0; num::to_usize(left.min(PIECE_BYTES))?];
            if self.begun.contains(&table.at) {
                read_padded(self.file.as_ref(), &mut bytes, at)?;
            } else {
                let file = self.file.as_ref();
                file.read_exact_at(&mut bytes, at).map_err(Error::io("read table", at))?;
            }
            self.make_room();
            let piece =
                Piece { level: table.level, bytes, dirty: 0..0, taken: 0..0, used_at: self.now };
            self.pieces.insert(at, piece);
        }
        let piece = self.pieces.get_mut(&at).ok_or(NO_ENTRY)?;
        piece.used_at = self.now;
        Ok((piece, within))
    }

    /// Drops what was not used for long and is in the file, half of it at once.
    fn make_room(&mut self) {
        if self.pieces.len() < PIECES {
            return;
        }
        let is_clean = |piece: &Piece| piece.dirty.is_empty() && piece.taken.is_empty();
        let mut uses: Vec<u64> =
            self.pieces.values().filter(|piece| is_clean(piece)).map(|p| p.used_at).collect();
        if uses.is_empty() {
            return;
        }
        let middle = uses.len() / 2;
        let (_, &mut cut, _) = uses.select_nth_unstable(middle);
        self.pieces.retain(|_, piece| !is_clean(piece) || piece.used_at > cut);
    }
}

impl EntryOrder {
    const fn decode(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::BigEndian => u64::from_be_bytes(bytes),
            Self::LittleEndian => u64::from_le_bytes(bytes),
        }
    }

    const fn encode(self, entry: u64) -> [u8; 8] {
        match self {
            Self::BigEndian => entry.to_be_bytes(),
            Self::LittleEndian => entry.to_le_bytes(),
        }
    }
}

const NO_ENTRY: Error = Error::Misuse("an entry that the table has not");

/// The range that has both.
fn around(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    if a.is_empty() {
        b.clone()
    } else if b.is_empty() {
        a.clone()
    } else {
        a.start.min(b.start)..a.end.max(b.end)
    }
}

/// Reads what there is at `at`; zeroes behind the end of the file.
fn read_padded(file: &dyn Storage, bytes: &mut [u8], at: u64) -> Result<()> {
    let failed = |error| Error::io("read table", at)(error);
    match file.read_exact_at(bytes, at) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        done => return done.map_err(failed),
    }
    let len = file.len_bytes().map_err(Error::io("find the length of the file", 0))?;
    let there = num::to_usize(len.saturating_sub(at).min(num::to_u64(bytes.len())))?;
    let (inside, behind) = bytes.split_at_mut(there);
    behind.fill(0);
    if inside.is_empty() { Ok(()) } else { file.read_exact_at(inside, at).map_err(failed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_testkit::MemoryStorage;

    fn cache(bytes: Vec<u8>) -> TableCache {
        TableCache::new(Arc::new(MemoryStorage::from(bytes)), EntryOrder::LittleEndian)
    }

    const TABLE: Table = Table { at: 8, entries: 1000, level: 1 };

    #[test]
    fn entries_come_from_the_file_until_they_are_set() {
        let mut bytes = vec![0; 8 + 8000];
        bytes[8] = 7;
        bytes[8 + 4096] = 9;
        let mut cache = cache(bytes);
        assert_eq!(cache.entry(&TABLE, 0).unwrap(), 7);
        assert_eq!(cache.entry(&TABLE, 512).unwrap(), 9);
        assert_eq!(cache.entry(&TABLE, 999).unwrap(), 0);
        assert!(matches!(cache.entry(&TABLE, 1000), Err(Error::Misuse(_))));
        cache.set(&TABLE, 3, 0x0102).unwrap();
        cache.set(&TABLE, 5, 1).unwrap();
        assert_eq!((cache.entry(&TABLE, 3).unwrap(), cache.dirty_bytes()), (0x0102, 4096));
        assert_eq!(cache.take(0), []);
        let mut expected = vec![0; 24];
        expected[..2].copy_from_slice(&[2, 1]);
        expected[16] = 1;
        assert_eq!(cache.take(1), [Change::Write { at: 32, bytes: expected.clone() }]);
        assert_eq!(cache.dirty_bytes(), 0);
        cache.write_failed();
        assert_eq!(cache.take(1), [Change::Write { at: 32, bytes: expected }]);
        cache.written();
        cache.write_failed();
        assert_eq!(cache.take(1), []);
    }

    #[test]
    fn a_new_table_is_written_to_its_end() {
        let mut cache = cache(Vec::new());
        cache.begin_table(&TABLE).unwrap();
        cache.set(&TABLE, 0, 1).unwrap();
        let changes = cache.take(1);
        assert_eq!(
            changes,
            [
                Change::Write { at: 8, bytes: vec![1, 0, 0, 0, 0, 0, 0, 0] },
                Change::Write { at: 8 + 7992, bytes: vec![0; 8] }
            ]
        );
        cache.set(&TABLE, 0, 2).unwrap();
        cache.forget(&TABLE);
        assert_eq!(cache.dirty_bytes(), 0);
    }

    #[test]
    fn a_table_that_the_file_has_not_whole_is_an_error_unless_it_is_new() {
        let mut cache = cache(vec![0; 8 + 8000 - 1]);
        assert_eq!(cache.entry(&TABLE, 0).unwrap(), 0);
        for index in [512, 999] {
            let entry = cache.entry(&TABLE, index);
            assert!(matches!(entry, Err(Error::Io { op: "read table", at: 4104, .. })));
        }
        cache.begin_table(&TABLE).unwrap();
        assert_eq!(cache.entry(&TABLE, 512).unwrap(), 0);
    }

    #[test]
    fn what_is_not_written_stays_in_memory() {
        let mut cache = cache(vec![0; 5000 * 4096]);
        let table = |n: u64| Table { at: n * PIECE_BYTES, entries: 512, level: 0 };
        cache.set(&table(0), 0, 5).unwrap();
        for n in 1..5000 {
            assert_eq!(cache.entry(&table(n), 1).unwrap(), 0);
            assert!(cache.pieces.len() <= PIECES);
        }
        assert_eq!(cache.entry(&table(0), 0).unwrap(), 5);
    }
}
