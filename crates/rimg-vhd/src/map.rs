//! The block allocation table and the bitmaps of the blocks.
//!
//! An entry of the table is the sector where a block's bitmap lies; its data follows. A bit of the
//! bitmap says whether a sector of the block is there. What is written is always a whole block, so
//! that all bits are set before anything refers to it, and only images of other programs have
//! blocks that are there in part.
//!
//! New blocks are put where the footer is, which moves behind them: until it is written again, its
//! copy at the start of the file stands in for it.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod bitmaps;
mod space;

use crate::error::{CorruptKind, FORMAT};
use crate::header::{DynamicHeader, Footer, layout_offset};
use crate::spec::{self, ENTRY_BYTES, SECTOR_BYTES};
use bitmaps::Bitmaps;
use core::ops::Range;
use rimg_blocks::{BlockMap, Change, Freed, Place, Stage, Zeroed};
use rimg_core::{Error, Extent, ExtentKind, FileOffset, HostOffset, Result, Storage, num};
use space::Space;
use std::collections::BTreeSet;
use std::sync::Arc;

/// So many entries of the table are written together: a sector of them.
const PAGE_ENTRIES: u64 = 128;

/// How much of a block is copied at a time, in bytes.
const PIECE_BYTES: u64 = 1 << 20;

/// The tables of an open image, all of the block allocation table in memory.
#[derive(Debug)]
pub(crate) struct VhdMap {
    pub(crate) file: Arc<dyn Storage>,
    pub(crate) footer: Footer,
    pub(crate) header: DynamicHeader,
    /// The size of the disk, in bytes.
    size_bytes: u64,
    /// All entries of the table: the sectors of the blocks' bitmaps.
    pub(crate) entries: Vec<u32>,
    has_parent: bool,
    /// The file is at least so long.
    known_len: u64,
    bitmaps: Bitmaps,
    /// Parts of the file that are free, where the image was opened for writing.
    space: Space,
    dirty: Dirty,
    /// What was taken last, in case that it is not written.
    taken: Dirty,
}

/// What is newer than on disk.
#[derive(Debug, Clone, Default)]
struct Dirty {
    /// Sectors of the table.
    pages: BTreeSet<u64>,
    /// Bitmaps that become all ones, by where they are.
    bitmaps: BTreeSet<u64>,
    /// The footer has to be written where the file's data ends.
    footer: bool,
    /// The disk's size changed: its copy, too.
    size: Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Size {
    #[default]
    Same,
    /// What the table says of blocks behind the end is not true any more.
    Smaller,
    /// The header says where a longer table is.
    Larger,
}

/// What was read of an image's tables.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) footer: Footer,
    pub(crate) header: DynamicHeader,
    pub(crate) size_bytes: u64,
    pub(crate) entries: Vec<u32>,
}

impl VhdMap {
    pub(crate) fn new(file: Arc<dyn Storage>, tables: Tables, has_parent: bool) -> Self {
        let Tables { footer, header, size_bytes, entries } = tables;
        Self {
            file,
            footer,
            header,
            size_bytes,
            entries,
            has_parent,
            known_len: 0,
            bitmaps: Bitmaps::default(),
            space: Space::default(),
            dirty: Dirty::default(),
            taken: Dirty::default(),
        }
    }

    /// Finds out which parts of the file are free. Nothing may be written unless every block has a
    /// place of its own inside the file.
    pub(crate) fn prepare_for_writing(&mut self) -> Result<()> {
        let mut used: Vec<u32> = Vec::new();
        used.try_reserve_exact(self.entries.len()).map_err(|_| Error::Limit {
            what: "block allocation table",
            needed: self.header.table_bytes(),
            limit: 0,
        })?;
        let len = self.file_len()?;
        for (block, &entry) in self.entries.iter().enumerate() {
            if entry == spec::UNUSED {
                continue;
            }
            if self.end_of(entry, num::to_u64(block)) > len {
                return Err(self.at_entry(CorruptKind::BehindEnd(entry), num::to_u64(block)));
            }
            used.push(entry);
        }
        used.sort_unstable();
        let tables = self.metadata();
        self.space = Space::new(self.header.stride());
        for range in &tables {
            self.space.reach(range.end);
        }
        let mut before: Option<u64> = None;
        for &entry in &used {
            let start = start_of(entry);
            let end = start.saturating_add(self.header.stride());
            let overlaps = before.is_some_and(|before| before > start)
                || tables.iter().any(|table| table.start < end && start < table.end);
            if overlaps {
                let block = self.entries.iter().rposition(|other| *other == entry).unwrap_or(0);
                return Err(self.at_entry(CorruptKind::Overlap(entry), num::to_u64(block)));
            }
            if let Some(before) = before {
                let is_metadata =
                    tables.iter().any(|table| table.start < start && before < table.end);
                if !is_metadata {
                    self.space.add_gap(before..start);
                }
            }
            self.space.reach(end);
            before = Some(end);
        }
        Ok(())
    }

