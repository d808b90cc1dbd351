//! The block allocation table in memory, and what hangs on it.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::allocate::Space;
use crate::error::{CorruptKind, unsupported};
use crate::header::region::{Region, Regions};
use crate::header::{Guid, Headers};
use crate::log::{LogWriter, Sector};
use crate::spec;
use crate::table::{Payload, parse_bitmap};
use core::ops::Range;
use rimg_blocks::{BlockMap, Freed, Place, Stage, Zeroed};
use rimg_core::{Error, Extent, ExtentKind, FileOffset, HostOffset, Limits, Result, Storage, num};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many entries lie in a sector of the log.
const ENTRIES_PER_SECTOR: u64 = spec::log::SECTOR_BYTES / spec::BAT_ENTRY_BYTES;

/// What an image says of where its blocks are.
#[derive(Debug)]
pub(crate) struct VhdxMap {
    pub(crate) file: Arc<dyn Storage>,
    pub(crate) limits: Limits,
    pub(crate) geometry: Geometry,
    pub(crate) size_bytes: u64,
    /// Where the metadata have the size.
    pub(crate) size_at: u64,
    /// Where the metadata have the parent's identifier, and in how many bytes.
    pub(crate) linkage_at: Option<(u64, usize)>,
    pub(crate) has_parent: bool,
    /// Blocks keep their places.
    pub(crate) is_fixed: bool,
    pub(crate) bat: Bat,
    pub(crate) headers: Headers,
    pub(crate) regions: Regions,
    /// Nothing in an image that is only read.
    pub(crate) space: Space,
    /// Where the last structure of the file ends, as far as the file goes.
    pub(crate) used_end: u64,
    pub(crate) log: LogWriter,
    pub(crate) todo: Todo,
    pub(crate) taken: Todo,
    /// Whether the headers have been changed for what is being written, and not yet for its end.
    pub(crate) has_begun: bool,
    /// Which of the headers on disk are good is not known: writing one failed.
    pub(crate) headers_unknown: bool,
    /// The sector bits of the block that was last asked for.
    pub(crate) bits: Option<(u64, Vec<u8>)>,
}

/// What memory has and the disk has not.
#[derive(Debug, Default)]
pub(crate) struct Todo {
    /// The sectors of the table, counted from its start.
    pub(crate) sectors: BTreeSet<u64>,
    pub(crate) size: Option<Direction>,
    /// The parent is to be known by this.
    pub(crate) linkage: Option<Guid>,
    /// The table got another place.
    pub(crate) bat_moved: bool,
    /// The region tables are to be written anew.
    pub(crate) region_tables: bool,
    /// The file has to have this length at least.
    pub(crate) grow: bool,
    /// What lies behind the last structure is to be cut off.
    pub(crate) cut: bool,
}

/// Where a size is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Bat {
    /// As in the file.
    pub(crate) entries: Vec<u64>,
    pub(crate) region: Region,
}

impl Bat {
    pub(crate) fn entry(&self, index: u64) -> u64 {
        usize::try_from(index).ok().and_then(|at| self.entries.get(at)).copied().unwrap_or_default()
    }

    /// Where an entry lies in the file.
    pub(crate) fn at(&self, index: u64) -> u64 {
        self.region.offset.saturating_add(index.saturating_mul(spec::BAT_ENTRY_BYTES))
    }

    /// A sector of the table; behind the last entry are zeroes.
    pub(crate) fn sector(&self, number: u64) -> (u64, Sector) {
        let first = number.saturating_mul(ENTRIES_PER_SECTOR);
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let mut sector = [0; 4096];
        let entries = self.entries.get(first..).unwrap_or_default();
        for (bytes, entry) in sector.as_chunks_mut::<8>().0.iter_mut().zip(entries) {
            *bytes = entry.to_le_bytes();
        }
        let behind = number.saturating_mul(spec::log::SECTOR_BYTES);
        (self.region.offset.saturating_add(behind), sector)
    }
}

impl VhdxMap {
    pub(crate) fn payload(&self, block: u64) -> Result<Payload> {
        let index = self.geometry.entry_of(block);
        Payload::parse(self.bat.entry(index)).map_err(|kind| self.wrong(kind, index))
    }

