//! The chunks of the disk, out of the tables of all partitions.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::trailer::Trailer;
use super::{FORMAT, plist, resource};
use crate::SECTOR_BYTES;
use crate::compress::Coding;
use crate::error::CorruptKind;
use crate::image::{Chunk, Stored};
use rimg_core::{Error, Limits, Result, Storage};

/// Of a table ("mish block"): what is before the chunks.
const TABLE_BYTES: usize = 204;
const CHUNK_BYTES: usize = 40;
const MAGIC: &[u8] = b"mish";
/// Encoded chunks are held in memory, before and after.
const MAX_CHUNK_BYTES: u64 = 64 << 20;

mod chunk_type {
    pub(super) const ZERO: u32 = 0;
    pub(super) const RAW: u32 = 1;
    /// Of a part of the disk that nothing uses.
    pub(super) const IGNORE: u32 = 2;
    pub(super) const ADC: u32 = 0x8000_0004;
    pub(super) const ZLIB: u32 = 0x8000_0005;
    pub(super) const BZIP2: u32 = 0x8000_0006;
    pub(super) const LZFSE: u32 = 0x8000_0007;
    pub(super) const LZMA: u32 = 0x8000_0008;
    pub(super) const COMMENT: u32 = 0x7fff_fffe;
    pub(super) const END: u32 = 0xffff_ffff;
}

rimg_core::on_disk! {
    /// The head of a table.
    struct TableNumbers: BigEndian, 204 bytes {
        sector: u64 = 8,
        data_offset: u64 = 24,
    }
}

rimg_core::on_disk! {
    /// A chunk.
    struct ChunkNumbers: BigEndian, 40 bytes {
        kind: u32 = 0,
        sector: u64 = 8,
        sectors: u64 = 16,
        offset: u64 = 24,
        length: u64 = 32,
    }
}

/// The chunks in the order of the disk.
#[derive(Debug)]
pub(crate) struct Table {
    size_bytes: u64,
    chunks: Vec<Chunk>,
}

impl Table {
    pub(crate) fn read(file: &dyn Storage, limits: &Limits) -> Result<Self> {
        let trailer = Trailer::read(file)?;
        let mut budget = limits.metadata_budget();
        let mut read = |what, (at, len): (u64, u64)| {
            // Once more for what is decoded of it, and for the chunks.
            budget.reserve(what, len.saturating_mul(2))?;
            let mut bytes = budget.buffer(what, len)?;
            file.read_exact_at(&mut bytes, at).map_err(Error::io("read tables", at))?;
            Ok::<_, Error>(bytes)
        };
        let mut chunks = Vec::new();
        let mut found = false;
        if let Some(place) = trailer.plist {
            let bytes = read("property list", place)?;
            let tables = plist::tables(&bytes).map_err(|what| {
                CorruptKind::Plist(what).at(FORMAT, "property list", "XML", place.0)
            })?;
            for table in tables {
                found |= add(&mut chunks, &table, &trailer, place.0)?;
            }
        } else if let Some(place) = trailer.resource_fork {
            let bytes = read("resource fork", place)?;
            let tables = resource::tables(&bytes).ok_or_else(|| {
                CorruptKind::ResourceFork.at(FORMAT, "resource fork", "map", place.0)
            })?;
            for table in tables {
                found |= add(&mut chunks, table, &trailer, place.0)?;
            }
        }
        if !found {
            return Err(CorruptKind::NoTables.at(FORMAT, "trailer", "xml_offset", trailer.at));
        }
        Self::of(chunks, trailer.sectors, trailer.at)
    }

    /// Chunks that do not overlap. What lies between them is found out when it is read.
    fn of(mut chunks: Vec<Chunk>, sectors: u64, trailer_at: u64) -> Result<Self> {
        chunks.sort_by_key(|chunk| chunk.guest);
        let mut end = 0;
        for chunk in &chunks {
            if chunk.guest < end {
                let kind = CorruptKind::Overlap(chunk.guest / SECTOR_BYTES);
                return Err(kind.at(FORMAT, "table", "chunk", trailer_at));
            }
            end = chunk.guest.saturating_add(chunk.len_bytes);
        }
        let told = sectors.checked_mul(SECTOR_BYTES).filter(|told| i64::try_from(*told).is_ok());
        let told = told.ok_or_else(|| {
            let kind = CorruptKind::OutOfRange(sectors, 0, u64::MAX >> 10);
            kind.at(FORMAT, "trailer", "sector_count", trailer_at)
        })?;
        Ok(Self { size_bytes: end.max(told), chunks })
    }

    pub(crate) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn chunk(&self, guest: u64) -> Result<Chunk> {
        let after = self.chunks.partition_point(|chunk| chunk.guest <= guest);
        let chunk = after.checked_sub(1).and_then(|index| self.chunks.get(index));
        match chunk {
            Some(chunk) if guest < chunk.guest.saturating_add(chunk.len_bytes) => Ok(*chunk),
            _ => Err(CorruptKind::Gap(guest).at(FORMAT, "table", "chunk", 0)),
        }
    }
}

