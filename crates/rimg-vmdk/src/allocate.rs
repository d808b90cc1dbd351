//! Places for grains and tables, and what has to be written when they change.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::{Geometry, sectors};
use crate::image::unsupported;
use crate::map::{Encoding, GrainMap};
use crate::spec::{SECTOR_BYTES, sparse};
use crate::table::{GrainEntry, TableKind};
use core::ops::Range;
use rimg_blocks::{BlockMap, Change, Freed, Place, Stage, Zeroed};
use rimg_core::{Error, Extent, Result, num};
use std::collections::BTreeSet;

/// What is free in an extent's file, and what of its metadata is newer than on disk, tables apart.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Places of grains that nobody uses, by their offsets in bytes.
    free: BTreeSet<u64>,
    /// Behind everything: where the file grows.
    next: u64,
    /// Tables whose entries in the grain directory changed.
    directory: BTreeSet<u64>,
    /// The header changed.
    header: bool,
    /// What was taken last, until it is known to be written.
    taken: Taken,
}

#[derive(Debug, Default)]
struct Taken {
    directory: BTreeSet<u64>,
    header: bool,
}

impl Room {
    /// Nothing is free but what lies behind `next`.
    pub(crate) fn behind(next: u64) -> Self {
        Self { next, ..Self::default() }
    }
}

impl GrainMap {
    /// Changes a grain's entry, and says what it was. The table is there.
    pub(crate) fn set_entry(&mut self, grain: u64, raw: u64) -> Result<GrainEntry> {
        let old = self.entry(grain)?;
        let index = num::to_usize(self.geometry.entry_of(grain))?;
        check_place(raw.saturating_mul(SECTOR_BYTES))?;
        self.put_raw(self.geometry.table_of(grain), index, raw);
        Ok(old)
    }

    /// Changes an entry of a loaded table to a number that fits it.
    pub(crate) fn put_raw(&mut self, number: u64, index: usize, raw: u64) {
        let raw = u32::try_from(raw).unwrap_or(0);
        self.cache.change(number, |table| {
            if let Some(entry) = table.as_chunks_mut::<4>().0.get_mut(index) {
                *entry = raw.to_le_bytes();
            }
        });
    }

    /// Says that a table and its copy lie elsewhere, both in one place, or nowhere.
    pub(crate) fn set_table_place(&mut self, number: u64, place: Option<u64>) {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        for list in [&mut self.directory, &mut self.redundant] {
            if let Some(slot) = list.get_mut(index) {
                *slot = place;
                self.room.directory.insert(number);
            }
        }
    }

    /// The copy of the grain directory becomes the directory as well.
    pub(crate) fn take_directory_from_copy(&mut self) {
        self.directory.clone_from(&self.redundant);
        if let Some(header) = &mut self.header {
            header.gd = header.rgd;
            header.raw.gd_offset = header.raw.rgd_offset;
            self.room.header = true;
        }
    }

    /// Makes a table for grains that have none yet.
    fn add_table(&mut self, number: u64) -> Result<()> {
        let (first, second) = self.places(number);
        if first.is_some() || second.is_some() {
            return Ok(());
        }
        let index = num::to_usize(number)?;
        let bytes = sectors(self.table_bytes()).saturating_mul(SECTOR_BYTES);
        let start = self.room.next;
        let mut end = start;
        for list in [&mut self.redundant, &mut self.directory] {
            if let Some(slot) = list.get_mut(index) {
                *slot = Some(end);
                end = end.saturating_add(bytes);
            }
        }
        check_place(end)?;
        self.room.directory.insert(number);
        self.metadata.add(core::iter::once(start..end));
        self.advance(end);
        self.cache.insert(number, vec![0; num::to_usize(self.table_bytes())?]);
        self.cache.change(number, |_| {});
        Ok(())
    }

    /// The file is used up to `end`.
    fn advance(&mut self, end: u64) {
        self.room.next = num::align_up(end, self.geometry.grain_bytes()).unwrap_or(u64::MAX);
        self.file_len = self.file_len.max(end);
    }

    /// The grain that a table no longer refers to.
    fn freed(&self, old: GrainEntry, new_host: Option<u64>) -> Option<Freed> {
        match old {
            GrainEntry::At(host) if Some(host) != new_host => {
                Some(Freed { host, len_bytes: self.geometry.grain_bytes() })
            }
            _ => None,
        }
    }

