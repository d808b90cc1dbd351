//! Growing the disk.

use crate::allocate::Afterwards;
use crate::error::FORMAT;
use crate::header::offset;
use crate::image::{Qcow2Image, State};
use crate::spec;
use rimg_core::{BlockImage as _, Error, Preallocation, Resize, Result, num};
use std::sync::atomic::Ordering;

impl Resize for Qcow2Image {
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        let old = self.size_bytes();
        if !size_bytes.is_multiple_of(spec::SECTOR_BYTES) {
            return Err(Error::Misuse("the size is no multiple of 512 bytes"));
        }
        if size_bytes < old {
            return Err(Error::Unsupported { format: FORMAT, feature: "shrinking".into() });
        }
        {
            let mut state = self.lock()?;
            if state.header.snapshot_count > 0 && state.header.version < 3 {
                // Snapshots of version 2 do not record the size of the disk they are of.
                let feature = "resizing a version 2 image that has snapshots".into();
                return Err(Error::Unsupported { format: FORMAT, feature });
            }
            self.begin_writing(&mut state)?;
            self.begin_resizing_bitmaps(&mut state)?;
            self.grow_l1(&mut state, size_bytes)?;
            self.write_size(&mut state, size_bytes)?;
        }
        let below = self.backing.as_ref().map_or(0, |backing| backing.size_bytes());
        if below > old {
            // What a longer backing image holds must not come up.
            let (_claim, _) = self.claim_guest(&(old..below.min(size_bytes)))?;
            self.zero_claimed(old..below.min(size_bytes))?;
        }
        if let Some(file) = self.data_file.as_ref().and_then(|file| file.writer())
            && file.len_bytes().map_err(Error::io("read data file length", 0))? < size_bytes
        {
            file.set_len_bytes(size_bytes).map_err(Error::io("extend data file", old))?;
        }
        self.preallocate(old..size_bytes, preallocation)
    }
}

impl Qcow2Image {
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
        let (run, _) = self.allocate(state, g.clusters_for(bytes))?;
        let at = g.cluster_offset(run.first);
        // The new table must not hold entries that lead to what is not there yet.
        self.catch_up(state)?;
        // In place of the old one only when the header says so: a failure leaves that in force.
        let mut table = state.l1.clone();
        table.resize(num::to_usize(needed)?, 0);
        let raw: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        let file = self.file_writer()?;
        file.write_all_at(&raw, at).map_err(Error::io("write L1 table", at))?;
        self.barrier(state)?;
        // Length and offset are next to each other in one sector: both change or none does.
        let entries = u32::try_from(needed).unwrap_or(u32::MAX);
        let mut field = [0; 12];
        let (entries_bytes, at_bytes) = field.split_at_mut(4);
        entries_bytes.copy_from_slice(&entries.to_be_bytes());
        at_bytes.copy_from_slice(&at.to_be_bytes());
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
}
