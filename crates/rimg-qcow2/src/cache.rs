//! A bounded cache of slices of on-disk tables (L2 tables, refcount blocks).
//!
//! A slice is a whole table, or 64 KiB of a larger one. The cache reads and holds; when dirty
//! slices go to disk, and after what, is the business of its owner.
#![warn(clippy::indexing_slicing)]

use crate::flush::{Mark, Piece};
use rimg_core::{Error, Result, Storage, num};
use std::collections::HashMap;
use std::io;

/// What a cache of refcount blocks says that it does when it reads one.
pub(crate) const READ_REFCOUNT_BLOCK: &str = "read refcount block";

/// No slice is larger than this.
const MAX_SLICE_BYTES: u64 = 64 << 10;

/// Beside the slices of whole new tables, so many can become dirty between two looks at
/// [`TableCache::is_full_of_dirty`].
const SPARE_SLICES: usize = 4;

/// So many whole tables can be made between two looks: a refcount block, and the one that describes
/// it.
const SPARE_TABLES: u64 = 2;

/// Slices of tables by their host offset.
#[derive(Debug)]
pub(crate) struct TableCache {
    slice_bytes: u64,
    capacity: usize,
    /// How many slices have to be clean, or free, for the next change.
    spare: usize,
    slots: Vec<Slot>,
    by_offset: HashMap<u64, usize>,
    /// The slot used last: walks stay within a slice for thousands of look-ups.
    recent: usize,
    clock: u64,
    /// How many slots are dirty.
    dirty: usize,
    /// What becomes dirty now is marked with this.
    now: Mark,
}

#[derive(Debug)]
struct Slot {
    at: u64,
    bytes: Vec<u8>,
    /// Since when it is newer than on disk, if it is.
    dirty: Option<Mark>,
    last_use: u64,
}

impl TableCache {
    /// A cache for tables of `table_bytes` each, holding about `budget_bytes` (at least a few
    /// slices).
    pub(crate) fn new(table_bytes: u64, budget_bytes: u64) -> Self {
        let slice_bytes = table_bytes.min(MAX_SLICE_BYTES);
        let new_tables = (table_bytes / slice_bytes).saturating_mul(SPARE_TABLES);
        let spare = usize::try_from(new_tables).unwrap_or(usize::MAX).saturating_add(SPARE_SLICES);
        let capacity = usize::try_from(budget_bytes / slice_bytes).unwrap_or(usize::MAX);
        Self {
            slice_bytes,
            capacity: capacity.max(spare.saturating_mul(3)),
            spare,
            slots: Vec::new(),
            by_offset: HashMap::new(),
            recent: 0,
            clock: 0,
            dirty: 0,
            now: Mark::default(),
        }
    }

    pub(crate) const fn slice_bytes(&self) -> u64 {
        self.slice_bytes
    }

    /// Whether the next slices to come could find no clean one to replace.
    pub(crate) fn is_full_of_dirty(&self) -> bool {
        self.dirty.saturating_add(self.spare) > self.capacity
    }

    /// The slice at host offset `at`, a multiple of the slice size, read from `file` when it is not
    /// there yet. What lies behind the end of the file reads as zeroes.
    pub(crate) fn slice(&mut self, file: &dyn Storage, at: u64, op: &'static str) -> Result<&[u8]> {
        let index = self.load(file, at, op)?;
        self.slot(index).map(|slot| slot.bytes.as_slice())
    }

    /// As [`slice`](Self::slice), for changing it: the slice becomes dirty.
    pub(crate) fn slice_mut(
        &mut self,
        file: &dyn Storage,
        at: u64,
        op: &'static str,
    ) -> Result<&mut [u8]> {
        let index = self.load(file, at, op)?;
        self.make_dirty(index);
        self.slot(index).map(|slot| slot.bytes.as_mut_slice())
    }

    /// A new slice of zeroes, dirty, without reading what is there.
    pub(crate) fn new_slice(&mut self, at: u64) -> Result<&mut [u8]> {
        let index = match self.by_offset.get(&at) {
            Some(index) => *index,
            None => self.free_slot(at)?,
        };
        self.touch(index);
        self.make_dirty(index);
        let slot = self.slot(index)?;
        slot.bytes.fill(0);
        Ok(&mut slot.bytes)
    }

    /// Drops the slices of a table that is no more.
    pub(crate) fn forget(&mut self, range: core::ops::Range<u64>) {
        for slot in &mut self.slots {
            if range.contains(&slot.at) {
                self.by_offset.remove(&slot.at);
                slot.at = u64::MAX;
                self.dirty = self.dirty.saturating_sub(usize::from(slot.dirty.is_some()));
                slot.dirty = None;
                slot.last_use = 0;
            }
        }
    }

