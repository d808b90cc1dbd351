//! The metadata region: a table of items, and the items that are known.

use super::Guid;
use super::locator::ParentLocator;
use super::region::Region;
use crate::address::{BlockBits, Geometry, SectorSize};
use crate::error::{CorruptKind, unsupported};
use crate::spec;
use rimg_core::{Result, num, on_disk};

on_disk! {
    /// The head of the metadata table (2.6.1.1).
    pub(crate) struct RawTable: LittleEndian, 32 bytes {
        signature: u64 = 0,
        entry_count: u16 = 10,
    }
}

on_disk! {
    /// An entry of it (2.6.1.2).
    pub(crate) struct RawEntry: LittleEndian, 32 bytes {
        item_low: u64 = 0,
        item_high: u64 = 8,
        offset: u32 = 16,
        length: u32 = 20,
        flags: u32 = 24,
    }
}

/// What the metadata say of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) geometry: Geometry,
    /// A multiple of the sector size.
    pub(crate) size_bytes: u64,
    /// Where the file has that size.
    pub(crate) size_at: u64,
    /// The image is fixed: blocks keep their places whatever becomes of them.
    pub(crate) leave_blocks_allocated: bool,
    pub(crate) disk_id: Guid,
    pub(crate) physical_sector: SectorSize,
    pub(crate) parent: Option<ParentLocator>,
    /// Where the file says which parent it was made over, and in how many bytes.
    pub(crate) linkage_at: Option<(u64, usize)>,
}

impl Metadata {
    /// Reads the table and the items of a region, whose bytes are given as far as they were read:
    /// [`Self::bytes_needed`] says how far that is to be.
    pub(crate) fn parse(bytes: &[u8], region: Region) -> Result<Self> {
        let items = Items::parse(bytes, region)?;
        let file_parameters: [u8; 8] = items.required(spec::metadata::FILE_PARAMETERS)?;
        let (block_size, flags) = halves(file_parameters);
        let wrong = |item, kind: CorruptKind| Err(kind.at("metadata", "item", items.at(item)));
        let block = match BlockBits::of_bytes(block_size) {
            Ok(block) => block,
            Err(kind) => return wrong(spec::metadata::FILE_PARAMETERS, kind),
        };
        let sector = |item| {
            let bytes = u32::from_le_bytes(items.required(item)?);
            SectorSize::of_bytes(bytes).map_err(|kind| kind.at("metadata", "item", items.at(item)))
        };
        let logical = sector(spec::metadata::LOGICAL_SECTOR_SIZE)?;
        let physical_sector = sector(spec::metadata::PHYSICAL_SECTOR_SIZE)?;
        let size_bytes = u64::from_le_bytes(items.required(spec::metadata::VIRTUAL_DISK_SIZE)?);
        let geometry = Geometry::new(block, logical);
        if !is_possible_size(size_bytes, geometry) {
            return wrong(spec::metadata::VIRTUAL_DISK_SIZE, CorruptKind::DiskSize(size_bytes));
        }
        let parent = if flags & spec::metadata::HAS_PARENT == 0 {
            None
        } else {
            let item = spec::metadata::PARENT_LOCATOR;
            Some(ParentLocator::parse(items.bytes(item)?, items.at(item))?)
        };
        let linkage_at = match &parent {
            None => None,
            Some(_) => {
                let item = spec::metadata::PARENT_LOCATOR;
                let found = ParentLocator::find_linkage(items.bytes(item)?);
                found.map(|(at, len)| (items.at(item).saturating_add(at.into()), len.into()))
            }
        };
        Ok(Self {
            geometry,
            linkage_at,
            size_bytes,
            size_at: items.at(spec::metadata::VIRTUAL_DISK_SIZE),
            leave_blocks_allocated: flags & spec::metadata::LEAVE_BLOCKS_ALLOCATED != 0,
            disk_id: Guid(u128::from_le_bytes(items.required(spec::metadata::VIRTUAL_DISK_ID)?)),
            physical_sector,
            parent,
        })
    }

