//! The block map: which block of the disk is which block of the file.
//!
//! Blocks of the file are numbered from the start of the data. Programs put a new block behind as
//! many as the header says are in use, so that number is raised on disk before an entry names a
//! block behind it, and blocks that nobody uses any more are not left between others: a block
//! keeps its place when it is zeroed or discarded.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod pages;
mod slots;

use crate::error::{CorruptKind, FORMAT};
use crate::header::{Header, offset};
use crate::spec::{self, ENTRY_BYTES};
use crate::table::Entry;
use core::ops::Range;
use pages::DirtyPages;
use rimg_blocks::{BlockMap, Change, Freed, Place, Stage, Zeroed};
use rimg_core::{
    Error, Extent, ExtentKind, FileOffset, HostOffset, Limits, MetadataBudget, Result, Storage, num,
};
use slots::Slots;
use std::sync::Arc;

/// How much of a block map is read at a time, in bytes.
const PIECE_BYTES: u64 = 1 << 20;

/// The entries of the block map, as many as the header says.
pub(crate) fn read_entries(
    file: &dyn Storage,
    header: &Header,
    budget: &mut MetadataBudget,
) -> Result<Vec<u32>> {
    header.check_place()?;
    let (at, bytes) = (header.map_offset, header.map_bytes());
    budget.reserve("block map", bytes)?;
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let end = at.saturating_add(bytes);
    if end > len {
        return Err(CorruptKind::MapTruncated.at("block map", "entries", at));
    }
    let mut entries = Vec::new();
    let blocks = num::to_usize(header.blocks.into())?;
    entries.try_reserve_exact(blocks).map_err(|_| Error::Limit {
        what: "block map",
        needed: bytes,
        limit: 0,
    })?;
    let mut piece = vec![0; num::to_usize(bytes.min(PIECE_BYTES))?];
    let mut at = at;
    while at < end {
        let now = num::to_usize(end.saturating_sub(at))?.min(piece.len());
        let bytes = piece.get_mut(..now).unwrap_or_default();
        file.read_exact_at(bytes, at).map_err(Error::io("read block map", at))?;
        let (words, _) = bytes.as_chunks::<4>();
        entries.extend(words.iter().map(|word| u32::from_le_bytes(*word)));
        at = at.saturating_add(num::to_u64(now));
    }
    Ok(entries)
}

/// The block map of an open image, all of it in memory.
#[derive(Debug)]
pub(crate) struct VdiMap {
    pub(crate) file: Arc<dyn Storage>,
    /// As it will be once all is written.
    pub(crate) header: Header,
    /// Raw entries, as many as the header says.
    pub(crate) entries: Vec<u32>,
    has_parent: bool,
    /// The file is at least so long.
    known_len: u64,
    /// Blocks of the file, where the image was opened for writing.
    pub(crate) slots: Slots,
    is_prepared: bool,
    dirty: DirtyPages,
    /// The layout of the header changed.
    layout: Layout,
    /// What was taken last, in case that it is not written.
    taken: Taken,
}

/// What there is to be written of the header beside the number of blocks in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Layout {
    #[default]
    Clean,
    /// There are fewer blocks: the header goes first, since what the map says of the others is
    /// not true any more.
    Smaller,
    /// There is a map for more blocks: it goes first.
    Larger,
}

#[derive(Debug, Default)]
struct Taken {
    pages: DirtyPages,
    layout: Layout,
    allocated: u32,
}

impl VdiMap {
    pub(crate) fn new(
        file: Arc<dyn Storage>,
        header: Header,
        entries: Vec<u32>,
        has_parent: bool,
    ) -> Self {
        Self {
            file,
            header,
            entries,
            has_parent,
            known_len: 0,
            slots: Slots::default(),
            is_prepared: false,
            dirty: DirtyPages::default(),
            layout: Layout::Clean,
            taken: Taken { allocated: header.allocated, ..Taken::default() },
        }
    }

    /// Reads the entries, if they were left out.
    pub(crate) fn read_left_out(&mut self, limits: Limits) -> Result<()> {
        if self.entries.is_empty() {
            let mut budget = limits.metadata_budget();
            self.entries = read_entries(self.file.as_ref(), &self.header, &mut budget)?;
        }
        Ok(())
    }

