//! The order in which metadata reaches the disk.
//!
//! At any moment every subset of the writes since the last `sync` may be lost. So a thing is
//! written only when what it refers to is durable:
//!
//! ```text
//! data, refcount blocks ── sync ── refcount table ── sync ── L2 tables ── sync ── L1 table ── sync
//!                                                                                   │
//!                          released references stop being counted ──────────────────┘
//! ```
//! A stage without anything to write costs no sync. Whatever is lost, references on disk are
//! counted and lead to complete data; at worst, clusters are counted that nobody refers to.

use crate::cache::read_padded;
use crate::header::{Header, offset, rewrite};
use crate::image::{Qcow2Image, State};
use crate::inflight::Generation;
use crate::spec;
use rimg_core::{Error, Result, StorageWrite, num, op};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

/// What is done with pieces of metadata, as errors have it.
const WRITE_L2: &str = "write L2 table";
const WRITE_L1: &str = "write L1 table";

/// Bytes of a table on their way to the disk.
pub(crate) struct Piece {
    /// Host offset in bytes.
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What one pass over the stages brings to the disk: the tables as they were when it began. What
/// changes meanwhile waits for the next pass.
struct Pass {
    /// Which one, to notice when another one has overtaken it.
    number: u64,
    /// What is written, with a sync before each: refcount table, L2 tables, L1 table.
    stages: [(&'static str, Vec<Piece>); 3],
    l2_mark: Mark,
    l1_mark: Mark,
    /// Nothing when refcounts are postponed.
    table_mark: Option<Mark>,
    released: Vec<(u64, u64)>,
    /// Those who may still read what was released.
    readers: Generation,
}

impl Qcow2Image {
    /// The writing half of the image's own file.
    pub(crate) fn file_writer(&self) -> Result<&dyn StorageWrite> {
        self.file.writer().ok_or(Error::ReadOnly("its file was opened for reading"))
    }

    /// Makes everything durable that was completed before.
    pub(crate) fn flush_all(&self) -> Result<()> {
        self.store_bitmaps(&mut *self.lock()?)?;
        self.lock()?.relaxed = false;
        self.catch_up_unlocked()?;
        let mut state = self.lock()?;
        if !state.postpones_refcounts() {
            // Settled references are only space; losing this write loses nothing else.
            self.write_refcount_blocks(&mut state)?;
        }
        self.fill_up_file(&state)?;
        drop(state);
        self.sync()
    }

    /// Leaves nothing for the next one who opens the image to put right.
    pub(crate) fn finish_all(&self) -> Result<()> {
        self.flush_all()?;
        self.stop_postponing(&mut *self.lock()?)
    }

    /// Brings refcounts that were postponed to the disk, and says there that they can be trusted.
    pub(crate) fn stop_postponing(&self, state: &mut State) -> Result<()> {
        if !state.postpones_refcounts() {
            return Ok(());
        }
        self.write_refcount_blocks(state)?;
        self.barrier(state)?;
        self.write_refcount_table(state)?;
        self.barrier(state)?;
        self.set_incompatible(state, spec::incompatible::DIRTY, false)?;
        self.sync()
    }

    /// Before the first change of a table with lazy refcounts: says on disk that refcounts are not
    /// to be trusted.
    pub(crate) fn begin_postponing(&self, state: &mut State) -> Result<()> {
        let is_lazy = state.header.compatible & spec::compatible::LAZY_REFCOUNTS != 0;
        if !is_lazy || state.postpones_refcounts() {
            return Ok(());
        }
        self.set_incompatible(state, spec::incompatible::DIRTY, true)?;
        self.barrier(state)
    }

    /// Sets or clears an incompatible feature bit, on disk and in memory.
    pub(crate) fn set_incompatible(&self, state: &mut State, bit: u64, on: bool) -> Result<()> {
        let old = state.header.incompatible;
        let new = if on { old | bit } else { old & !bit };
        self.file_writer()?
            .write_all_at(&new.to_be_bytes(), offset::INCOMPATIBLE)
            .map_err(Error::io("write header", offset::INCOMPATIBLE))?;
        state.header.incompatible = new;
        Ok(())
    }

    /// No file is shorter than its last cluster, or the last sector of a compressed one.
    fn fill_up_file(&self, state: &State) -> Result<()> {
        let tail = state.allocator.as_ref().and_then(|allocator| allocator.compressed_tail);
        if tail.is_none() && state.data_end == 0 {
            return Ok(());
        }
        let file = self.file_writer()?;
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        let sectors = match tail {
            Some(_) => len.next_multiple_of(spec::SECTOR_BYTES),
            None => len,
        };
        let full = sectors.max(state.data_end);
        if full == len {
            return Ok(());
        }
        file.set_len_bytes(full).map_err(Error::io(op::EXTEND_FILE, len))
    }

    /// Brings the disk to where memory is, in order, and stops counting released references. The
    /// lock is held all the while: for the few who cannot go on otherwise.
    pub(crate) fn catch_up(&self, state: &mut State) -> Result<()> {
        let pass = self.begin_pass(state)?;
        for (op, pieces) in &pass.stages {
            if !pieces.is_empty() {
                self.barrier(state)?;
                self.write_pieces(op, pieces)?;
            }
        }
        if !pass.released.is_empty() {
            self.barrier(state)?;
            self.readers.wait_for(pass.readers);
        }
        self.end_pass(state, &pass)
    }

    /// As [`catch_up`](Self::catch_up), and others may go on reading and writing while the storage
    /// syncs.
    pub(crate) fn catch_up_unlocked(&self) -> Result<()> {
        let _only_one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let (pass, relaxed) = {
            let mut state = self.lock()?;
            (self.begin_pass(&mut state)?, state.relaxed)
        };
        let sync = || if relaxed { Ok(()) } else { self.sync() };
        for (op, pieces) in &pass.stages {
            if pieces.is_empty() {
                continue;
            }
            sync()?;
            // Under the lock, so that no newer pass comes between the look and the writes.
            let state = self.lock()?;
            if state.passes != pass.number {
                return self.catch_up_overtaken(state);
            }
            self.write_pieces(op, pieces)?;
        }
        if !pass.released.is_empty() {
            sync()?;
            self.readers.wait_for(pass.readers);
        }
        let mut state = self.lock()?;
        if state.passes == pass.number {
            self.end_pass(&mut state, &pass)
        } else {
            self.catch_up_overtaken(state)
        }
    }

    /// Somebody began a newer pass. He brought all of this one to the disk, unless he failed: what
    /// is still dirty says so.
    fn catch_up_overtaken(&self, mut state: MutexGuard<'_, State>) -> Result<()> {
        self.catch_up(&mut state)
    }

    /// Writes what may be lost at any time, and takes a copy of what has to wait for a sync.
    fn begin_pass(&self, state: &mut State) -> Result<Pass> {
        let postpones = state.postpones_refcounts();
        let blocks_full = state.allocator.as_ref().is_some_and(|a| a.blocks.is_full_of_dirty());
        let with_refcounts = !postpones || blocks_full;
        if with_refcounts {
            self.write_refcount_blocks(state)?;
        }
        state.passes = state.passes.wrapping_add(1);
        let number = state.passes;
        let (l2_mark, l2) = state.l2.copy_dirty();
        let l1_mark = state.dirty_l1.mark();
        let l1 = state.dirty_l1.pieces(&state.l1, state.header.l1_offset);
        let readers = self.readers.next_generation();
        let allocator = state.allocator_mut()?;
        let table_mark = with_refcounts.then(|| allocator.dirty_entries.mark());
        let table = match table_mark {
            Some(_) => allocator.dirty_entries.pieces(&allocator.table, allocator.table_at),
            None => Vec::new(),
        };
        Ok(Pass {
            number,
            stages: [(op::WRITE_REFCOUNT_TABLE, table), (WRITE_L2, l2), (WRITE_L1, l1)],
            l2_mark,
            l1_mark,
            table_mark,
            released: allocator.released(),
            readers,
        })
    }

    fn end_pass(&self, state: &mut State, pass: &Pass) -> Result<()> {
        state.l2.clean_up_to(pass.l2_mark);
        state.dirty_l1.clean_up_to(pass.l1_mark);
        let allocator = state.allocator_mut()?;
        if let Some(mark) = pass.table_mark {
            allocator.dirty_entries.clean_up_to(mark);
        }
        let to_discard = allocator.settle(&pass.released)?;
        // Before anybody can take these clusters.
        self.discard_clusters(&to_discard)
    }

    fn write_pieces(&self, op: &'static str, pieces: &[Piece]) -> Result<()> {
        let file = self.file_writer()?;
        pieces.iter().try_for_each(|piece| {
            file.note(match op {
                op::WRITE_REFCOUNT_TABLE => "refblock_alloc_hookup",
                WRITE_L2 => "l2_update",
                _ => "l1_update",
            });
            file.write_all_at(&piece.bytes, piece.at).map_err(Error::io(op, piece.at))
        })
    }

    /// Gives the space of free clusters back to the file system.
    fn discard_clusters(&self, clusters: &[u64]) -> Result<()> {
        let file = self.file_writer()?;
        for run in clusters.chunk_by(|a, b| a.saturating_add(1) == *b) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let start = self.geometry.cluster_offset(*first);
            let end = self.geometry.cluster_offset(last.saturating_add(1));
            file.discard_at(start..end).map_err(Error::io("discard cluster", start))?;
        }
        Ok(())
    }

    /// Makes room in the table caches when they are full of slices that wait to be written.
    pub(crate) fn make_room(&self, state: &mut State) -> Result<()> {
        if state.has_full_cache() { self.catch_up(state) } else { Ok(()) }
    }

    /// Between two stages: everything before is durable before anything after is written. An image
    /// that is being made has no reader to protect yet.
    pub(crate) fn barrier(&self, state: &State) -> Result<()> {
        if state.relaxed { Ok(()) } else { self.sync() }
    }

    fn sync(&self) -> Result<()> {
        if let Some(data) = self.data_file.as_ref().and_then(|file| file.writer()) {
            data.sync().map_err(Error::io("flush data file", 0))?;
        }
        self.file_writer()?.sync().map_err(Error::io("flush", 0))
    }

    fn write_refcount_blocks(&self, state: &mut State) -> Result<()> {
        let file = self.file_writer()?;
        let Some(allocator) = &mut state.allocator else { return Ok(()) };
        allocator.blocks.write_dirty(|bytes, at| {
            file.note("refblock_update_part");
            file.write_all_at(bytes, at).map_err(Error::io(op::WRITE_REFCOUNT_BLOCK, at))
        })
    }

    fn write_refcount_table(&self, state: &mut State) -> Result<()> {
        let allocator = state.allocator_mut()?;
        let mark = allocator.dirty_entries.mark();
        let pieces = allocator.dirty_entries.pieces(&allocator.table, allocator.table_at);
        self.write_pieces(op::WRITE_REFCOUNT_TABLE, &pieces)?;
        allocator.dirty_entries.clean_up_to(mark);
        Ok(())
    }

    /// Writes the changed entries of the L1 table, whatever else waits.
    pub(crate) fn write_l1(&self, state: &mut State) -> Result<()> {
        let mark = state.dirty_l1.mark();
        let pieces = state.dirty_l1.pieces(&state.l1, state.header.l1_offset);
        self.write_pieces(WRITE_L1, &pieces)?;
        state.dirty_l1.clean_up_to(mark);
        Ok(())
    }

    /// Writes all of the header anew after `change`: the fields, the extensions and the backing
    /// file's name. What they refer to has to be durable. In force, and in memory, when it is on
    /// disk; a crash leaves the old header or the new one, unless the backing file changes.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when it does not fit into a cluster, before anything is written.
    pub(crate) fn rewrite_header(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Header),
    ) -> Result<()> {
        let mut header = state.header.clone();
        change(&mut header);
        let mut old = vec![0; num::to_usize(self.geometry.cluster_bytes())?];
        read_padded(self.file.as_ref(), &mut old, 0).map_err(Error::io("read header", 0))?;
        for step in rewrite::steps(&old, &header)? {
            self.file_writer()?
                .write_all_at(&step.bytes, step.at)
                .map_err(Error::io("write header", step.at))?;
            self.barrier(state)?;
        }
        state.header = header;
        Ok(())
    }

