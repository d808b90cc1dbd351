//! Growing and shrinking the disk.
//!
//! ```text
//! grow:    larger L1 table ── header ── zeroes where something would come up, and preallocation
//!          ── sync ── size ── sync
//! shrink:  L2, L1 tables without what is behind the end, zeroes there in an external data file
//!          ── sync ── size ── sync ── its clusters are free ── refcount table without blocks
//!          that count nothing ── sync ── shorter files
//! ```

mod shrink;

use crate::allocate::Afterwards;
use crate::error::doing;
use crate::header::offset;
use crate::image::{Qcow2Image, State};
use crate::spec;
use core::ops::Range;
use rimg_core::{
    BlockImage as _, Error, Preallocation, Resize, Result, StorageWrite, num, op, zeroes,
};
use std::sync::atomic::Ordering;

impl Resize for Qcow2Image {
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        if !size_bytes.is_multiple_of(spec::SECTOR_BYTES) {
            return refuse("The new size must be a multiple of 512");
        }
        let mut preallocation = preallocation;
        // Somebody may have made the data file longer than the disk, and keeps what is there.
        let data_file_end = match self.data_file_writer() {
            Some(file) => file.len_bytes().map_err(Error::io("read data file length", 0))?,
            None => 0,
        };
        let _claim = self.claim_disk()?;
        let old = self.size_bytes();
        let header = self.lock()?.header.clone();
        if header.snapshot_count > 0 && header.version < 3 {
            // Snapshots of version 2 do not record the size of the disk they are of.
            return refuse("Can't resize a v2 image which has snapshots");
        }
        if header.autoclear & spec::autoclear::DATA_FILE_RAW != 0
            && preallocation == Preallocation::Off
            && size_bytes > old
        {
            // The data file is what it is only with every cluster in its place.
            preallocation = Preallocation::Metadata;
        }
        self.begin_resizing_bitmaps(&mut *self.lock()?)?;
        if size_bytes < old {
            if preallocation != Preallocation::Off {
                return refuse("Preallocation can't be used for shrinking an image");
            }
            return self.shrink(size_bytes, size_bytes);
        }
        let Err(error) = self.grow(old..size_bytes, preallocation) else { return Ok(()) };
        if matches!(error, Error::Io { .. }) {
            // Nothing keeps what was written, or reserved. The first error tells what went wrong.
            let _ = self.shrink(old, data_file_end.max(old));
        }
        self.size_bytes.store(old, Ordering::Release);
        Err(error)
    }
}

fn refuse<T>(reason: &str) -> Result<T> {
    Err(Error::InvalidOption { option: "size", reason: reason.into() })
}

impl Qcow2Image {
    /// The caller has claimed the disk.
    fn grow(&self, new: Range<u64>, preallocation: Preallocation) -> Result<()> {
        let Range { start: old, end: size_bytes } = new;
        {
            let mut state = self.lock()?;
            let going = self.unlink_behind(&mut state, old)?;
            if !going.is_empty() {
                self.catch_up(&mut state)?;
                self.barrier(&state)?;
                self.free_branches(&mut state, &going)?;
            }
            self.grow_l1(&mut state, size_bytes).map_err(doing(op::GROW_L1_TABLE))?;
        }
        if let Some(file) = self.data_file_writer()
            && file.len_bytes().map_err(Error::io("read data file length", 0))? < size_bytes
        {
            file.set_len_bytes(size_bytes).map_err(Error::io("extend data file", old))?;
        }
        // For us it is that long already: what comes up is zero before it is on disk.
        self.size_bytes.store(size_bytes, Ordering::Release);
        self.zero_behind(new.clone(), preallocation)?;
        self.preallocate(new, preallocation)?;
        let mut state = self.lock()?;
        self.catch_up(&mut state)?;
        self.barrier(&state)?;
        self.write_size(&mut state, size_bytes)?;
        // What is written behind the old end must not be found there by somebody who grows the
        // disk after a crash that took the size back.
        self.barrier(&state)
    }

