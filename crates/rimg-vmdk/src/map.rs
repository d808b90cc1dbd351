//! From the disk to the file: grain directory, grain tables, and the markers of compressed grains.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod guard;
mod open;
mod stream;

pub(crate) use guard::Metadata;

use crate::address::Geometry;
use crate::allocate::Room;
use crate::cache::TableCache;
use crate::error::CorruptKind;
use crate::header::SparseHeader;
use crate::header::marker::GrainMarker;
use crate::spec::{SECTOR_BYTES, marker};
use crate::table::{self, GrainEntry, TableKind};
use core::ops::Range;
use rimg_core::{Codec, Error, Extent, ExtentKind, FileOffset, HostOffset, Result, Storage, num};
use std::sync::Arc;

/// How many tables without entries are looked at for one run.
const MAX_TABLES_A_RUN: u64 = 1 << 16;

/// The grains of one extent.
#[derive(Debug)]
pub(crate) struct GrainMap {
    pub(crate) file: Arc<dyn Storage>,
    /// The length of the file, in bytes, when it was opened or as far as it was written.
    pub(crate) file_len: u64,
    pub(crate) geometry: Geometry,
    pub(crate) kind: TableKind,
    pub(crate) encoding: Encoding,
    /// Where each table lies, in bytes.
    pub(crate) directory: Vec<Option<u64>>,
    /// Where each table's copy lies, where there are copies.
    pub(crate) redundant: Vec<Option<u64>>,
    pub(crate) cache: TableCache,
    /// A part of the file that is known to be a hole: tables in it need not be read.
    hole: Range<u64>,
    /// The header, of extents that can be written.
    pub(crate) header: Option<SparseHeader>,
    /// How much of the extent's part of the disk has something below it, in bytes from its start.
    pub(crate) below_bytes: u64,
    pub(crate) room: Room,
    pub(crate) metadata: Metadata,
}

/// How grains lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    /// As zlib streams.
    Compressed {
        /// With a marker before each.
        markers: bool,
    },
}

impl GrainMap {
    /// The first run of `range`, which is not empty and lies within the extent's part of the disk.
    pub(crate) fn run(&mut self, range: &Range<u64>) -> Result<Extent> {
        let g = self.geometry;
        let first = g.grain_index(range.start);
        let entry = self.entry(first)?;
        let kind = match entry {
            GrainEntry::Unallocated => ExtentKind::Backing { allocation: None },
            GrainEntry::Zero => ExtentKind::Zero { allocation: None },
            GrainEntry::At(host) => match self.encoding {
                Encoding::Plain => {
                    ExtentKind::Data(file_offset(host.saturating_add(g.in_grain(range.start))))
                }
                Encoding::Compressed { .. } => return self.compressed(first, host, range),
            },
        };
        let last = g.grain_index(range.end.saturating_sub(1));
        let mut grain = first;
        let mut tables = 0_u64;
        while grain < last {
            let next = grain.saturating_add(1);
            if entry == GrainEntry::Unallocated && g.entry_of(next) == 0 {
                tables = tables.saturating_add(1);
                if tables > MAX_TABLES_A_RUN {
                    break;
                }
                if self.is_empty_table(g.table_of(next))? {
                    grain = next.saturating_add(g.gtes()).saturating_sub(1).min(last);
                    continue;
                }
            }
            let follows = match (entry, self.entry(next)?) {
                (GrainEntry::At(host), GrainEntry::At(next_host)) => {
                    let distance = g.grain_start(next.saturating_sub(first));
                    host.checked_add(distance) == Some(next_host)
                }
                (one, other) => one == other,
            };
            if !follows {
                break;
            }
            grain = next;
        }
        let end = g.grain_start(grain.saturating_add(1)).min(range.end);
        Ok(Extent { len_bytes: end.saturating_sub(range.start), kind })
    }

    /// What the tables say of a grain.
    pub(crate) fn entry(&mut self, grain: u64) -> Result<GrainEntry> {
        let number = self.geometry.table_of(grain);
        let index = num::to_usize(self.geometry.entry_of(grain))?;
        if !self.load(number)? {
            return Ok(GrainEntry::Unallocated);
        }
        let raw = self.raw_entry(number, index);
        match self.checked(grain, raw) {
            Ok(entry) => Ok(entry),
            Err(kind) => {
                // The copy of the table may know better.
                let copy = self.copy_of_entry(number, index);
                match copy.and_then(|raw| self.checked(grain, raw).ok()) {
                    Some(entry) => Ok(entry),
                    None => {
                        let (first, second) = self.places(number);
                        let in_table = num::to_u64(index).saturating_mul(self.kind.entry_bytes());
                        let at = first.or(second).unwrap_or(0).saturating_add(in_table);
                        Err(kind.at("grain table", "entry", at))
                    }
                }
            }
        }
    }

    /// The number in a loaded table.
    pub(crate) fn raw_entry(&self, number: u64, index: usize) -> u64 {
        let table = self.cache.get(number).unwrap_or_default();
        table::entry(table, index, self.kind.entry_bytes())
    }

    /// What an entry says, if it can be: all of the grain that the disk has lies in the file.
    pub(crate) fn checked(&self, grain: u64, raw: u64) -> Result<GrainEntry, CorruptKind> {
        let entry = self.kind.grain(raw)?;
        if let GrainEntry::At(host) = entry {
            let needed = match self.encoding {
                Encoding::Plain => {
                    let range = self.geometry.grain_range(grain);
                    range.end.saturating_sub(range.start)
                }
                Encoding::Compressed { .. } => 1,
            };
            if host.saturating_add(needed) > self.file_len {
                return Err(CorruptKind::BehindEnd(host / SECTOR_BYTES));
            }
            let end = host.saturating_add(match self.encoding {
                Encoding::Plain => self.geometry.grain_bytes(),
                Encoding::Compressed { .. } => 1,
            });
            if self.metadata.overlaps(&(host..end)) {
                return Err(CorruptKind::InMetadata(host));
            }
        }
        Ok(entry)
    }