    /// Whether there is an image below.
    pub(crate) fn has_parent(&self) -> bool {
        self.has_parent
    }

    /// Where headers, the table, and the parent's names lie; not the footer at the end, which
    /// moves.
    pub(crate) fn metadata(&self) -> Vec<Range<u64>> {
        let part = |start: u64, len: u64| start..start.saturating_add(len);
        let mut parts = vec![
            part(0, spec::FOOTER_BYTES),
            part(self.footer.data_offset(), spec::DYNAMIC_HEADER_BYTES),
            part(self.header.table_offset, self.header.table_bytes()),
        ];
        for locator in &self.header.locators {
            parts.push(part(locator.offset, spec::whole_sectors(locator.len_bytes.into())));
        }
        parts
    }

    /// How many blocks the disk has.
    pub(crate) fn blocks(&self) -> u64 {
        self.size_bytes.div_ceil(self.block_bytes())
    }

    pub(crate) fn block_bytes(&self) -> u64 {
        self.header.block_bytes.into()
    }

    /// The entry of a block, if it has a place.
    pub(crate) fn entry(&self, block: u64) -> Option<u32> {
        let entry = num::to_usize(block).ok().and_then(|block| self.entries.get(block));
        entry.copied().filter(|entry| *entry != spec::UNUSED)
    }

    pub(crate) fn set_entry(&mut self, block: u64, entry: u32) -> Result<()> {
        let place = num::to_usize(block).ok().and_then(|block| self.entries.get_mut(block));
        *place.ok_or(Error::Misuse("block behind the end of the disk"))? = entry;
        self.dirty.pages.insert(block / PAGE_ENTRIES);
        self.bitmaps.forget(block);
        Ok(())
    }

    pub(crate) fn file_len(&self) -> Result<u64> {
        self.file.len_bytes().map_err(Error::io("read file length", 0))
    }

    /// Whether the file is at least so long.
    fn is_inside(&mut self, end: u64) -> Result<bool> {
        if end > self.known_len {
            self.known_len = self.file_len()?;
        }
        Ok(end <= self.known_len)
    }

    /// Where the data of the block with this entry begins.
    fn data_of(&self, entry: u32) -> u64 {
        start_of(entry).saturating_add(self.header.bitmap_bytes())
    }

    /// Where what the disk has of a block ends, if this is its entry.
    pub(crate) fn end_of(&self, entry: u32, block: u64) -> u64 {
        let start = block.saturating_mul(self.block_bytes());
        let len = self.size_bytes.saturating_sub(start).min(self.block_bytes());
        self.data_of(entry).saturating_add(len)
    }

    pub(crate) fn at_entry(&self, kind: CorruptKind, block: u64) -> Error {
        let at = self.header.table_offset.saturating_add(block.saturating_mul(ENTRY_BYTES));
        kind.at("block allocation table", "entry", at)
    }

    /// Where the footer belongs: behind everything else.
    pub(crate) fn end(&self) -> u64 {
        self.space.end()
    }

    /// Nothing new is put where the block with this entry is.
    pub(crate) fn keep(&mut self, entry: u32) {
        self.space.reach(start_of(entry).saturating_add(self.header.stride()));
    }

