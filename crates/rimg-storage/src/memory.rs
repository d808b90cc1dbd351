//! Bytes in memory.

use core::ops::Range;
use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing, num, zeroes};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The granularity of holes in bytes.
const PAGE_BYTES: u64 = 4096;
const PAGE_LEN: usize = 4096;

type Page = Arc<[u8; PAGE_LEN]>;

/// A storage in memory that keeps only the pages that were written: holes cost nothing, however
/// long it is.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    state: RwLock<State>,
}

#[derive(Clone, Default)]
struct State {
    len: u64,
    /// Pages by number; a page that is not there is a hole. Bytes of the last page past the end
    /// are zero.
    pages: BTreeMap<u64, Page>,
}

impl MemoryStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A storage of `len_bytes` that is one hole.
    #[must_use]
    pub fn with_len(len_bytes: u64) -> Self {
        Self { state: RwLock::new(State { len: len_bytes, pages: BTreeMap::new() }) }
    }

    /// A copy of everything.
    ///
    /// # Errors
    /// [`io::ErrorKind::OutOfMemory`] when it does not fit into memory.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let state = self.state();
        let too_long = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let len = usize::try_from(state.len).map_err(too_long)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(len, 0);
        state.read(&mut bytes, 0);
        Ok(bytes)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // No operation leaves the state half-changed in a way that matters more than lost data.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy that shares all pages until one of the two writes to them.
impl Clone for MemoryStorage {
    fn clone(&self) -> Self {
        Self { state: RwLock::new(self.state().clone()) }
    }
}

/// Bytes to begin with; pages of zeroes among them become holes.
impl From<&[u8]> for MemoryStorage {
    fn from(bytes: &[u8]) -> Self {
        let mut state = State { len: num::to_u64(bytes.len()), pages: BTreeMap::new() };
        for (number, piece) in (0..).zip(bytes.chunks(PAGE_LEN)) {
            if !zeroes::is_zero(piece) {
                state.page(number)[..piece.len()].copy_from_slice(piece);
            }
        }
        Self { state: RwLock::new(state) }
    }
}

impl From<Vec<u8>> for MemoryStorage {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl Storage for MemoryStorage {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let state = self.state();
        match at.checked_add(num::to_u64(buf.len())) {
            Some(end) if end <= state.len => {
                state.read(buf, at);
                Ok(())
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let state = self.state();
        if at >= state.len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no run past the end"));
        }
        let first = at / PAGE_BYTES;
        let mut next = state.pages.range(first..).map(|(&number, _)| number);
        let is_data = state.pages.contains_key(&first);
        let end_page = if is_data {
            (first..).zip(next).take_while(|(wanted, found)| wanted == found).count()
        } else {
            let end = next.next().unwrap_or(u64::MAX) - first;
            usize::try_from(end).unwrap_or(usize::MAX)
        };
        let end = first.saturating_add(num::to_u64(end_page)).saturating_mul(PAGE_BYTES);
        let len_bytes = end.min(state.len) - at;
        Ok(if is_data { StorageRun::data(len_bytes) } else { StorageRun::hole(len_bytes) })
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        Some(self)
    }

    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        Ok(Some(num::to_u64(self.state().pages.len()) * PAGE_BYTES))
    }
}

