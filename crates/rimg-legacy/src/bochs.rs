//! Growing images of Bochs: a redolog without anything below it. A catalog says where each extent
//! of the disk is; a bitmap in front of the extent, which of its sectors were written.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::SECTOR_BYTES;
use crate::error::CorruptKind;
use crate::image::{Chunk, Stored};
use rimg_core::{Error, Limits, Match, ProbeWindow, Result, Storage, num};

pub(crate) const FORMAT: &str = "bochs";

const MAGIC: (usize, &[u8]) = (0, b"Bochs Virtual HD Image\0");
const TYPE: (usize, &[u8]) = (32, b"Redolog\0");
const SUBTYPE: (usize, &[u8]) = (48, b"Growing\0");
const VERSION_1: u32 = 0x0001_0000;
const VERSION_2: u32 = 0x0002_0000;
/// In the catalog: nothing was written to the extent.
const NOT_THERE: u32 = u32::MAX;
const MAX_CATALOG_ENTRIES: u32 = 1 << 20;
const MAX_EXTENT_BYTES: u32 = 8 << 20;
const HEADER_BYTES: usize = 512;

rimg_core::on_disk! {
    /// The numbers of a header of version 2.
    struct Numbers: LittleEndian, 512 bytes {
        version: u32 = 64,
        header: u32 = 68,
        catalog: u32 = 72,
        bitmap: u32 = 76,
        extent: u32 = 80,
        timestamp: u32 = 84,
        disk: u64 = 88,
    }
}

rimg_core::on_disk! {
    /// Where version 1 has the size of the disk.
    struct NumbersV1: LittleEndian, 512 bytes {
        disk: u64 = 84,
    }
}

pub(crate) fn probe(window: &ProbeWindow<'_>) -> Match {
    match window.head.first_chunk::<HEADER_BYTES>() {
        Some(header) if is_growing(header) => Match::Sure,
        _ => Match::No,
    }
}

/// Whether it is a growing redolog of a version that is known.
fn is_growing(header: &[u8; HEADER_BYTES]) -> bool {
    let version = Numbers::parse(header).version;
    let has = |(at, text): (usize, &[u8])| header.get(at..).is_some_and(|b| b.starts_with(text));
    has(MAGIC) && has(TYPE) && has(SUBTYPE) && matches!(version, VERSION_1 | VERSION_2)
}

/// Where the extents are.
#[derive(Debug)]
pub(crate) struct Table {
    size_bytes: u64,
    extent_bytes: u64,
    /// The bitmap in front of an extent, in bytes: whole sectors.
    bitmap_bytes: u64,
    /// Where the first extent is in the file.
    data_at: u64,
    catalog: Vec<u32>,
}