    /// Gives a block a new place, with a copy of the block at `from`, its bitmap included.
    pub(crate) fn copy_block(&mut self, block: u64, from: u32) -> Result<()> {
        let writer = self.file.writer().ok_or(Error::ReadOnly("its file cannot be written"))?;
        let place = self.space.take();
        let entry = self.entry_at(place.saturating_add(self.header.bitmap_bytes()))?;
        let len = self.file_len()?;
        let mut done = 0;
        while done < self.header.stride() {
            let at = start_of(from).saturating_add(done);
            let now = self.header.stride().saturating_sub(done).min(PIECE_BYTES);
            let mut piece = vec![0; num::to_usize(now)?];
            // The disk's last block may be shorter in the file.
            let there = num::to_usize(len.saturating_sub(at).min(now))?;
            let inside = piece.get_mut(..there).unwrap_or_default();
            self.file.read_exact_at(inside, at).map_err(Error::io("read data", at))?;
            let to = place.saturating_add(done);
            writer.write_all_at(&piece, to).map_err(Error::io("write data", to))?;
            done = done.saturating_add(now);
        }
        self.set_entry(block, entry)
    }

    /// The footer's bytes, unless they are where they belong.
    pub(crate) fn footer_if_astray(&self) -> Result<Option<Vec<u8>>> {
        let len = self.end().saturating_add(spec::FOOTER_BYTES);
        let is_there = !self.dirty.footer && self.file_len()? == len;
        Ok((!is_there).then(|| self.footer.encode().to_vec()))
    }

    /// Says that the footer at the end of the file, and its copy, have to be written.
    pub(crate) fn rewrite_footers(&mut self) {
        self.dirty.footer = true;
        self.dirty.size = Size::Larger;
    }

    /// The entry whose data begins at `host`.
    fn entry_at(&self, host: u64) -> Result<u32> {
        let start = host.checked_sub(self.header.bitmap_bytes());
        start
            .and_then(|start| u32::try_from(start / SECTOR_BYTES).ok())
            .filter(|entry| *entry != spec::UNUSED)
            .ok_or_else(|| {
                let feature = "file of more than 2 TiB".to_owned();
                Error::Unsupported { format: FORMAT, feature }
            })
    }

    fn freed(&self, entry: u32) -> Freed {
        Freed { host: start_of(entry), len_bytes: self.header.stride() }
    }

    /// What of a block that is there in part comes first in `range`, and how long it is.
    fn run_of_sectors(&mut self, block: u64, entry: u32, range: Range<u64>) -> Result<(bool, u64)> {
        let bitmap_bytes = self.header.bitmap_bytes();
        if !self.is_inside(start_of(entry).saturating_add(bitmap_bytes))? {
            return Err(self.at_entry(CorruptKind::BehindEnd(entry), block));
        }
        let start = block.saturating_mul(self.block_bytes());
        let inside = range.start.saturating_sub(start)..range.end.saturating_sub(start);
        let bitmap = bitmaps::Place { at: start_of(entry), bytes: bitmap_bytes };
        self.bitmaps.run(self.file.as_ref(), block, bitmap, inside)
    }

    fn grow(&mut self, size_bytes: u64) -> Result<()> {
        let blocks = u32::try_from(size_bytes.div_ceil(self.block_bytes())).unwrap_or(u32::MAX);
        let old = self.blocks();
        if blocks > self.header.entries {
            // A longer table goes to the end of the file: its old place may hold no more.
            self.header.table_offset = self
                .space
                .append(spec::whole_sectors(u64::from(blocks).saturating_mul(ENTRY_BYTES)));
            self.header.entries = blocks;
            self.entries.resize(num::to_usize(blocks.into())?, spec::UNUSED);
            self.dirty.pages.extend(0..u64::from(blocks).div_ceil(PAGE_ENTRIES));
        } else {
            // What a larger disk may have left there is not this one's.
            let keep = num::to_usize(old)?;
            if self.entries.iter().skip(keep).any(|entry| *entry != spec::UNUSED) {
                self.entries.iter_mut().skip(keep).for_each(|entry| *entry = spec::UNUSED);
                self.dirty.pages.extend(old / PAGE_ENTRIES..self.pages());
            }
        }
        Ok(())
    }