impl StorageWrite for MemoryStorage {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(num::to_u64(buf.len())).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut state = self.state_mut();
        let mut rest = buf;
        for (number, range) in pieces(at..end) {
            let (piece, after) = rest.split_at(range.len());
            state.page(number)[range].copy_from_slice(piece);
            rest = after;
        }
        if !buf.is_empty() {
            state.len = state.len.max(end);
        }
        Ok(())
    }

    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let mut state = self.state_mut();
        match how {
            Zeroing::MayPunch => state.punch(range.clone()),
            Zeroing::KeepAllocated => {
                for (number, bytes) in pieces(range.clone()) {
                    state.page(number)[bytes].fill(0);
                }
            }
        }
        state.len = state.len.max(range.end);
        Ok(())
    }

    fn discard_at(&self, range: Range<u64>) -> io::Result<()> {
        let mut state = self.state_mut();
        let end = range.end.min(state.len);
        if range.start < end {
            state.punch(range.start..end);
        }
        Ok(())
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        let mut state = self.state_mut();
        let old = state.len;
        if len < old {
            state.punch(len..old);
            state.pages.split_off(&len.div_ceil(PAGE_BYTES));
        }
        state.len = len;
        Ok(())
    }

    fn is_zero_where_unwritten(&self) -> bool {
        true
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    /// The page with this number, made when it is a hole.
    fn page(&mut self, number: u64) -> &mut [u8; PAGE_LEN] {
        Arc::make_mut(self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE_LEN])))
    }

    /// Fills `buf`, with zeroes where there are holes.
    fn read(&self, buf: &mut [u8], at: u64) {
        let end = at.saturating_add(num::to_u64(buf.len()));
        let mut rest = buf;
        for (number, range) in pieces(at..end) {
            let (piece, after) = rest.split_at_mut(range.len());
            match self.pages.get(&number) {
                Some(page) => piece.copy_from_slice(&page[range]),
                None => piece.fill(0),
            }
            rest = after;
        }
    }

    /// Drops whole pages of the range and clears the rest of it, in time that depends on the
    /// pages that are there and not on the length.
    fn punch(&mut self, range: Range<u64>) {
        let pages = range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES);
        let there: Vec<u64> = self.pages.range(pages).map(|(&number, _)| number).collect();
        for number in there {
            let start = number * PAGE_BYTES;
            let bytes = within(start, range.start)..within(start, range.end);
            if bytes == (0..PAGE_LEN) {
                self.pages.remove(&number);
            } else {
                self.page(number)[bytes].fill(0);
            }
        }
    }
}

/// The pages that a range touches, and which bytes of each.
fn pieces(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let pages = if range.is_empty() {
        0..0
    } else {
        range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)
    };
    pages.map(move |number| {
        let start = number * PAGE_BYTES;
        (number, within(start, range.start)..within(start, range.end))
    })
}

/// The place of `at` in the page that starts at `page_start`, clamped to the page.
fn within(page_start: u64, at: u64) -> usize {
    usize::try_from(at.saturating_sub(page_start)).unwrap_or(PAGE_LEN).min(PAGE_LEN)
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("State").field("len", &self.len).field("pages", &self.pages.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_storage_costs_only_what_was_written() -> io::Result<()> {
        let storage = MemoryStorage::with_len(1 << 40);
        storage.write_all_at(b"x", 1 << 39)?;
        assert_eq!(storage.run_at(5)?, StorageRun::hole((1 << 39) - 5));
        assert_eq!(storage.run_at(1 << 39)?, StorageRun::data(PAGE_BYTES));
        assert_eq!(storage.run_at((1 << 39) + PAGE_BYTES)?.len_bytes, (1 << 39) - PAGE_BYTES);
        assert_eq!(storage.allocated_bytes()?, Some(PAGE_BYTES));
        storage.write_zeroes_at(0..1 << 40, Zeroing::MayPunch)?;
        assert_eq!(storage.run_at(0)?, StorageRun::hole(1 << 40));
        Ok(())
    }

    #[test]
    fn shrinking_forgets_what_was_cut_off() -> io::Result<()> {
        let storage = MemoryStorage::from(vec![7; 10_000]);
        storage.set_len_bytes(5_000)?;
        storage.set_len_bytes(10_000)?;
        let mut expected = vec![7; 5_000];
        expected.resize(10_000, 0);
        assert_eq!(storage.to_vec()?, expected);
        assert_eq!(storage.run_at(9_000)?, StorageRun::hole(1_000));
        Ok(())
    }
}