    /// How many bytes of the region [`parse`](Self::parse) wants to see, given its table.
    pub(crate) fn bytes_needed(table: &[u8], region: Region) -> Result<u64> {
        let items = Items::parse(table, region)?;
        let ends = items.entries.iter().map(|(_, raw)| {
            u64::from(raw.offset).saturating_add(raw.length.into()).min(region.length)
        });
        Ok(ends.max().unwrap_or_default().max(spec::metadata::TABLE_BYTES.into()))
    }

    /// The region's bytes: the table, and the items that the format asks for.
    pub(crate) fn encode(&self) -> Vec<u8> {
        use spec::metadata::{IS_REQUIRED, IS_VIRTUAL_DISK};
        let mut flags = 0;
        if self.leave_blocks_allocated {
            flags |= spec::metadata::LEAVE_BLOCKS_ALLOCATED;
        }
        if self.parent.is_some() {
            flags |= spec::metadata::HAS_PARENT;
        }
        let block_size = u32::try_from(self.geometry.block_bytes()).unwrap_or_default();
        let sector_size = u32::try_from(self.geometry.sector_bytes()).unwrap_or_default();
        let disk = IS_VIRTUAL_DISK | IS_REQUIRED;
        let mut items = vec![
            (
                spec::metadata::FILE_PARAMETERS,
                IS_REQUIRED,
                [block_size.to_le_bytes(), u32::to_le_bytes(flags)].concat(),
            ),
            (spec::metadata::VIRTUAL_DISK_SIZE, disk, self.size_bytes.to_le_bytes().to_vec()),
            (spec::metadata::VIRTUAL_DISK_ID, disk, self.disk_id.to_le_bytes().to_vec()),
            (spec::metadata::LOGICAL_SECTOR_SIZE, disk, sector_size.to_le_bytes().to_vec()),
            (
                spec::metadata::PHYSICAL_SECTOR_SIZE,
                disk,
                self.physical_sector.bytes().to_le_bytes().to_vec(),
            ),
        ];
        if let Some(parent) = &self.parent {
            items.push((spec::metadata::PARENT_LOCATOR, IS_REQUIRED, parent.encode()));
        }
        encode_items(&items)
    }
}

/// Whether a disk can have this size (2.6.2.2).
pub(crate) fn is_possible_size(size_bytes: u64, geometry: Geometry) -> bool {
    size_bytes.is_multiple_of(geometry.sector_bytes()) && size_bytes <= spec::MAX_DISK_BYTES
}

fn encode_items(items: &[(Guid, u32, Vec<u8>)]) -> Vec<u8> {
    let entry_count = u16::try_from(items.len()).unwrap_or_default();
    let mut table =
        RawTable { signature: spec::metadata::SIGNATURE, entry_count }.encode().to_vec();
    let mut data = Vec::new();
    for (item, flags, bytes) in items {
        let (item_low, item_high) = item.words();
        let behind = u32::try_from(data.len()).unwrap_or_default();
        let entry = RawEntry {
            item_low,
            item_high,
            offset: spec::metadata::TABLE_BYTES.saturating_add(behind),
            length: u32::try_from(bytes.len()).unwrap_or_default(),
            flags: *flags,
        };
        table.extend_from_slice(&entry.encode());
        data.extend_from_slice(bytes);
    }
    table.resize(usize::try_from(spec::metadata::TABLE_BYTES).unwrap_or_default(), 0);
    table.append(&mut data);
    table
}

fn halves(bytes: [u8; 8]) -> (u32, u32) {
    let word = u64::from_le_bytes(bytes);
    let half = |n: u64| u32::try_from(n & u64::from(u32::MAX)).unwrap_or_default();
    (half(word), half(word >> 32))
}

struct Items<'a> {
    region: Region,
    bytes: &'a [u8],
    entries: Vec<(Guid, RawEntry)>,
}

