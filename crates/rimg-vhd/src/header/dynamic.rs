//! The header of disks that grow ("Dynamic Disk Header Format").
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::checksum;
use super::locator::{LOCATOR_BYTES, Locator};
use crate::error::CorruptKind;
use crate::spec::{self, ENTRY_BYTES, SECTOR_BYTES};
use rimg_core::{Result, Uuid, num, on_disk};

on_disk! {
    /// The fields before the parent's name. The UUID comes in halves.
    struct RawDynamic: BigEndian, 64 bytes {
        cookie: u64 = 0,
        data_offset: u64 = 8,
        table_offset: u64 = 16,
        version: u32 = 24,
        max_table_entries: u32 = 28,
        block_size: u32 = 32,
        checksum: u32 = 36,
        parent_uuid_1: u64 = 40,
        parent_uuid_2: u64 = 48,
        parent_timestamp: u32 = 56,
    }
}

const CHECKSUM: usize = 36;
const NAME: usize = 64;
const LOCATORS: usize = 576;

/// Where in the header lies what a change of size changes: `table_offset` up to the checksum.
const LAYOUT: core::ops::Range<usize> = 16..40;

/// Where that begins, in bytes from the start of the header.
pub(crate) const fn layout_offset() -> u64 {
    num::to_u64(LAYOUT.start)
}

/// A header whose every field is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DynamicHeader {
    bytes: Vec<u8>,
    /// Where the block allocation table lies.
    pub(crate) table_offset: u64,
    /// How many entries it has.
    pub(crate) entries: u32,
    /// The size of a block, in bytes: a power of two, at least a sector.
    pub(crate) block_bytes: u32,
    pub(crate) parent_uuid: Uuid,
    /// Seconds since the start of the year 2000.
    pub(crate) parent_timestamp: u32,
    /// The parent's name, in UTF-16; empty if there is none.
    pub(crate) parent_name: String,
    pub(crate) locators: Vec<Locator>,
}

impl DynamicHeader {
    /// Reads the header at `offset` of the file from its 1024 bytes, or from those that are there.
    pub(crate) fn parse(bytes: Vec<u8>, offset: u64) -> Result<Self> {
        let at = |field: &'static str| offset.saturating_add(RawDynamic::offset_of(field));
        let structure = "dynamic disk header";
        let truncated = || CorruptKind::Truncated.at(structure, "length", offset);
        let start = bytes.first_chunk().ok_or_else(truncated)?;
        let raw = RawDynamic::parse(start);
        if raw.cookie != spec::DYNAMIC_COOKIE {
            return Err(CorruptKind::Cookie.at(structure, "cookie", at("cookie")));
        }
        if raw.max_table_entries > spec::MAX_TABLE_ENTRIES {
            let kind = CorruptKind::TableTooLarge(raw.max_table_entries);
            return Err(kind.at(structure, "max_table_entries", at("max_table_entries")));
        }
        if num::to_u64(bytes.len()) < spec::DYNAMIC_HEADER_BYTES {
            return Err(truncated());
        }
        let wanted = checksum(&bytes, CHECKSUM);
        if raw.checksum != wanted {
            let kind = CorruptKind::Checksum { found: raw.checksum, wanted };
            return Err(kind.at(structure, "checksum", at("checksum")));
        }
        if raw.version >> 16 != spec::VERSION >> 16 {
            return Err(CorruptKind::Version(raw.version).at(structure, "version", at("version")));
        }
        let block = raw.block_size;
        if !block.is_power_of_two() || !(512..=spec::MAX_BLOCK_BYTES).contains(&block) {
            let kind = CorruptKind::BlockSize(block);
            return Err(kind.at(structure, "block_size", at("block_size")));
        }
        if raw.table_offset < spec::FOOTER_BYTES {
            let kind = CorruptKind::InsideHeader(raw.table_offset);
            return Err(kind.at(structure, "table_offset", at("table_offset")));
        }
        let uuid = u128::from(raw.parent_uuid_1).wrapping_shl(64) | u128::from(raw.parent_uuid_2);
        let locators = bytes.get(LOCATORS..).unwrap_or_default().chunks_exact(LOCATOR_BYTES);
        let locators = locators.take(spec::LOCATORS).filter_map(Locator::parse).collect();
        Ok(Self {
            table_offset: raw.table_offset,
            entries: raw.max_table_entries,
            block_bytes: raw.block_size,
            parent_uuid: Uuid(uuid.to_be_bytes()),
            parent_timestamp: raw.parent_timestamp,
            parent_name: parent_name(bytes.get(NAME..LOCATORS).unwrap_or_default()),
            locators,
            bytes,
        })
    }

    /// The header of a new disk without a parent.
    pub(crate) fn new(table_offset: u64, entries: u32, block_bytes: u32) -> Self {
        Self {
            bytes: Vec::new(),
            table_offset,
            entries,
            block_bytes,
            parent_uuid: Uuid::NIL,
            parent_timestamp: 0,
            parent_name: String::new(),
            locators: Vec::new(),
        }
    }