    pub(crate) fn set_payload(&mut self, block: u64, payload: Payload) {
        self.set_entry(self.geometry.entry_of(block), payload.encode());
    }

    pub(crate) fn set_entry(&mut self, index: u64, entry: u64) {
        let known = usize::try_from(index).ok().and_then(|at| self.bat.entries.get_mut(at));
        if let Some(known) = known {
            *known = entry;
            self.todo.sectors.insert(index / ENTRIES_PER_SECTOR);
        }
    }

    /// An error about an entry.
    pub(crate) fn wrong(&self, kind: CorruptKind, index: u64) -> Error {
        kind.at("block allocation table", "entry", self.bat.at(index))
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.geometry.blocks_for(self.size_bytes)
    }

    /// Everything that lies in the file, but for the header section.
    pub(crate) fn used(&self) -> Vec<Range<u64>> {
        let header = &self.headers.current;
        let log = Region { offset: header.log_offset, length: header.log_length };
        let regions = self.regions.all().chain([log]).map(|region| region.offset..region.end());
        let places = (0..).zip(&self.bat.entries).filter_map(|(index, entry)| {
            let (host, len) = self.place_of(index, *entry)?;
            Some(host..host.saturating_add(len))
        });
        regions.chain(places).collect()
    }

    /// Where what an entry describes lies, and how long it is; nothing for entries that cannot be.
    pub(crate) fn place_of(&self, index: u64, entry: u64) -> Option<(u64, u64)> {
        if self.geometry.block_of_entry(index).is_some() {
            let host = Payload::parse(entry).ok()?.place()?;
            Some((host, self.geometry.block_bytes()))
        } else {
            Some((parse_bitmap(entry).ok()??, spec::BITMAP_BLOCK_BYTES))
        }
    }

    /// The first run of what a block is, from a guest byte on.
    fn piece(&mut self, at: u64, end: u64) -> Result<Extent> {
        let block = self.geometry.block_of(at);
        let within = self.geometry.in_block(at);
        let left = self.geometry.block_bytes().saturating_sub(within);
        let len_bytes = left.min(end.saturating_sub(at));
        let place =
            |host: u64| FileOffset { file: 0, host: HostOffset(host.saturating_add(within)) };
        let kind = match self.payload(block)? {
            Payload::NotPresent => ExtentKind::Backing { allocation: None },
            Payload::Zero => ExtentKind::Zero { allocation: None },
            Payload::Undefined(reserved) | Payload::Unmapped(reserved) => {
                ExtentKind::Zero { allocation: reserved.map(place) }
            }
            Payload::FullyPresent(host) => ExtentKind::Data(place(host)),
            Payload::PartiallyPresent(host) => {
                let (is_here, run) = self.run_of_bits(block, within)?;
                let kind = if is_here {
                    ExtentKind::Data(place(host))
                } else {
                    ExtentKind::Backing { allocation: None }
                };
                return Ok(Extent { len_bytes: len_bytes.min(run), kind });
            }
        };
        Ok(Extent { len_bytes, kind })
    }

    /// Whether the sector at a byte of a block lies in the file, and how long that stays so.
    fn run_of_bits(&mut self, block: u64, within: u64) -> Result<(bool, u64)> {
        if self.bits.as_ref().is_none_or(|(known, _)| *known != block) {
            let bits = self.read_bits(block)?;
            self.bits = Some((block, bits));
        }
        let bits = self.bits.as_ref().map_or(&[][..], |(_, bits)| bits);
        let sector_bytes = self.geometry.sector_bytes();
        let first = within.checked_div(sector_bytes).unwrap_or_default();
        let is_set = |sector: u64| {
            let byte = usize::try_from(sector / 8).ok().and_then(|at| bits.get(at));
            byte.map(|byte| byte >> (sector % 8) & 1 == 1)
        };
        let is_here = is_set(first).unwrap_or_default();
        let mut end = first.saturating_add(1);
        while is_set(end) == Some(is_here) {
            end = end.saturating_add(1);
        }
        Ok((is_here, end.saturating_mul(sector_bytes).saturating_sub(within)))
    }