impl<'a> Items<'a> {
    fn parse(bytes: &'a [u8], region: Region) -> Result<Self> {
        let wrong = |kind: CorruptKind, field, offset: u64| {
            Err(kind.at("metadata table", field, region.offset.saturating_add(offset)))
        };
        let raw = bytes.first_chunk().map(RawTable::parse).unwrap_or_default();
        if raw.signature != spec::metadata::SIGNATURE {
            let kind = CorruptKind::Signature(raw.signature);
            return wrong(kind, "signature", RawTable::offset_of("signature"));
        }
        if u32::from(raw.entry_count) > spec::MAX_TABLE_ENTRIES {
            let kind = CorruptKind::EntryCount(raw.entry_count.into());
            return wrong(kind, "entry_count", RawTable::offset_of("entry_count"));
        }
        let mut entries: Vec<(Guid, RawEntry)> = Vec::new();
        let (all, _) = bytes.get(RawTable::SIZE_BYTES..).unwrap_or_default().as_chunks::<32>();
        for (entry, at) in all.iter().zip((32_u64..).step_by(32)).take(raw.entry_count.into()) {
            let raw = RawEntry::parse(entry);
            let item = Guid::of_words(raw.item_low, raw.item_high);
            if !is_known(item) {
                if raw.flags & spec::metadata::IS_REQUIRED != 0 {
                    return Err(unsupported(format!("metadata item {item}")));
                }
                continue;
            }
            if entries.iter().any(|(known, _)| *known == item) {
                return wrong(CorruptKind::ItemTwice(item), "item_id", at);
            }
            let end = u64::from(raw.offset).saturating_add(raw.length.into());
            let is_inside = raw.offset >= spec::metadata::TABLE_BYTES && end <= region.length;
            if raw.length > spec::metadata::MAX_ITEM_BYTES || !is_inside {
                return wrong(CorruptKind::ItemPlace(item), "offset", at.saturating_add(16));
            }
            entries.push((item, raw));
        }
        Ok(Self { region, bytes, entries })
    }

    fn find(&self, item: Guid) -> Result<&RawEntry> {
        let found = self.entries.iter().find(|(known, _)| *known == item);
        found.map(|(_, raw)| raw).ok_or_else(|| {
            let at = RawTable::offset_of("entry_count");
            let at = self.region.offset.saturating_add(at);
            CorruptKind::NoItem(item).at("metadata table", "entry_count", at)
        })
    }

    fn bytes(&self, item: Guid) -> Result<&'a [u8]> {
        let raw = self.find(item)?;
        let start = num::to_usize(raw.offset.into())?;
        let bytes =
            self.bytes.get(start..).and_then(|b| b.get(..num::to_usize(raw.length.into()).ok()?));
        bytes.ok_or_else(|| CorruptKind::ItemPlace(item).at("metadata", "item", self.at(item)))
    }

    fn required<const LEN: usize>(&self, item: Guid) -> Result<[u8; LEN]> {
        let bytes = self.bytes(item)?;
        bytes.try_into().map_err(|_| {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            CorruptKind::ItemLength(item, len).at("metadata", "item", self.at(item))
        })
    }

    /// Where an item lies in the file.
    fn at(&self, item: Guid) -> u64 {
        let offset = self.entries.iter().find(|(known, _)| *known == item);
        let offset = offset.map_or(0, |(_, raw)| raw.offset);
        self.region.offset.saturating_add(offset.into())
    }
}