/// Adds the chunks of a table that came out of the file at `at`; whether it is one.
fn add(chunks: &mut Vec<Chunk>, table: &[u8], trailer: &Trailer, at: u64) -> Result<bool> {
    let Some(head) = table.first_chunk::<TABLE_BYTES>().filter(|head| head.starts_with(MAGIC))
    else {
        return Ok(false);
    };
    let head = TableNumbers::parse(head);
    let data_at = trailer.data_fork_at.checked_add(head.data_offset);
    let entries = table.get(TABLE_BYTES..).unwrap_or_default();
    for entry in entries.as_chunks::<CHUNK_BYTES>().0 {
        let numbers = ChunkNumbers::parse(entry);
        if numbers.kind == chunk_type::END {
            break;
        }
        if numbers.kind == chunk_type::COMMENT || numbers.sectors == 0 {
            continue;
        }
        let place = Place { sector: head.sector, data_at, trailer_at: trailer.at };
        chunks.push(place.chunk(&numbers).map_err(|kind| kind.at(FORMAT, "table", "chunk", at))?);
    }
    Ok(true)
}

/// What the numbers of a table's chunks count from.
struct Place {
    sector: u64,
    data_at: Option<u64>,
    trailer_at: u64,
}

impl Place {
    fn chunk(&self, numbers: &ChunkNumbers) -> Result<Chunk, CorruptKind> {
        let ChunkNumbers { kind, sector, sectors, offset, length } = *numbers;
        let too_far = || CorruptKind::Overflow(sector, sectors);
        let guest = self.sector.checked_add(sector).and_then(|s| s.checked_mul(SECTOR_BYTES));
        let guest = guest.ok_or_else(too_far)?;
        let len_bytes = sectors.checked_mul(SECTOR_BYTES).ok_or_else(too_far)?;
        guest
            .checked_add(len_bytes)
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or_else(too_far)?;
        let coding = match kind {
            chunk_type::ZERO | chunk_type::IGNORE => {
                return Ok(Chunk { guest, len_bytes, stored: Stored::Zero });
            }
            chunk_type::RAW => None,
            chunk_type::ADC => Some(Coding::Adc),
            chunk_type::ZLIB => Some(Coding::Zlib),
            chunk_type::BZIP2 => Some(Coding::Bzip2),
            chunk_type::LZFSE => Some(Coding::Lzfse),
            chunk_type::LZMA => Some(Coding::Lzma),
            other => return Err(CorruptKind::ChunkType(other)),
        };
        let outside = || CorruptKind::Overflow(offset, length);
        let host = self.data_at.and_then(|at| at.checked_add(offset)).ok_or_else(outside)?;
        let end = host.checked_add(length).ok_or_else(outside)?;
        if end > self.trailer_at {
            return Err(outside());
        }
        let stored = match coding {
            None if length != len_bytes => return Err(CorruptKind::RawLength { length, sectors }),
            None => Stored::Raw(host),
            Some(_) if len_bytes > MAX_CHUNK_BYTES => {
                return Err(CorruptKind::OutOfRange(len_bytes, 0, MAX_CHUNK_BYTES));
            }
            Some(_) if length > MAX_CHUNK_BYTES => {
                return Err(CorruptKind::TooLong(length, MAX_CHUNK_BYTES));
            }
            Some(coding) => Stored::Encoded { coding, host, len_bytes: length },
        };
        Ok(Chunk { guest, len_bytes, stored })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero(sector: u64, sectors: u64) -> Chunk {
        let bytes = |sectors: u64| sectors.saturating_mul(SECTOR_BYTES);
        Chunk { guest: bytes(sector), len_bytes: bytes(sectors), stored: Stored::Zero }
    }

    #[test]
    fn gaps_are_errors_where_they_are_and_nowhere_else() {
        let table = Table::of(vec![zero(4, 2), zero(0, 2)], 8, 0).unwrap();
        assert_eq!(table.size_bytes(), 4096);
        for (at, found) in [(0, true), (1023, true), (1024, false), (2048, true), (3072, false)] {
            assert_eq!(table.chunk(at).is_ok(), found, "{at}");
        }
        let error = table.chunk(1024).unwrap_err();
        assert_eq!(error.to_string(), "dmg image is corrupt: table, chunk at offset 0x0");
    }

    #[test]
    fn chunks_that_overlap_are_refused() {
        assert!(Table::of(vec![zero(0, 3), zero(2, 2)], 0, 0).is_err());
        assert!(Table::of(vec![zero(0, 2), zero(2, 2)], u64::MAX, 0).is_err());
    }
}