    /// Gives the directories room for more tables, behind everything, and makes the tables.
    fn grow_directories(&mut self, tables: u64) -> Result<()> {
        let old = self.directory.len();
        let wanted = num::to_usize(tables)?;
        if wanted <= old {
            return Ok(());
        }
        let Some(mut header) = self.header else {
            return Err(Error::ReadOnly("its extent cannot be written"));
        };
        let directory = sectors(tables.saturating_mul(self.kind.entry_bytes()));
        let table = sectors(self.table_bytes());
        let added = tables.saturating_sub(num::to_u64(old));
        let all =
            directory.saturating_add(added.saturating_mul(table)).saturating_mul(SECTOR_BYTES);
        let has_copy = !self.redundant.is_empty();
        let copies = if has_copy { 2 } else { 1 };
        let start = self.room.next;
        let end = start.saturating_add(all.saturating_mul(copies));
        check_place(end)?;
        let table = table.saturating_mul(SECTOR_BYTES);
        let mut at = start;
        let mut extend = |list: &mut Vec<Option<u64>>| {
            let place = at;
            at = at.saturating_add(directory.saturating_mul(SECTOR_BYTES));
            for _ in old..wanted {
                list.push(Some(at));
                at = at.saturating_add(table);
            }
            place
        };
        if has_copy {
            let place = extend(&mut self.redundant);
            header.rgd = Some(place);
            header.raw.rgd_offset = place / SECTOR_BYTES;
        }
        let place = extend(&mut self.directory);
        header.gd = Some(place);
        header.raw.gd_offset = place / SECTOR_BYTES;
        self.header = Some(header);
        self.room.directory.extend(0..tables);
        self.metadata.add(core::iter::once(start..end));
        self.advance(end);
        Ok(())
    }

    /// Lets go of all grains that begin at `first` or behind.
    pub(crate) fn drop_grains(&mut self, first: u64) -> Result<Vec<Freed>> {
        let g = self.geometry;
        let mut freed = Vec::new();
        let mut grain = first;
        while grain < g.grains() {
            let range = g.grain_start(grain)..g.size_bytes;
            let extent = self.run(&range)?;
            let end = g.grain_index(range.start.saturating_add(extent.len_bytes).saturating_sub(1));
            let end = end.saturating_add(1);
            if !matches!(extent.kind, rimg_core::ExtentKind::Backing { .. }) {
                for grain in grain..end {
                    let old = self.set_entry(grain, 0)?;
                    freed.extend(self.freed(old, None));
                }
            }
            grain = end;
        }
        Ok(freed)
    }

    /// The bytes of directory entries, from the first one that changed to the last.
    fn directory_change(
        &self,
        list: &[Option<u64>],
        at: u64,
        changed: &Range<u64>,
    ) -> Result<Change> {
        let mut bytes = Vec::new();
        for number in changed.clone() {
            let place = list.get(num::to_usize(number)?).copied().flatten().unwrap_or(0);
            let sector = u32::try_from(place / SECTOR_BYTES).map_err(|_| too_large(place))?;
            bytes.extend(sector.to_le_bytes());
        }
        Ok(Change::Write { at: at.saturating_add(changed.start.saturating_mul(4)), bytes })
    }
}

impl BlockMap for GrainMap {
    fn size_bytes(&self) -> u64 {
        self.geometry.size_bytes
    }

    fn extent(&mut self, range: Range<u64>) -> Result<Extent> {
        self.run(&range)
    }

    /// The lowest place that is free, so that images can be compared.
    fn place(&mut self, block: u64) -> Result<Place> {
        self.add_table(self.geometry.table_of(block))?;
        if let Some(host) = self.room.free.pop_first() {
            return Ok(Place { host, is_zeroed: false });
        }
        let host = self.room.next;
        let end = host.saturating_add(self.geometry.grain_bytes());
        check_place(end)?;
        self.advance(end);
        Ok(Place { host, is_zeroed: true })
    }

    fn unplace(&mut self, _block: u64, place: Place) {
        self.room.free.insert(place.host);
    }