    /// Finds out which blocks of the file are free. Nothing may be written unless every entry
    /// names a block of its own inside the file.
    pub(crate) fn prepare_for_writing(&mut self) -> Result<()> {
        let mut used: Vec<u32> = Vec::new();
        used.try_reserve_exact(self.entries.len()).map_err(|_| Error::Limit {
            what: "block map",
            needed: self.header.map_bytes(),
            limit: 0,
        })?;
        let len = self.file_len()?;
        for (block, raw) in self.entries.iter().enumerate() {
            let Entry::Block(index) = Entry::parse(*raw) else { continue };
            let block = num::to_u64(block);
            if self.end_of(index, block) > len {
                return Err(self.at_entry(CorruptKind::BehindEnd(index), block));
            }
            used.push(index);
        }
        used.sort_unstable();
        let twice = used.windows(2).find(|pair| pair.first() == pair.last());
        if let Some(&index) = twice.and_then(<[u32]>::first) {
            let block = self.entries.iter().rposition(|raw| *raw == index).unwrap_or(0);
            return Err(self.at_entry(CorruptKind::UsedTwice(index), num::to_u64(block)));
        }
        self.slots = Slots::with_used(used.into_iter());
        self.is_prepared = true;
        Ok(())
    }

    pub(crate) fn blocks(&self) -> u64 {
        num::to_u64(self.entries.len())
    }

    pub(crate) fn block_bytes(&self) -> u64 {
        self.header.block_bytes.into()
    }

    pub(crate) fn entry(&self, block: u64) -> Entry {
        let raw = num::to_usize(block).ok().and_then(|block| self.entries.get(block));
        raw.map_or(Entry::Free, |raw| Entry::parse(*raw))
    }

    /// Changes the entry of a block of the disk.
    pub(crate) fn set_entry(&mut self, block: u64, entry: Entry) -> Result<()> {
        let place = num::to_usize(block).ok().and_then(|block| self.entries.get_mut(block));
        *place.ok_or(Error::Misuse("block behind the end of the disk"))? = entry.encode();
        self.dirty.add(block);
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

    /// Where what the disk has of block `block` ends, if it is block `index` of the file.
    pub(crate) fn end_of(&self, index: u32, block: u64) -> u64 {
        let start = block.saturating_mul(self.block_bytes());
        let len = self.size_bytes().saturating_sub(start).min(self.block_bytes());
        self.header.block_at(index).saturating_add(len)
    }

    pub(crate) fn at_entry(&self, kind: CorruptKind, block: u64) -> Error {
        let at = self.header.map_offset.saturating_add(block.saturating_mul(ENTRY_BYTES));
        kind.at("block map", "entry", at)
    }

    /// The part of the file that block `index` of it takes.
    fn freed(&self, index: u32) -> Freed {
        Freed { host: self.header.block_at(index), len_bytes: self.block_bytes() }
    }

    /// The number of the block of the file that lies at `host`.
    fn index_at(&self, host: u64) -> Result<u32> {
        let before = host.saturating_sub(self.header.block_at(0));
        let index = before.checked_div(self.header.stride());
        index
            .and_then(|index| u32::try_from(index).ok())
            .ok_or(Error::Misuse("a place that is no block's"))
    }

    /// How many blocks an own disk of so many bytes has, and how large its map is.
    fn blocks_for(&self, size_bytes: u64) -> Result<u32> {
        let blocks = size_bytes.div_ceil(self.block_bytes());
        u32::try_from(blocks).ok().filter(|_| blocks <= spec::MAX_BLOCKS).ok_or_else(|| {
            let feature = format!("disk of {size_bytes} bytes");
            Error::Unsupported { format: FORMAT, feature }
        })
    }

    /// How many blocks at the start of the data a map of `blocks` entries takes, if it does not
    /// fit before them.
    fn blocks_for_map(&self, blocks: u32) -> u32 {
        let bytes = u64::from(blocks).saturating_mul(ENTRY_BYTES);
        if self.header.map_offset.saturating_add(bytes) <= self.header.data_offset {
            return 0;
        }
        u32::try_from(bytes.div_ceil(self.header.stride())).unwrap_or(u32::MAX)
    }

    /// How many blocks of the file are in use, or lie before one that is.
    pub(crate) fn used_end(&self) -> u32 {
        // Before anybody has looked, the header's word counts.
        if self.is_prepared { self.slots.used_end() } else { self.header.allocated }
    }

    /// Where the last block in use ends.
    pub(crate) fn data_end(&self) -> u64 {
        let strides = u64::from(self.used_end()).saturating_mul(self.header.stride());
        self.header.data_offset.saturating_add(strides)
    }

    fn grow(&mut self, blocks: u32) -> Result<()> {
        let taken = self.blocks_for_map(blocks);
        if taken > 0 {
            let by = u64::from(taken).saturating_mul(self.header.stride());
            let map_offset = self.header.data_offset;
            let data_offset = map_offset.saturating_add(by);
            if u32::try_from(data_offset).is_err() {
                let feature = "block map behind the first 4 GiB of the file".to_owned();
                return Err(Error::Unsupported { format: FORMAT, feature });
            }
            self.slots.take_lowest(taken)?;
            for raw in &mut self.entries {
                if let Entry::Block(index) = Entry::parse(*raw) {
                    *raw = Entry::Block(index.saturating_sub(taken)).encode();
                }
            }
            (self.header.map_offset, self.header.data_offset) = (map_offset, data_offset);
        }
        let old = self.blocks();
        self.entries.resize(num::to_usize(blocks.into())?, Entry::Free.encode());
        // Behind the old end there may be what a larger disk left.
        self.dirty.add_all(if taken > 0 { 0 } else { old }..blocks.into());
        Ok(())
    }

    fn shrink(&mut self, blocks: u32) -> Result<Vec<Freed>> {
        let keep = num::to_usize(blocks.into())?;
        let dropped = self.entries.split_off(keep.min(self.entries.len()));
        let mut freed = Vec::new();
        for raw in dropped {
            if let Entry::Block(index) = Entry::parse(raw) {
                self.slots.let_go(index);
                freed.push(self.freed(index));
            }
        }
        self.dirty.end_at(blocks.into());
        Ok(freed)
    }
}

impl BlockMap for VdiMap {
    fn size_bytes(&self) -> u64 {
        self.header.size_bytes()
    }