    fn shrink(&mut self, size_bytes: u64) -> Result<Vec<Freed>> {
        let keep = num::to_usize(size_bytes.div_ceil(self.block_bytes()))?;
        let mut freed = Vec::new();
        let mut block = num::to_u64(keep);
        for index in keep..self.entries.len() {
            if let Some(entry) = self.entries.get(index).copied()
                && entry != spec::UNUSED
            {
                freed.push(self.freed(entry));
                self.set_entry(block, spec::UNUSED)?;
            }
            block = block.saturating_add(1);
        }
        Ok(freed)
    }

    fn pages(&self) -> u64 {
        num::to_u64(self.entries.len()).div_ceil(PAGE_ENTRIES)
    }

    /// The writes for sectors of the table, neighbours as one.
    fn table_changes(&self, pages: &BTreeSet<u64>) -> Result<Stage> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for &page in pages {
            match runs.last_mut() {
                Some(run) if run.end == page => run.end = page.saturating_add(1),
                _ => runs.push(page..page.saturating_add(1)),
            }
        }
        let page_bytes = PAGE_ENTRIES.saturating_mul(ENTRY_BYTES);
        let mut changes = Vec::new();
        for run in runs {
            let first = num::to_usize(run.start.saturating_mul(PAGE_ENTRIES))?;
            let end = num::to_usize(run.end.saturating_mul(PAGE_ENTRIES))?;
            let entries = self.entries.get(first..end.min(self.entries.len()));
            let entries = entries.unwrap_or_default().iter();
            let mut bytes: Vec<u8> = entries.flat_map(|entry| entry.to_be_bytes()).collect();
            let len = run.end.saturating_sub(run.start).saturating_mul(page_bytes);
            // The table ends with a sector, the entries may end before.
            bytes.resize(num::to_usize(len)?, 0xff);
            let at = self.header.table_offset.saturating_add(run.start.saturating_mul(page_bytes));
            changes.push(Change::Write { at, bytes });
        }
        Ok(changes)
    }
}

/// Where the block with this entry begins: its bitmap.
pub(crate) fn start_of(entry: u32) -> u64 {
    u64::from(entry).saturating_mul(SECTOR_BYTES)
}

impl BlockMap for VhdMap {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent(&mut self, range: Range<u64>) -> Result<Extent> {
        let block_bytes = self.block_bytes();
        let block = range.start.checked_div(block_bytes).unwrap_or(0);
        let absent = if self.has_parent {
            ExtentKind::Backing { allocation: None }
        } else {
            ExtentKind::Zero { allocation: None }
        };
        let Some(entry) = self.entry(block) else {
            let mut end = block.saturating_add(1);
            while end.saturating_mul(block_bytes) < range.end && self.entry(end).is_none() {
                end = end.saturating_add(1);
            }
            let end = end.saturating_mul(block_bytes).min(range.end);
            return Ok(Extent { len_bytes: end.saturating_sub(range.start), kind: absent });
        };
        let start = block.saturating_mul(block_bytes);
        let end = start.saturating_add(block_bytes).min(range.end);
        let (is_there, len_bytes) = self.run_of_sectors(block, entry, range.start..end)?;
        let ahead = range.start.saturating_sub(start);
        let host = self.data_of(entry).saturating_add(ahead);
        if !is_there {
            return Ok(Extent { len_bytes, kind: absent });
        }
        if !self.is_inside(host.saturating_add(len_bytes))? {
            return Err(self.at_entry(CorruptKind::BehindEnd(entry), block));
        }
        let at = FileOffset { file: 0, host: HostOffset(host) };
        Ok(Extent { len_bytes, kind: ExtentKind::Data(at) })
    }

    fn place(&mut self, block: u64) -> Result<Place> {
        if let Some(entry) = self.entry(block) {
            // It is there in part.
            return Ok(Place { host: self.data_of(entry), is_zeroed: false });
        }
        let len = self.file_len()?;
        let host = self.space.take().saturating_add(self.header.bitmap_bytes());
        let place = Place { host, is_zeroed: host >= len };
        match self.entry_at(host) {
            Ok(_) => Ok(place),
            Err(error) => {
                self.unplace(block, place);
                Err(error)
            }
        }
    }