    /// Before the first change: clears the autoclear bits that this crate does not keep up, so
    /// that nobody trusts what they stand for.
    pub(crate) fn begin_writing(&self, state: &mut State) -> Result<()> {
        if state.header.has(spec::incompatible::CORRUPT) {
            return Err(Error::ReadOnly(Error::MARKED_CORRUPT));
        }
        let mut known = spec::autoclear::DATA_FILE_RAW;
        if state.header.bitmaps_extension().is_some() {
            known |= spec::autoclear::BITMAPS;
        }
        let keep = state.header.autoclear & known;
        if state.header.version < 3 || keep == state.header.autoclear {
            return Ok(());
        }
        let file = self.file_writer()?;
        file.write_all_at(&keep.to_be_bytes(), offset::AUTOCLEAR)
            .map_err(Error::io("write header", offset::AUTOCLEAR))?;
        self.barrier(state)?;
        state.header.autoclear = keep;
        Ok(())
    }
}

/// A moment: what became dirty until then, and what did after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Mark(u64);

impl Mark {
    /// The moment after.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// Entries of a table that are newer than on disk.
#[derive(Debug, Default)]
pub(crate) struct DirtyEntries {
    /// When each became dirty for the last time.
    since: BTreeMap<usize, Mark>,
    now: Mark,
}

impl DirtyEntries {
    pub(crate) fn insert(&mut self, index: usize) {
        self.since.insert(index, self.now);
    }