    fn extent(&mut self, range: Range<u64>) -> Result<Extent> {
        let block_bytes = self.block_bytes();
        let first = range.start.checked_div(block_bytes).unwrap_or(0);
        let ahead = range.start.checked_rem(block_bytes).unwrap_or(0);
        let entry = self.entry(first);
        let mut end = first.saturating_add(1);
        let is_plain = self.header.extra_bytes == 0;
        let follows = |next: Entry, nth: u64| match (entry, next) {
            (Entry::Block(index), Entry::Block(next)) => {
                is_plain && u64::from(index).saturating_add(nth) == u64::from(next)
            }
            (one, other) => one == other,
        };
        while end.saturating_mul(block_bytes) < range.end
            && follows(self.entry(end), end.saturating_sub(first))
        {
            end = end.saturating_add(1);
        }
        let end = end.saturating_mul(block_bytes).min(range.end);
        let kind = match entry {
            Entry::Block(index) => {
                let host = self.header.block_at(index).saturating_add(ahead);
                let len = end.saturating_sub(range.start);
                if !self.is_inside(host.saturating_add(len))? {
                    return Err(self.at_entry(CorruptKind::BehindEnd(index), first));
                }
                ExtentKind::Data(FileOffset { file: 0, host: HostOffset(host) })
            }
            Entry::Free if self.has_parent => ExtentKind::Backing { allocation: None },
            Entry::Free | Entry::Discarded => ExtentKind::Zero { allocation: None },
        };
        Ok(Extent { len_bytes: end.saturating_sub(range.start), kind })
    }

    fn place(&mut self, _block: u64) -> Result<Place> {
        let len = self.file_len()?;
        let index = self.slots.take()?;
        let host = self.header.block_at(index);
        Ok(Place { host, is_zeroed: host >= len })
    }