    fn unplace(&mut self, block: u64, place: Place) {
        let is_own = self.entry(block).is_some_and(|entry| self.data_of(entry) == place.host);
        if !is_own {
            self.space.give_back(place.host.saturating_sub(self.header.bitmap_bytes()));
        }
    }

    fn set_data(&mut self, block: u64, place: Place) -> Result<Option<Freed>> {
        let entry = self.entry_at(place.host)?;
        let old = self.entry(block);
        if old != Some(entry) {
            self.set_entry(block, entry)?;
            self.dirty.footer = true;
        }
        self.dirty.bitmaps.insert(start_of(entry));
        self.bitmaps.set_full(block);
        Ok(old.filter(|old| *old != entry).map(|old| self.freed(old)))
    }

    fn set_zero(&mut self, block: u64) -> Result<Zeroed> {
        if self.has_parent {
            return Ok(Zeroed::Impossible);
        }
        let Some(entry) = self.entry(block) else { return Ok(Zeroed::Done(None)) };
        self.set_entry(block, spec::UNUSED)?;
        self.dirty.bitmaps.remove(&start_of(entry));
        Ok(Zeroed::Done(Some(self.freed(entry))))
    }

    fn set_size_bytes(&mut self, size_bytes: u64) -> Result<Vec<Freed>> {
        if size_bytes > spec::MAX_DISK_BYTES {
            let feature = format!("disk of {size_bytes} bytes: 2040 GiB are the most");
            return Err(Error::Unsupported { format: FORMAT, feature });
        }
        let mut freed = Vec::new();
        if size_bytes < self.size_bytes {
            freed = self.shrink(size_bytes)?;
            self.dirty.size = Size::Smaller;
        } else {
            self.grow(size_bytes)?;
            self.dirty.size = Size::Larger;
        }
        self.footer = self.footer.resized(size_bytes);
        self.dirty.footer = true;
        self.size_bytes = size_bytes;
        Ok(freed)
    }

    fn take_dirty(&mut self, _closing: bool) -> Result<Vec<Stage>> {
        let dirty = core::mem::take(&mut self.dirty);
        let footer = self.footer.encode().to_vec();
        let bitmap_bytes = num::to_usize(self.header.bitmap_bytes())?;
        let ones = |at: &u64| Change::Write { at: *at, bytes: vec![0xff; bitmap_bytes] };
        let bitmaps: Stage = dirty.bitmaps.iter().map(ones).collect();
        let table = self.table_changes(&dirty.pages)?;
        let header = Change::Write {
            at: self.footer.data_offset().saturating_add(layout_offset()),
            bytes: self.header.encode_layout()?,
        };
        let copy = vec![Change::Write { at: 0, bytes: footer.clone() }];
        let mut stages = match dirty.size {
            Size::Same => vec![bitmaps, table],
            Size::Smaller => vec![bitmaps, copy, table],
            Size::Larger => vec![bitmaps, table, vec![header], copy],
        };
        if dirty.footer {
            stages.push(vec![Change::Write { at: self.end(), bytes: footer }]);
        }
        self.taken = dirty;
        Ok(stages)
    }

    fn write_failed(&mut self) {
        let taken = core::mem::take(&mut self.taken);
        self.dirty.pages.extend(taken.pages);
        // A bitmap whose block was let go of meanwhile lies where nobody looks.
        self.dirty.bitmaps.extend(taken.bitmaps);
        self.dirty.footer |= taken.footer;
        if self.dirty.size == Size::Same {
            self.dirty.size = taken.size;
        }
    }

    fn reuse(&mut self, freed: Freed) {
        self.space.give_back(freed.host);
        self.dirty.footer = true;
    }

    fn dirty_bytes(&self) -> usize {
        let Dirty { pages, bitmaps, footer, size } = &self.dirty;
        let sectors = pages.len().saturating_add(bitmaps.len());
        let footers = usize::from(*footer || *size != Size::Same);
        let sector = num::to_usize(SECTOR_BYTES).unwrap_or(usize::MAX);
        sectors.saturating_add(footers).saturating_mul(sector)
    }
}