    /// Parts what is dirty now from what will be.
    pub(crate) fn mark(&mut self) -> Mark {
        let mark = self.now;
        self.now = self.now.next();
        mark
    }

    /// Forgets what was dirty at `mark` and has not changed since.
    pub(crate) fn clean_up_to(&mut self, mark: Mark) {
        self.since.retain(|_, since| *since > mark);
    }

    /// All of it is on disk, by another way.
    pub(crate) fn clear(&mut self) {
        self.since.clear();
    }

    /// The dirty entries of `table`, which lies at `table_at`, with those around them in the same
    /// sectors.
    pub(crate) fn pieces(&self, table: &[u64], table_at: u64) -> Vec<Piece> {
        const PER_SECTOR: usize = 64;
        let sectors: BTreeSet<usize> = self.since.keys().map(|index| index / PER_SECTOR).collect();
        let sectors: Vec<usize> = sectors.into_iter().collect();
        let runs = sectors.chunk_by(|a, b| a.saturating_add(1) == *b);
        runs.filter_map(|run| {
            let start = run.first()?.saturating_mul(PER_SECTOR);
            let end = run.last()?.saturating_add(1).saturating_mul(PER_SECTOR).min(table.len());
            let bytes = table.get(start..end)?.iter().flat_map(|entry| entry.to_be_bytes());
            let at = table_at.saturating_add(num::to_u64(start).saturating_mul(8));
            Some(Piece { at, bytes: bytes.collect() })
        })
        .collect()
    }
}