    /// Writes every dirty slice with `write`, in the order of their offsets.
    pub(crate) fn write_dirty(
        &mut self,
        mut write: impl FnMut(&[u8], u64) -> Result<()>,
    ) -> Result<()> {
        let mut dirty: Vec<&mut Slot> =
            self.slots.iter_mut().filter(|slot| slot.dirty.is_some()).collect();
        dirty.sort_unstable_by_key(|slot| slot.at);
        for slot in dirty {
            write(&slot.bytes, slot.at)?;
            slot.dirty = None;
            self.dirty = self.dirty.saturating_sub(1);
        }
        Ok(())
    }

    /// The dirty slices as they are now, in the order of their offsets. They stay dirty until
    /// [`clean_up_to`](Self::clean_up_to) hears that the copy is on disk.
    pub(crate) fn copy_dirty(&mut self) -> (Mark, Vec<Piece>) {
        let mark = self.now;
        self.now = mark.next();
        let dirty = self.slots.iter().filter(|slot| slot.dirty.is_some());
        let mut pieces: Vec<Piece> =
            dirty.map(|slot| Piece { at: slot.at, bytes: slot.bytes.clone() }).collect();
        pieces.sort_unstable_by_key(|piece| piece.at);
        (mark, pieces)
    }

    /// Slices that were dirty at `mark` and have not changed since are on disk.
    pub(crate) fn clean_up_to(&mut self, mark: Mark) {
        for slot in &mut self.slots {
            if slot.dirty.is_some_and(|since| since <= mark) {
                slot.dirty = None;
                self.dirty = self.dirty.saturating_sub(1);
            }
        }
    }

    fn make_dirty(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            self.dirty = self.dirty.saturating_add(usize::from(slot.dirty.is_none()));
            slot.dirty = Some(self.now);
        }
    }

    fn load(&mut self, file: &dyn Storage, at: u64, op: &'static str) -> Result<usize> {
        if let Some(slot) = self.slots.get(self.recent)
            && slot.at == at
        {
            return Ok(self.recent);
        }
        let known = self.by_offset.get(&at).copied();
        let index = match known {
            Some(index) => index,
            None => {
                let index = self.free_slot(at)?;
                file.note(if op == READ_REFCOUNT_BLOCK { "refblock_load" } else { "l2_load" });
                let slot = self.slot(index)?;
                if let Err(error) = read_padded(file, &mut slot.bytes, at) {
                    self.forget(at..at.saturating_add(1));
                    return Err(Error::io(op, at)(error));
                }
                index
            }
        };
        self.touch(index);
        Ok(index)
    }

    /// A slot for the slice at `at`: a new one, or that of the slice not used for longest.
    fn free_slot(&mut self, at: u64) -> Result<usize> {
        let index = if self.slots.len() < self.capacity {
            let bytes = vec![0; num::to_usize(self.slice_bytes)?];
            self.slots.push(Slot { at, bytes, dirty: None, last_use: 0 });
            self.slots.len().saturating_sub(1)
        } else {
            let clean = self.slots.iter().enumerate().filter(|(_, slot)| slot.dirty.is_none());
            let oldest = clean.min_by_key(|(_, slot)| slot.last_use).map(|(index, _)| index);
            oldest.ok_or(Error::Misuse("every cached table slice waits to be written"))?
        };
        let slot = self.slot(index)?;
        let old = core::mem::replace(&mut slot.at, at);
        slot.dirty = None;
        if old != at {
            self.by_offset.remove(&old);
        }
        self.by_offset.insert(at, index);
        Ok(index)
    }

    fn touch(&mut self, index: usize) {
        self.clock = self.clock.saturating_add(1);
        self.recent = index;
        if let Some(slot) = self.slots.get_mut(index) {
            slot.last_use = self.clock;
        }
    }

    fn slot(&mut self, index: usize) -> Result<&mut Slot> {
        self.slots.get_mut(index).ok_or(Error::Misuse("no such cache slot"))
    }
}

/// Fills `buf` from `at`; what lies behind the end of the file reads as zeroes.
pub(crate) fn read_padded(file: &dyn Storage, buf: &mut [u8], at: u64) -> io::Result<()> {
    match file.read_exact_at(buf, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        done => return done,
    }
    let there = file.len_bytes()?.saturating_sub(at);
    let there = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
    let (data, padding) = buf.split_at_mut(there);
    padding.fill(0);
    if data.is_empty() { Ok(()) } else { file.read_exact_at(data, at) }
}