    fn read_bits(&self, block: u64) -> Result<Vec<u8>> {
        let index = self.geometry.bitmap_entry_of(block);
        let bitmap = parse_bitmap(self.bat.entry(index)).map_err(|kind| self.wrong(kind, index))?;
        let Some(bitmap) = bitmap.filter(|_| self.has_parent) else {
            return Err(self.wrong(CorruptKind::NoBitmap, self.geometry.entry_of(block)));
        };
        let at = bitmap.saturating_add(self.geometry.bits_at(block));
        let mut bits = vec![0; num::to_usize(self.geometry.bits_bytes())?];
        self.file.read_exact_at(&mut bits, at).map_err(Error::io("read sector bitmap", at))?;
        Ok(bits)
    }
}

impl BlockMap for VhdxMap {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent(&mut self, range: Range<u64>) -> Result<Extent> {
        let mut extent = self.piece(range.start, range.end)?;
        loop {
            let at = range.start.saturating_add(extent.len_bytes);
            if at >= range.end {
                return Ok(extent);
            }
            // What is wrong there is told to who asks for it.
            let Ok(next) = self.piece(at, range.end) else { return Ok(extent) };
            if next.kind != extent.kind.advanced(extent.len_bytes) {
                return Ok(extent);
            }
            extent.len_bytes = extent.len_bytes.saturating_add(next.len_bytes);
        }
    }

    fn place(&mut self, block: u64) -> Result<Place> {
        match self.payload(block)? {
            Payload::Undefined(Some(host)) | Payload::Unmapped(Some(host)) => {
                Ok(Place { host, is_zeroed: false })
            }
            _ => self.space.take(self.geometry.block_bytes()),
        }
    }

    fn unplace(&mut self, block: u64, place: Place) {
        let is_own = self.payload(block).is_ok_and(|known| known.place() == Some(place.host));
        if !is_own {
            let len_bytes = self.geometry.block_bytes();
            self.space.give(Freed { host: place.host, len_bytes });
        }
    }

    fn set_data(&mut self, block: u64, place: Place) -> Result<Option<Freed>> {
        let old = self.payload(block)?.place().filter(|old| *old != place.host);
        self.set_payload(block, Payload::FullyPresent(place.host));
        let len_bytes = self.geometry.block_bytes();
        self.used_end = self.used_end.max(place.host.saturating_add(len_bytes));
        Ok(old.map(|host| Freed { host, len_bytes }))
    }

    fn set_zero(&mut self, block: u64) -> Result<Zeroed> {
        let old = self.payload(block)?;
        let place = old.place();
        if self.is_fixed && place.is_some() {
            return Ok(match old {
                Payload::Undefined(_) | Payload::Unmapped(_) => Zeroed::Done(None),
                _ => Zeroed::Impossible,
            });
        }
        self.set_payload(block, Payload::Zero);
        let len_bytes = self.geometry.block_bytes();
        Ok(Zeroed::Done(place.map(|host| Freed { host, len_bytes })))
    }

    fn set_size_bytes(&mut self, size_bytes: u64) -> Result<Vec<Freed>> {
        if !crate::header::metadata::is_possible_size(size_bytes, self.geometry) {
            return Err(unsupported(format!("disk size of {size_bytes} bytes")));
        }
        self.change_size(size_bytes)
    }

    fn before_changes(&mut self) -> Result<Vec<Stage>> {
        self.begin_changes()
    }

    fn take_dirty(&mut self, closing: bool) -> Result<Vec<Stage>> {
        self.take_stages(closing)
    }

    fn write_failed(&mut self) {
        self.take_back();
    }

    fn reuse(&mut self, freed: Freed) {
        self.space.give(freed);
    }

    fn dirty_bytes(&self) -> usize {
        let Todo { sectors, size, linkage, bat_moved, region_tables, grow, cut } = &self.todo;
        let others =
            size.is_some() || linkage.is_some() || *bat_moved || *region_tables || *grow || *cut;
        sectors.len().saturating_add(usize::from(others)).saturating_mul(4096)
    }
}