fn is_known(item: Guid) -> bool {
    use spec::metadata as of;
    matches!(
        item,
        of::FILE_PARAMETERS
            | of::VIRTUAL_DISK_SIZE
            | of::VIRTUAL_DISK_ID
            | of::LOGICAL_SECTOR_SIZE
            | of::PHYSICAL_SECTOR_SIZE
            | of::PARENT_LOCATOR
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    const REGION: Region = Region { offset: 3 << 20, length: 1 << 20 };

    fn metadata() -> Metadata {
        let block = BlockBits::of_bytes(8 << 20).unwrap();
        Metadata {
            geometry: Geometry::new(block, SectorSize::Of4096),
            size_bytes: 100 << 20,
            size_at: (3 << 20) + 0x10008,
            leave_blocks_allocated: true,
            disk_id: Guid(9),
            physical_sector: SectorSize::Of4096,
            parent: None,
            linkage_at: None,
        }
    }

    fn wrong(change: impl FnOnce(&mut [u8])) -> (String, CorruptKind) {
        let mut bytes = metadata().encode();
        change(&mut bytes);
        let error = Metadata::parse(&bytes, REGION).unwrap_err();
        let kind = error.source().and_then(|kind| kind.downcast_ref()).cloned();
        (error.to_string(), kind.unwrap_or(CorruptKind::NoBitmap))
    }

    #[test]
    fn what_was_encoded_is_parsed() {
        let bytes = metadata().encode();
        assert_eq!(Metadata::parse(&bytes, REGION).unwrap(), metadata());
        let needed = Metadata::bytes_needed(&bytes[..64 << 10], REGION).unwrap();
        assert_eq!(needed, num::to_u64(bytes.len()));
        let parent = ParentLocator { linkage: Guid(7), linkage2: None, paths: Vec::new() };
        let linkage_at = Some(((3 << 20) + 0x10028 + 60, 76));
        let child = Metadata { parent: Some(parent), linkage_at, ..metadata() };
        assert_eq!(Metadata::parse(&child.encode(), REGION).unwrap(), child);
    }

    #[test]
    fn items_that_cannot_be_are_named() {
        let item = "vhdx image is corrupt: metadata, item at offset 0x310000".to_owned();
        let table = "vhdx image is corrupt: metadata table, ".to_owned();
        let size = spec::metadata::VIRTUAL_DISK_SIZE;
        let parameters = spec::metadata::FILE_PARAMETERS;
        assert_eq!(wrong(|b| b[0x10001] = 1), (item, CorruptKind::BlockSize(0x80_0100)));
        assert_eq!(wrong(|b| b[0x10008] = 1).1, CorruptKind::DiskSize((100 << 20) + 1));
        assert_eq!(wrong(|b| b[0x1000f] = 1).1, CorruptKind::DiskSize((100 << 20) + (1 << 56)));
        assert_eq!(wrong(|b| b[0x10021] = 0).1, CorruptKind::SectorSize(0));
        assert_eq!(wrong(|b| b[32 + 20] = 4).1, CorruptKind::ItemLength(parameters, 4));
        let place =
            (format!("{table}offset at offset 0x300030"), CorruptKind::ItemPlace(parameters));
        assert_eq!(wrong(|b| b[32 + 18] = 0), place);
        assert_eq!(wrong(|b| b[32 + 19] = 1), place);
        assert_eq!(wrong(|b| b[32 + 23] = 1), place);
        let twice = |b: &mut [u8]| b.copy_within(64..80, 32);
        assert_eq!(wrong(twice).1, CorruptKind::ItemTwice(size));
        assert_eq!(wrong(|b| (b[64], b[88]) = (0, 0)).1, CorruptKind::NoItem(size));
        assert_eq!(wrong(|b| b[11] = 8).1, CorruptKind::EntryCount(2053));
        assert_eq!(wrong(|b| b[0] = 0).0, format!("{table}signature at offset 0x300000"));
    }

    #[test]
    fn an_unknown_item_that_is_required_is_refused() {
        let mut bytes = metadata().encode();
        bytes[64..80].fill(1);
        let error = Metadata::parse(&bytes, REGION).unwrap_err().to_string();
        let wanted = "metadata item 01010101-0101-0101-0101-010101010101";
        assert_eq!(error, format!("unsupported vhdx feature: {wanted}"));
    }
}