    fn compressed(&self, grain: u64, host: u64, range: &Range<u64>) -> Result<Extent> {
        let g = self.geometry;
        let end = g.grain_range(grain).end.min(range.end);
        let most = g.grain_bytes().saturating_mul(2);
        let (host, len) = match self.encoding {
            Encoding::Compressed { markers: true } => {
                let marker = self.marker(host)?;
                if u64::from(marker.size) > most {
                    let kind = CorruptKind::EncodedLength(marker.size);
                    return Err(kind.at("grain marker", "size", host.saturating_add(8)));
                }
                (host.saturating_add(marker::GRAIN_HEADER_BYTES), marker.size.into())
            }
            _ => (host, most.min(self.file_len.saturating_sub(host))),
        };
        let at = file_offset(host);
        let kind = ExtentKind::Encoded { at, len_bytes: len, codec: Codec::Zlib };
        Ok(Extent { len_bytes: end.saturating_sub(range.start), kind })
    }

    /// What stands before the compressed grain at `host`.
    pub(crate) fn marker(&self, host: u64) -> Result<GrainMarker> {
        let mut bytes = [0; 12];
        self.file.read_exact_at(&mut bytes, host).map_err(Error::io("read grain marker", host))?;
        Ok(GrainMarker::parse(&bytes))
    }

    pub(crate) fn table_bytes(&self) -> u64 {
        self.geometry.gtes().saturating_mul(self.kind.entry_bytes())
    }

    /// Where a table lies, and its copy.
    pub(crate) fn places(&self, number: u64) -> (Option<u64>, Option<u64>) {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let of = |list: &[Option<u64>]| list.get(index).copied().flatten();
        (of(&self.directory), of(&self.redundant))
    }

    /// Whether a table lies in the file, so that it can be used.
    pub(crate) fn is_within(&self, place: u64) -> bool {
        place >= SECTOR_BYTES
            && place.checked_add(self.table_bytes()).is_some_and(|end| end <= self.file_len)
    }

    /// Brings a table to the cache; `false` where there is none.
    pub(crate) fn load(&mut self, number: u64) -> Result<bool> {
        if self.cache.get(number).is_some() {
            return Ok(true);
        }
        let (first, second) = self.places(number);
        let usable = [first, second].into_iter().flatten().find(|place| self.is_within(*place));
        let place = match (usable, first.or(second)) {
            (Some(place), _) => place,
            (None, None) => return Ok(false),
            (None, Some(place)) => {
                let kind = CorruptKind::BehindEnd(place / SECTOR_BYTES);
                return Err(kind.at("grain directory", "entry", place));
            }
        };
        let bytes = self.read_table(place)?;
        self.cache.insert(number, bytes);
        Ok(true)
    }

    fn read_table(&mut self, place: u64) -> Result<Vec<u8>> {
        let len = self.table_bytes();
        let mut bytes = vec![0; num::to_usize(len)?];
        if !self.is_in_hole(place, len)? {
            self.file
                .read_exact_at(&mut bytes, place)
                .map_err(Error::io("read grain table", place))?;
        }
        Ok(bytes)
    }

    /// Whether so many bytes of the file are a hole.
    fn is_in_hole(&mut self, place: u64, len: u64) -> Result<bool> {
        let end = place.saturating_add(len);
        if self.hole.start > place || self.hole.end < end {
            // A table that is new may lie where the file does not reach yet.
            if place >= self.file.len_bytes().map_err(Error::io("read file length", 0))? {
                return Ok(true);
            }
            let run = self.file.run_at(place).map_err(Error::io("look for holes", place))?;
            if run.is_data || run.len_bytes < len {
                return Ok(false);
            }
            self.hole = place..place.saturating_add(run.len_bytes);
        }
        Ok(true)
    }

    /// The file was written to: what is known of its holes holds no more.
    pub(crate) fn forget_holes(&mut self) {
        self.hole = 0..0;
    }

    /// Whether the grain directory could be read, not only its copy.
    pub(crate) fn has_directory(&self) -> bool {
        num::to_u64(self.directory.len()) >= self.geometry.tables()
    }

    /// Whether nothing of a table is allocated, as far as that can be told without reading it.
    pub(crate) fn is_empty_table(&mut self, number: u64) -> Result<bool> {
        if self.cache.get(number).is_some() {
            return Ok(false);
        }
        match self.places(number) {
            (None, None) => Ok(true),
            (Some(place), _) if self.is_within(place) => {
                let len = self.table_bytes();
                self.is_in_hole(place, len)
            }
            _ => Ok(false),
        }
    }

    /// The entry in the table's copy, where there is one besides the table in use.
    fn copy_of_entry(&self, number: u64, index: usize) -> Option<u64> {
        let (first, second) = self.places(number);
        let copy = second.filter(|copy| first != Some(*copy) && self.is_within(*copy))?;
        let mut bytes = vec![0; num::to_usize(self.table_bytes()).ok()?];
        self.file.read_exact_at(&mut bytes, copy).ok()?;
        Some(table::entry(&bytes, index, self.kind.entry_bytes()))
    }
}

/// A place in the extent's own file.
const fn file_offset(host: u64) -> FileOffset {
    FileOffset { file: 0, host: HostOffset(host) }
}
