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

use crate::allocate::Allocator;
use crate::header::{Header, offset};
use crate::image::{Qcow2Image, State};
use crate::spec;
use rimg_core::{Error, Result, StorageWrite, num};
use std::collections::BTreeSet;

impl Qcow2Image {
    /// The writing half of the image's own file.
    pub(crate) fn file_writer(&self) -> Result<&dyn StorageWrite> {
        self.file.writer().ok_or(Error::ReadOnly("its file was opened for reading"))
    }

    /// Makes everything durable that was completed before.
    pub(crate) fn flush_all(&self) -> Result<()> {
        let mut state = self.lock()?;
        self.catch_up(&mut state)?;
        state.relaxed = false;
        // Settled references are only space; losing this write loses nothing else.
        self.write_refcount_blocks(&mut state)?;
        self.fill_up_file(&state)?;
        drop(state);
        self.sync()
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
        file.set_len_bytes(full).map_err(Error::io("extend file", len))
    }

    /// Brings the disk to where memory is, in order, and stops counting released references.
    pub(crate) fn catch_up(&self, state: &mut State) -> Result<()> {
        self.write_refcount_blocks(state)?;
        let has_entries =
            state.allocator.as_ref().is_some_and(|allocator| !allocator.dirty_entries.is_empty());
        let has_tables = state.l2.has_dirty();
        if has_entries {
            self.barrier(state)?;
            self.write_refcount_table(state)?;
        }
        if has_tables {
            self.barrier(state)?;
            self.write_l2_tables(state)?;
        }
        if !state.dirty_l1.is_empty() {
            self.barrier(state)?;
            self.write_l1(state)?;
        }
        let released = state.allocator.as_ref().is_some_and(Allocator::has_released);
        if released {
            self.barrier(state)?;
            self.wait_for_readers(state)?;
            let to_discard = state.allocator_mut()?.settle()?;
            self.discard_clusters(&to_discard)?;
        }
        Ok(())
    }

    /// Gives the space of free clusters back to the file system.
    fn discard_clusters(&self, clusters: &BTreeSet<u64>) -> Result<()> {
        let file = self.file_writer()?;
        let clusters: Vec<u64> = clusters.iter().copied().collect();
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
        let full = state.l2.is_full_of_dirty()
            || state.allocator.as_ref().is_some_and(|a| a.blocks.is_full_of_dirty());
        if full { self.catch_up(state) } else { Ok(()) }
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
            file.write_all_at(bytes, at).map_err(Error::io("write refcount block", at))
        })
    }

    fn write_refcount_table(&self, state: &mut State) -> Result<()> {
        let file = self.file_writer()?;
        let allocator = state.allocator_mut()?;
        write_entries(file, &allocator.table, &allocator.dirty_entries, allocator.table_at)
            .map_err(|(at, error)| Error::io("write refcount table", at)(error))?;
        allocator.dirty_entries.clear();
        Ok(())
    }

    fn write_l2_tables(&self, state: &mut State) -> Result<()> {
        let file = self.file_writer()?;
        state.l2.write_dirty(|bytes, at| {
            file.write_all_at(bytes, at).map_err(Error::io("write L2 table", at))
        })
    }

    fn write_l1(&self, state: &mut State) -> Result<()> {
        let file = self.file_writer()?;
        write_entries(file, &state.l1, &state.dirty_l1, state.header.l1_offset)
            .map_err(|(at, error)| Error::io("write L1 table", at)(error))?;
        state.dirty_l1.clear();
        Ok(())
    }

    /// Writes all of the header anew after `change`: the fields, the extensions and the backing
    /// file's name. What they refer to has to be durable. In force, and in memory, when it is on
    /// disk.
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
        let mut bytes = header.encode()?;
        // Nothing of a longer one may show behind the end.
        bytes.resize(num::to_usize(self.geometry.cluster_bytes())?, 0);
        self.file_writer()?.write_all_at(&bytes, 0).map_err(Error::io("write header", 0))?;
        self.barrier(state)?;
        state.header = header;
        Ok(())
    }

    /// Before the first change: clears the autoclear bits that this crate does not keep up, so
    /// that nobody trusts what they stand for.
    pub(crate) fn begin_writing(&self, state: &mut State) -> Result<()> {
        let keep = state.header.autoclear & spec::autoclear::DATA_FILE_RAW;
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

/// Writes table entries, and those around them in the same sectors.
fn write_entries(
    file: &dyn StorageWrite,
    table: &[u64],
    dirty: &BTreeSet<usize>,
    table_at: u64,
) -> Result<(), (u64, std::io::Error)> {
    const PER_SECTOR: usize = 64;
    let mut sectors: Vec<usize> = dirty.iter().map(|index| index / PER_SECTOR).collect();
    sectors.dedup();
    for run in sectors.chunk_by(|a, b| a.saturating_add(1) == *b) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let start = first * PER_SECTOR;
        let end = ((last + 1) * PER_SECTOR).min(table.len());
        let entries = table.get(start..end).unwrap_or_default();
        let raw: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        let at = table_at.saturating_add(num::to_u64(start) * 8);
        file.write_all_at(&raw, at).map_err(|error| (at, error))?;
    }
    Ok(())
}