    fn set_data(&mut self, block: u64, place: Place) -> Result<Option<Freed>> {
        let old = self.set_entry(block, place.host / SECTOR_BYTES)?;
        Ok(self.freed(old, Some(place.host)))
    }

    /// Extents without zeroed grains can say so only where nothing lies below.
    fn set_zero(&mut self, block: u64) -> Result<Zeroed> {
        let zeroed_grains = matches!(self.kind, TableKind::Sparse { zeroed_grains: true });
        let hides = self.geometry.grain_start(block) < self.below_bytes;
        let raw = match (zeroed_grains, hides) {
            (true, _) => sparse::ZEROED_GRAIN,
            (false, false) => 0,
            (false, true) => return Ok(Zeroed::Impossible),
        };
        let number = self.geometry.table_of(block);
        if self.places(number) == (None, None) {
            if !hides {
                return Ok(Zeroed::Done(None));
            }
            self.add_table(number)?;
        }
        let old = self.set_entry(block, raw)?;
        Ok(Zeroed::Done(self.freed(old, None)))
    }

    fn set_size_bytes(&mut self, size_bytes: u64) -> Result<Vec<Freed>> {
        let size_bytes = sectors(size_bytes).saturating_mul(SECTOR_BYTES);
        let new = Geometry { size_bytes, ..self.geometry };
        self.grow_directories(new.tables())?;
        let freed = self.drop_grains(new.grains())?;
        self.geometry = new;
        if let Some(header) = &mut self.header {
            header.geometry = new;
            header.raw.capacity = size_bytes / SECTOR_BYTES;
            self.room.header = true;
        }
        Ok(freed)
    }

    /// Tables before the directories that refer to them, and those before the header.
    fn take_dirty(&mut self, _closing: bool) -> Result<Vec<Stage>> {
        let taken = Taken {
            directory: std::mem::take(&mut self.room.directory),
            header: std::mem::take(&mut self.room.header),
        };
        let mut tables = Stage::new();
        for number in self.cache.take_dirty() {
            let (first, second) = self.places(number);
            for at in [first, second].into_iter().flatten().filter(|place| self.is_within(*place)) {
                let bytes = self.cache.get(number).unwrap_or_default().to_vec();
                tables.push(Change::Write { at, bytes });
            }
        }
        let mut directory = Stage::new();
        if let (Some(first), Some(last), Some(header)) =
            (taken.directory.first(), taken.directory.last(), self.header)
        {
            let changed = *first..last.saturating_add(1);
            if let Some(at) = header.rgd.filter(|_| !self.redundant.is_empty()) {
                directory.push(self.directory_change(&self.redundant, at, &changed)?);
            }
            if let Some(at) = header.gd {
                directory.push(self.directory_change(&self.directory, at, &changed)?);
            }
            directory.push(Change::SetLen(self.file_len));
        }
        let mut stages = vec![tables, directory];
        if let Some(header) = self.header.filter(|_| taken.header) {
            stages.push(vec![Change::Write { at: 0, bytes: header.raw.encode().to_vec() }]);
        }
        self.room.taken = taken;
        self.forget_holes();
        Ok(stages)
    }

    fn write_failed(&mut self) {
        let taken = std::mem::take(&mut self.room.taken);
        self.cache.taken_again();
        self.room.directory.extend(taken.directory);
        self.room.header |= taken.header;
    }

    fn reuse(&mut self, freed: Freed) {
        self.room.free.insert(freed.host);
    }

    fn dirty_bytes(&self) -> usize {
        if self.encoding != Encoding::Plain {
            // A stream is written by itself.
            return 0;
        }
        let directory = self.room.directory.len().saturating_mul(4);
        let header = usize::from(self.room.header).saturating_mul(512);
        self.cache.dirty_bytes(self.table_bytes()).saturating_add(directory).saturating_add(header)
    }
}

/// Refuses places that an entry of 32 bits cannot say.
fn check_place(end: u64) -> Result<()> {
    if u32::try_from(end / SECTOR_BYTES).is_ok() { Ok(()) } else { Err(too_large(end)) }
}

fn too_large(bytes: u64) -> Error {
    unsupported(format!("a sparse extent of {bytes} bytes: it cannot be larger than 2 TiB"))
}