    fn unplace(&mut self, _block: u64, place: Place) {
        // A place that this map gave is a block's.
        if let Ok(index) = self.index_at(place.host) {
            self.slots.give_back(index);
        }
    }

    fn set_data(&mut self, block: u64, place: Place) -> Result<Option<Freed>> {
        let index = self.index_at(place.host)?;
        let old = self.entry(block);
        self.set_entry(block, Entry::Block(index))?;
        self.slots.use_it(index);
        Ok(match old {
            Entry::Block(old) if old != index => {
                self.slots.let_go(old);
                Some(self.freed(old))
            }
            _ => None,
        })
    }

    fn set_zero(&mut self, block: u64) -> Result<Zeroed> {
        match self.entry(block) {
            // A hole between other blocks is nothing that other programs know how to handle.
            Entry::Block(_) => return Ok(Zeroed::Impossible),
            Entry::Free if self.has_parent => self.set_entry(block, Entry::Discarded)?,
            Entry::Free | Entry::Discarded => {}
        }
        Ok(Zeroed::Done(None))
    }

    fn set_size_bytes(&mut self, size_bytes: u64) -> Result<Vec<Freed>> {
        if self.header.is_old {
            let feature = "changing the size of an image from before version 1".to_owned();
            return Err(Error::Unsupported { format: FORMAT, feature });
        }
        let blocks = self.blocks_for(size_bytes)?;
        let mut freed = Vec::new();
        if u64::from(blocks) < self.blocks() {
            freed = self.shrink(blocks)?;
            self.layout = Layout::Smaller;
        } else {
            self.grow(blocks)?;
            self.layout = Layout::Larger;
        }
        self.header.blocks = blocks;
        self.header.disk_bytes = size_bytes.next_multiple_of(spec::SECTOR_BYTES);
        Ok(freed)
    }

    fn in_the_way(&mut self, size_bytes: u64) -> Result<Vec<u64>> {
        let taken = self.blocks_for_map(self.blocks_for(size_bytes)?);
        self.slots.keep_from(taken);
        let mut blocks = Vec::new();
        for (block, raw) in self.entries.iter().enumerate() {
            if matches!(Entry::parse(*raw), Entry::Block(index) if index < taken) {
                blocks.push(num::to_u64(block));
            }
        }
        Ok(blocks)
    }

    fn take_dirty(&mut self, _closing: bool) -> Result<Vec<Stage>> {
        let pages = core::mem::take(&mut self.dirty);
        let layout = core::mem::take(&mut self.layout);
        let before = self.header.allocated;
        self.header.allocated = self.used_end();
        let allocated = || Change::Write {
            at: self.header.allocated_at(),
            bytes: self.header.allocated.to_le_bytes().to_vec(),
        };
        let map = pages.changes(&self.entries, self.header.map_offset)?;
        let rewritten = || Change::Write { at: offset::MAP, bytes: self.header.encode_layout() };
        let stages = match layout {
            Layout::Larger => vec![map, vec![rewritten()]],
            Layout::Smaller => vec![vec![rewritten()], map],
            Layout::Clean if self.header.allocated > before => vec![vec![allocated()], map],
            Layout::Clean if self.header.allocated < before => vec![map, vec![allocated()]],
            Layout::Clean => vec![map],
        };
        self.taken = Taken { pages, layout, allocated: before };
        Ok(stages)
    }

    fn write_failed(&mut self) {
        let taken = core::mem::take(&mut self.taken);
        self.dirty.add_those_of(&taken.pages);
        if self.layout == Layout::Clean {
            self.layout = taken.layout;
        }
        // Whatever of it is on disk, it is to be written again.
        self.header.allocated = taken.allocated;
    }

    fn reuse(&mut self, freed: Freed) {
        if let Ok(index) = self.index_at(freed.host) {
            self.slots.give_back(index);
        }
    }

    fn dirty_bytes(&self) -> usize {
        let header = if self.layout == Layout::Clean && self.used_end() == self.header.allocated {
            0
        } else {
            num::to_usize(spec::SECTOR_BYTES).unwrap_or(usize::MAX)
        };
        self.dirty.len_bytes().saturating_add(header)
    }
}
