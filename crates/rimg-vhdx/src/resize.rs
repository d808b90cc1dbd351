//! Growing and shrinking.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::header::region::{Region, Regions};
use crate::image::VhdxImage;
use crate::map::{Direction, VhdxMap};
use crate::spec;
use crate::table::Payload;
use rimg_blocks::Freed;
use rimg_core::{Error, Preallocation, Resize, Result, num};

impl Resize for VhdxImage {
    /// New blocks of a fixed disk get their places at once, whatever is asked for.
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        if preallocation != Preallocation::Off {
            return Err(Error::InvalidOption {
                option: "preallocation",
                reason: format!("Unsupported preallocation mode '{}'", preallocation.name()),
            });
        }
        self.blocks.resize(size_bytes)
    }
}

impl VhdxMap {
    /// Makes the table fit another size, in memory.
    pub(crate) fn change_size(&mut self, size_bytes: u64) -> Result<Vec<Freed>> {
        let entries = self.geometry.entries_for(size_bytes, self.has_parent);
        let mut freed = Vec::new();
        if size_bytes < self.size_bytes {
            self.drop_entries(entries, size_bytes, &mut freed)?;
            self.todo.size = Some(Direction::Down);
            self.todo.cut = true;
        } else {
            freed.extend(self.make_table_fit(entries)?);
            self.complete_last_block();
            self.add_entries(entries, size_bytes)?;
            self.todo.size = Some(Direction::Up);
        }
        self.size_bytes = size_bytes;
        self.bits = None;
        Ok(freed)
    }

    fn drop_entries(&mut self, keep: u64, size_bytes: u64, freed: &mut Vec<Freed>) -> Result<()> {
        let len = num::to_u64(self.bat.entries.len());
        // The last chunk keeps its sector bitmap, which has an entry only over a parent; blocks in
        // front of it go all the same.
        let blocks = self.geometry.blocks_for(size_bytes);
        let first = keep.min(self.geometry.entry_of(blocks));
        for index in first..len {
            let is_behind = match self.geometry.block_of_entry(index) {
                Some(block) => block >= blocks,
                None => index >= keep,
            };
            if !is_behind {
                continue;
            }
            let place = self.place_of(index, self.bat.entry(index));
            freed.extend(place.map(|(host, len_bytes)| Freed { host, len_bytes }));
            self.set_entry(index, 0);
        }
        self.bat.entries.truncate(num::to_usize(keep)?);
        let ends = self.used().into_iter().map(|range| range.end).max().unwrap_or_default();
        // The last block may be cut off where the disk ends.
        let len = self.file.len_bytes().map_err(Error::io("read file length", 0))?;
        self.used_end = ends.min(len);
        self.space.cut(num::align_up(self.used_end, spec::ALIGN_BYTES).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Makes the file have all of the last block, where it ends with the disk.
    fn complete_last_block(&mut self) {
        let Some(last) = self.blocks().checked_sub(1) else { return };
        let place = self.payload(last).ok().and_then(Payload::place);
        if let Some(host) = place {
            self.used_end = self.used_end.max(host.saturating_add(self.geometry.block_bytes()));
            self.todo.grow = true;
        }
    }

    /// Gives the table another place when it has to become larger than its region.
    fn make_table_fit(&mut self, entries: u64) -> Result<Option<Freed>> {
        let needed = entries.saturating_mul(spec::BAT_ENTRY_BYTES);
        if needed > self.limits.metadata_bytes {
            let limit = self.limits.metadata_bytes;
            return Err(Error::Limit { what: "block allocation table", needed, limit });
        }
        if needed <= self.bat.region.length {
            return Ok(None);
        }
        let length = num::align_up(needed, spec::ALIGN_BYTES).unwrap_or(u64::MAX);
        let place = self.space.take(length)?;
        let old = self.bat.region;
        self.bat.region = Region { offset: place.host, length };
        self.regions = Regions { bat: self.bat.region, ..self.regions.clone() };
        self.used_end = self.used_end.max(self.bat.region.end());
        self.todo.bat_moved = true;
        self.todo.grow = true;
        Ok(Some(Freed { host: old.offset, len_bytes: old.length }))
    }

    fn add_entries(&mut self, entries: u64, size_bytes: u64) -> Result<()> {
        let first = num::to_u64(self.bat.entries.len());
        self.bat.entries.resize(num::to_usize(entries)?, 0);
        for index in first..entries {
            self.set_entry(index, Payload::NotPresent.encode());
        }
        if !self.is_fixed || self.has_parent {
            return Ok(());
        }
        let block_bytes = self.geometry.block_bytes();
        for block in self.blocks()..self.geometry.blocks_for(size_bytes) {
            let place = match self.space.take_zeroed(block_bytes) {
                Ok(place) => place,
                Err(error) => {
                    self.bat.entries.truncate(num::to_usize(first)?);
                    return Err(error);
                }
            };
            self.set_payload(block, Payload::FullyPresent(place.host));
            self.used_end = self.used_end.max(place.host.saturating_add(block_bytes));
            self.todo.grow = true;
        }
        Ok(())
    }
}