impl Table {
    pub(crate) fn read(file: &dyn Storage, limits: &Limits) -> Result<Self> {
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        let mut header = [0; HEADER_BYTES];
        if len < num::to_u64(HEADER_BYTES) {
            return Err(Error::WrongFormat { format: FORMAT });
        }
        file.read_exact_at(&mut header, 0).map_err(Error::io("read header", 0))?;
        if !is_growing(&header) {
            return Err(Error::WrongFormat { format: FORMAT });
        }
        let numbers = Numbers::parse(&header);
        let (disk, disk_at) = if numbers.version == VERSION_1 {
            (NumbersV1::parse(&header).disk, NumbersV1::offset_of("disk"))
        } else {
            (numbers.disk, Numbers::offset_of("disk"))
        };
        let within = |field, offset, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let kind = CorruptKind::OutOfRange(value.into(), least.into(), most.into());
            Err(kind.at(FORMAT, "header", field, offset))
        };
        let at = Numbers::offset_of;
        within("catalog", at("catalog"), numbers.catalog, 0, MAX_CATALOG_ENTRIES)?;
        within("extent", at("extent"), numbers.extent, 512, MAX_EXTENT_BYTES)?;
        let extent_bytes = u64::from(numbers.extent);
        if !extent_bytes.is_multiple_of(SECTOR_BYTES) {
            let kind = CorruptKind::PartOfSector(extent_bytes);
            return Err(kind.at(FORMAT, "header", "extent", at("extent")));
        }
        // A bit for each sector.
        let least_bitmap = (numbers.extent / 512).div_ceil(8);
        within("bitmap", at("bitmap"), numbers.bitmap, least_bitmap, MAX_EXTENT_BYTES)?;
        let needed = disk.div_ceil(extent_bytes);
        if needed > numbers.catalog.into() {
            let kind = CorruptKind::TooFew { found: numbers.catalog.into(), needed };
            return Err(kind.at(FORMAT, "header", "catalog", disk_at));
        }
        let catalog_at = u64::from(numbers.header);
        let catalog_bytes = u64::from(numbers.catalog).saturating_mul(4);
        let data_at = catalog_at.saturating_add(catalog_bytes);
        if data_at > len {
            let kind = CorruptKind::Truncated(len);
            return Err(kind.at(FORMAT, "catalog", "entries", catalog_at));
        }
        let mut budget = limits.metadata_budget();
        // What is read, and what is made of it.
        budget.reserve("catalog", catalog_bytes)?;
        let mut bytes = budget.buffer("catalog", catalog_bytes)?;
        file.read_exact_at(&mut bytes, catalog_at)
            .map_err(Error::io("read catalog", catalog_at))?;
        let catalog = bytes.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry)).collect();
        Ok(Self {
            size_bytes: num::align_down(disk, SECTOR_BYTES),
            extent_bytes,
            bitmap_bytes: u64::from(numbers.bitmap).next_multiple_of(SECTOR_BYTES),
            data_at,
            catalog,
        })
    }

    pub(crate) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Sectors of one extent that are all there, or all not.
    pub(crate) fn chunk(&self, file: &dyn Storage, guest: u64) -> Result<Chunk> {
        let index = guest.checked_div(self.extent_bytes).unwrap_or(0);
        let start = index.saturating_mul(self.extent_bytes);
        let end = start.saturating_add(self.extent_bytes).min(self.size_bytes);
        let entry = self.catalog.get(num::to_usize(index)?).copied().unwrap_or(NOT_THERE);
        if entry == NOT_THERE {
            let len_bytes = end.saturating_sub(start);
            return Ok(Chunk { guest: start, len_bytes, stored: Stored::Zero });
        }
        let each = self.extent_bytes.saturating_add(self.bitmap_bytes);
        let host = u64::from(entry).saturating_mul(each).saturating_add(self.data_at);
        let sectors = self.extent_bytes / SECTOR_BYTES;
        let mut bitmap = vec![0; num::to_usize(sectors.div_ceil(8))?];
        file.read_exact_at(&mut bitmap, host).map_err(Error::io("read bitmap", host))?;
        let is_there = |sector: u64| {
            let byte = usize::try_from(sector / 8).ok().and_then(|byte| bitmap.get(byte));
            byte.is_some_and(|byte| (byte >> (sector % 8)) & 1 != 0)
        };
        let first = guest.saturating_sub(start) / SECTOR_BYTES;
        let there = is_there(first);
        let ends = (first..sectors).find(|sector| is_there(*sector) != there).unwrap_or(sectors);
        let skipped = first.saturating_mul(SECTOR_BYTES);
        let chunk_at = start.saturating_add(skipped);
        let chunk_end = start.saturating_add(ends.saturating_mul(SECTOR_BYTES)).min(end);
        let place = host.saturating_add(self.bitmap_bytes).saturating_add(skipped);
        Ok(Chunk {
            guest: chunk_at,
            len_bytes: chunk_end.saturating_sub(chunk_at),
            stored: if there { Stored::Raw(place) } else { Stored::Zero },
        })
    }
}