    /// Zeroes what would come up when the disk grows: the rest of a cluster that was cut when the
    /// disk shrank, and what a longer backing image holds, as far as preallocation does not.
    fn zero_behind(&self, new: Range<u64>, preallocation: Preallocation) -> Result<()> {
        let g = self.geometry;
        let cut = new.start..new.start.next_multiple_of(g.cluster_bytes()).min(new.end);
        let mut rest = vec![0; num::to_usize(cut.end.saturating_sub(cut.start))?];
        self.read(&mut rest, cut.start)?;
        if !zeroes::is_zero(&rest) && !self.zero_blank_rest(&cut)? {
            self.zero_claimed(cut)?;
        }
        let below = self.backing.as_ref().map_or(0, |backing| backing.size_bytes());
        if below <= new.start {
            return Ok(());
        }
        if !g.has_zeroes() {
            // Bytes, which take space.
            self.zero_claimed(new.start..below.min(new.end))?;
        } else if preallocation == Preallocation::Off {
            // All of it, as QEMU does, and not only up to where the backing image ends.
            self.zero_claimed(new)?;
        }
        Ok(())
    }

    /// Moves to a larger L1 table when `size_bytes` needs one.
    fn grow_l1(&self, state: &mut State, size_bytes: u64) -> Result<()> {
        let g = self.geometry;
        let needed = g.l1_entries_for(size_bytes);
        let old_entries = num::to_u64(state.l1.len());
        if needed <= old_entries {
            return Ok(());
        }
        let bytes = needed.saturating_mul(8);
        if bytes > spec::MAX_L1_BYTES {
            return Err(Error::Limit {
                what: "L1 table in bytes",
                needed: bytes,
                limit: spec::MAX_L1_BYTES,
            });
        }
        self.file.note("l1_grow_alloc_table");
        let (run, _) = self.allocate(state, g.clusters_for(bytes))?;
        let at = g.cluster_offset(run.first);
        // The new table must not hold entries that lead to what is not there yet.
        self.catch_up(state)?;
        // In place of the old one only when the header says so: a failure leaves that in force.
        let mut table = state.l1.clone();
        table.resize(num::to_usize(needed)?, 0);
        let raw: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        let file = self.file_writer()?;
        file.note("l1_grow_write_table");
        file.write_all_at(&raw, at).map_err(Error::io("write L1 table", at))?;
        self.barrier(state)?;
        // Length and offset are next to each other in one sector: both change or none does.
        let entries = u32::try_from(needed).unwrap_or(u32::MAX);
        let mut field = [0; 12];
        let (entries_bytes, at_bytes) = field.split_at_mut(4);
        entries_bytes.copy_from_slice(&entries.to_be_bytes());
        at_bytes.copy_from_slice(&at.to_be_bytes());
        file.note("l1_grow_activate_table");
        file.write_all_at(&field, offset::L1_SIZE)
            .map_err(Error::io("write header", offset::L1_SIZE))?;
        self.barrier(state)?;
        let old_first = g.cluster_index(state.header.l1_offset);
        let old_clusters = g.clusters_for(old_entries.saturating_mul(8));
        state.l1 = table;
        state.header.l1_entries = entries;
        state.header.l1_offset = at;
        let allocator = state.allocator_mut()?;
        let old = old_first..old_first.saturating_add(old_clusters);
        allocator.guard.remove(old.clone());
        allocator.guard.add(run.first..run.end());
        allocator.release(old, Afterwards::Keep);
        Ok(())
    }

    fn write_size(&self, state: &mut State, size_bytes: u64) -> Result<()> {
        self.file_writer()?
            .write_all_at(&size_bytes.to_be_bytes(), offset::SIZE)
            .map_err(Error::io("write header", offset::SIZE))?;
        state.header.size_bytes = size_bytes;
        self.size_bytes.store(size_bytes, Ordering::Release);
        Ok(())
    }

    fn data_file_writer(&self) -> Option<&dyn StorageWrite> {
        self.data_file.as_ref().and_then(|file| file.writer())
    }
}