    /// Of a disk over the parent with this name: where the locator that names it has to be written,
    /// behind the table, and what.
    pub(crate) fn set_parent(
        &mut self,
        name: &str,
        uuid: Uuid,
        timestamp: u32,
    ) -> Result<(u64, Vec<u8>)> {
        let offset = self.table_offset.saturating_add(self.table_bytes());
        let (locator, data) = Locator::new(name, offset)?;
        self.parent_uuid = uuid;
        self.parent_timestamp = timestamp;
        self.parent_name = name.rsplit('/').next().unwrap_or(name).to_owned();
        self.locators = vec![locator];
        Ok((offset, data))
    }

    /// How many bytes the bitmap before a block takes: a bit for each sector, whole sectors.
    pub(crate) fn bitmap_bytes(&self) -> u64 {
        let sectors = u64::from(self.block_bytes) / SECTOR_BYTES;
        spec::whole_sectors(sectors.div_ceil(8))
    }

    /// From the start of a block's bitmap to the end of its data, in bytes.
    pub(crate) fn stride(&self) -> u64 {
        self.bitmap_bytes().saturating_add(self.block_bytes.into())
    }

    /// How many bytes the block allocation table takes in the file: whole sectors.
    pub(crate) fn table_bytes(&self) -> u64 {
        spec::whole_sectors(u64::from(self.entries).saturating_mul(ENTRY_BYTES))
    }

    /// The bytes, with their checksum. What was in the file and is not known here stays.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let len = num::to_usize(spec::DYNAMIC_HEADER_BYTES)?;
        let mut bytes = self.bytes.clone();
        if bytes.is_empty() {
            let raw = RawDynamic {
                cookie: spec::DYNAMIC_COOKIE,
                data_offset: spec::NOWHERE,
                version: spec::VERSION,
                ..RawDynamic::default()
            };
            bytes.extend_from_slice(&raw.encode());
        }
        bytes.resize(len, 0);
        if let Some(start) = bytes.first_chunk_mut() {
            let mut raw = RawDynamic::parse(start);
            raw.table_offset = self.table_offset;
            raw.max_table_entries = self.entries;
            raw.block_size = self.block_bytes;
            raw.parent_timestamp = self.parent_timestamp;
            let uuid = u128::from_be_bytes(self.parent_uuid.0).to_be_bytes();
            let (words, _) = uuid.as_chunks::<8>();
            let half = |nth: usize| words.get(nth).map_or(0, |word| u64::from_be_bytes(*word));
            (raw.parent_uuid_1, raw.parent_uuid_2) = (half(0), half(1));
            *start = raw.encode();
        }
        if self.bytes.is_empty() {
            self.encode_parent(&mut bytes);
        }
        let sum = checksum(&bytes, CHECKSUM);
        if let Some(start) = bytes.first_chunk_mut() {
            let raw = RawDynamic::parse(start);
            *start = RawDynamic { checksum: sum, ..raw }.encode();
        }
        Ok(bytes)
    }

    /// The parent's name and locators; those of an existing image stay as they are.
    fn encode_parent(&self, bytes: &mut [u8]) {
        // What is too long for the field is in the locator still.
        let name = self.parent_name.encode_utf16().flat_map(u16::to_be_bytes);
        let field = bytes.get_mut(NAME..LOCATORS.saturating_sub(2)).unwrap_or_default();
        for (byte, letter) in field.iter_mut().zip(name) {
            *byte = letter;
        }
        let entries = bytes.get_mut(LOCATORS..).unwrap_or_default();
        for (entry, locator) in entries.chunks_exact_mut(LOCATOR_BYTES).zip(&self.locators) {
            entry.copy_from_slice(&locator.encode());
        }
    }

    /// The bytes from [`layout_offset`] on that a change of size changes; within one sector.
    pub(crate) fn encode_layout(&self) -> Result<Vec<u8>> {
        Ok(self.encode()?.get(LAYOUT).unwrap_or_default().to_vec())
    }
}

/// A name in UTF-16, the high byte first, up to the first character that is none.
fn parent_name(bytes: &[u8]) -> String {
    let (units, _) = bytes.as_chunks::<2>();
    let units: Vec<u16> =
        units.iter().map(|unit| u16::from_be_bytes(*unit)).take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_goes_both_ways() {
        let header = DynamicHeader::new(1536, 6, spec::BLOCK_BYTES);
        let bytes = header.encode().unwrap();
        let parsed = DynamicHeader::parse(bytes.clone(), 512).unwrap();
        assert_eq!((parsed.table_offset, parsed.entries), (1536, 6));
        assert_eq!((parsed.bitmap_bytes(), parsed.table_bytes()), (512, 512));
        assert_eq!(parsed.encode().unwrap(), bytes);
        // What qemu-img 10.0.2 wrote for the same disk.
        assert_eq!(bytes[36..40], [0xff, 0xff, 0xf4, 0x71]);
    }

    #[test]
    fn small_blocks_have_a_sector_of_bitmap_as_well() {
        let header = DynamicHeader::new(1536, 1, 4096);
        assert_eq!(header.stride(), 4608);
    }

    #[test]
    fn a_name_ends_with_its_first_zero() {
        assert_eq!(parent_name(b"\0a\0.\0v\0\0\0x"), "a.v");
    }
}
