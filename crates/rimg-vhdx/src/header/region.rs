//! Region tables: where the block allocation table and the metadata lie.

use super::{Guid, crc32c_with_field_zeroed, put_checksum};
use crate::error::{CorruptKind, unsupported};
use crate::spec;
use rimg_core::{Error, Result, num, on_disk};

on_disk! {
    /// The head of a region table (2.2.3.1).
    pub(crate) struct RawTable: LittleEndian, 16 bytes {
        signature: u32 = 0,
        checksum: u32 = 4,
        entry_count: u32 = 8,
    }
}

on_disk! {
    /// An entry of it (2.2.3.2).
    pub(crate) struct RawEntry: LittleEndian, 32 bytes {
        guid_low: u64 = 0,
        guid_high: u64 = 8,
        file_offset: u64 = 16,
        length: u32 = 24,
        flags: u32 = 28,
    }
}

/// A part of the file that something lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Region {
    pub(crate) const fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Whether the two have bytes in common.
    pub(crate) const fn overlaps(self, other: Self) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }
}

/// Whether a region, or the log, can lie there: at whole megabytes, behind the header section.
pub(crate) const fn is_possible(offset: u64, length: u64) -> bool {
    offset.is_multiple_of(spec::ALIGN_BYTES)
        && length.is_multiple_of(spec::ALIGN_BYTES)
        && length != 0
        && offset >= spec::HEADER_SECTION_BYTES
        && offset <= spec::MAX_FILE_BYTES
}

/// The regions of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Regions {
    pub(crate) bat: Region,
    pub(crate) metadata: Region,
    /// Those that nobody knows and nobody has to.
    pub(crate) others: Vec<(Guid, Region)>,
}

/// The regions that count, and whether both tables say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegionTables {
    pub(crate) regions: Regions,
    /// Which of the tables are as good as the one that counts.
    pub(crate) are_good: [bool; 2],
}

impl RegionTables {
    /// Reads the tables, one behind the other as in the file at [`spec::REGION_TABLE_AT`], as far
    /// as it has them. The first counts, unless it is damaged.
    pub(crate) fn parse(tables: &[u8]) -> Result<Self> {
        let [at_first, at_second] = spec::REGION_TABLE_AT;
        let (first, second) =
            tables.split_at_checked(spec::REGION_TABLE_BYTES).unwrap_or((tables, &[]));
        match (parse_at(first, at_first), parse_at(second, at_second)) {
            (Ok(regions), second) => {
                let is_same = second.is_ok_and(|second| second == regions);
                Ok(Self { regions, are_good: [true, is_same] })
            }
            // What is unknown is unknown in both, and says more than a damaged copy.
            (Err(error @ Error::Unsupported { .. }), _) => Err(error),
            (Err(_), Ok(regions)) => Ok(Self { regions, are_good: [false, true] }),
            (Err(_), Err(error @ Error::Unsupported { .. })) | (Err(error), Err(_)) => Err(error),
        }
    }
}

impl Regions {
    /// Reads a table of 64 KiB that stands `at` in the file.
    pub(crate) fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let wrong = |kind: CorruptKind, field, offset: u64| {
            Err(kind.at("region table", field, at.wrapping_add(offset)))
        };
        let raw = bytes.first_chunk().map(RawTable::parse).unwrap_or_default();
        if raw.signature != spec::REGION_TABLE_SIGNATURE {
            let kind = CorruptKind::Signature(raw.signature.into());
            return wrong(kind, "signature", RawTable::offset_of("signature"));
        }
        let computed = crc32c_with_field_zeroed(bytes);
        if raw.checksum != computed {
            let kind = CorruptKind::Checksum { found: raw.checksum, computed };
            return wrong(kind, "checksum", RawTable::offset_of("checksum"));
        }
        if raw.entry_count > spec::MAX_TABLE_ENTRIES {
            let kind = CorruptKind::EntryCount(raw.entry_count);
            return wrong(kind, "entry_count", RawTable::offset_of("entry_count"));
        }
        let mut found = Found::default();
        let (entries, _) = bytes.get(RawTable::SIZE_BYTES..).unwrap_or_default().as_chunks::<32>();
        let entries = entries.iter().take(num::to_usize(raw.entry_count.into())?);
        for (entry, offset) in entries.zip((16_u64..).step_by(32)) {
            let raw = RawEntry::parse(entry);
            if let Err(kind) = found.add(&raw)? {
                return wrong(kind, "file_offset", offset.wrapping_add(16));
            }
        }
        let count_at = RawTable::offset_of("entry_count");
        let Some(bat) = found.bat else {
            return wrong(CorruptKind::NoRegion(spec::region::BAT), "entry_count", count_at);
        };
        let Some(metadata) = found.metadata else {
            return wrong(CorruptKind::NoRegion(spec::region::METADATA), "entry_count", count_at);
        };
        Ok(Self { bat, metadata, others: found.others })
    }

    /// The table with these regions. Optional ones are kept as they were.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let known = [(spec::region::BAT, self.bat), (spec::region::METADATA, self.metadata)];
        let known = known.into_iter().map(|(guid, region)| (guid, region, spec::region::REQUIRED));
        let others = self.others.iter().map(|(guid, region)| (*guid, *region, 0));
        let all: Vec<_> = known.chain(others).collect();
        let mut bytes = RawTable {
            signature: spec::REGION_TABLE_SIGNATURE,
            checksum: 0,
            entry_count: u32::try_from(all.len()).unwrap_or(spec::MAX_TABLE_ENTRIES),
        }
        .encode()
        .to_vec();
        for (guid, region, flags) in all {
            let (guid_low, guid_high) = guid.words();
            let length = u32::try_from(region.length).unwrap_or(u32::MAX);
            let entry = RawEntry { guid_low, guid_high, file_offset: region.offset, length, flags };
            bytes.extend_from_slice(&entry.encode());
        }
        bytes.resize(spec::REGION_TABLE_BYTES, 0);
        put_checksum(&mut bytes);
        bytes
    }

    /// Every region.
    pub(crate) fn all(&self) -> impl Iterator<Item = Region> {
        let others = self.others.iter().map(|(_, region)| *region);
        [self.bat, self.metadata].into_iter().chain(others)
    }
}

#[derive(Default)]
struct Found {
    bat: Option<Region>,
    metadata: Option<Region>,
    others: Vec<(Guid, Region)>,
}

impl Found {
    fn add(&mut self, raw: &RawEntry) -> Result<Result<(), CorruptKind>> {
        let guid = Guid::of_words(raw.guid_low, raw.guid_high);
        let region = Region { offset: raw.file_offset, length: raw.length.into() };
        if !is_possible(region.offset, region.length) {
            return Ok(Err(CorruptKind::RegionPlace(region.offset, region.length)));
        }
        let all = self.others.iter().map(|(_, other)| *other).chain(self.bat).chain(self.metadata);
        if let Some(other) = all.into_iter().find(|other| other.overlaps(region)) {
            return Ok(Err(CorruptKind::Overlap(other.offset)));
        }
        let known = match guid {
            spec::region::BAT => &mut self.bat,
            spec::region::METADATA => &mut self.metadata,
            _ if raw.flags & spec::region::REQUIRED != 0 => {
                return Err(unsupported(format!("region {guid}")));
            }
            _ => {
                self.others.push((guid, region));
                return Ok(Ok(()));
            }
        };
        if known.is_some() {
            return Ok(Err(CorruptKind::RegionTwice(guid)));
        }
        *known = Some(region);
        Ok(Ok(()))
    }
}

fn parse_at(bytes: &[u8], at: u64) -> Result<Regions> {
    let truncated = || CorruptKind::HeaderSectionTruncated.at("region table", "signature", at);
    Regions::parse(bytes.get(..spec::REGION_TABLE_BYTES).ok_or_else(truncated)?, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    fn regions() -> Regions {
        Regions {
            bat: Region { offset: 2 << 20, length: 1 << 20 },
            metadata: Region { offset: 3 << 20, length: 1 << 20 },
            others: vec![(Guid(5), Region { offset: 9 << 20, length: 2 << 20 })],
        }
    }

    /// What is wrong with the table whose bytes were changed.
    fn wrong(change: impl FnOnce(&mut [u8])) -> (String, CorruptKind) {
        let mut bytes = regions().encode();
        change(&mut bytes);
        put_checksum(&mut bytes);
        let error = Regions::parse(&bytes, 0x30000).unwrap_err();
        let kind = error.source().and_then(|kind| kind.downcast_ref()).cloned();
        (error.to_string(), kind.unwrap_or(CorruptKind::NoBitmap))
    }

    #[test]
    fn what_was_encoded_is_parsed() {
        assert_eq!(Regions::parse(&regions().encode(), 0).unwrap(), regions());
    }

    #[test]
    fn the_checksum_is_the_one_that_qemu_img_computes() {
        let plain = Regions { others: Vec::new(), ..regions() };
        let mut bytes = plain.encode();
        // It leaves out that regions are required, which the specification asks for.
        (bytes[16 + 28], bytes[16 + 32 + 28]) = (0, 0);
        put_checksum(&mut bytes);
        assert_eq!(bytes[4..8], [0x83, 0xce, 0x6f, 0x2c]);
    }

    #[test]
    fn the_second_table_stands_in_for_the_first() {
        let mut tables = regions().encode().repeat(2);
        let second = tables.len() / 2;
        let parse = |tables: &[u8]| RegionTables::parse(tables).unwrap();
        assert_eq!(parse(&tables).are_good, [true, true]);
        assert_eq!(parse(&tables[..second]).are_good, [true, false]);
        tables[0] ^= 1;
        assert_eq!(parse(&tables).are_good, [false, true]);
        assert_eq!(parse(&tables).regions, regions());
        tables[0] ^= 1;
        tables[second + 100] ^= 1;
        assert_eq!(parse(&tables).are_good, [true, false]);
        tables[100] ^= 1;
        assert!(RegionTables::parse(&tables).is_err());
    }

    #[test]
    fn tables_that_cannot_be_are_named() {
        let bat = spec::region::BAT;
        let place = "vhdx image is corrupt: region table, file_offset at offset 0x30020".to_owned();
        let wrong_place =
            |offset, length| (place.clone(), CorruptKind::RegionPlace(offset, length));
        assert_eq!(wrong(|b| b[32] = 1), wrong_place(0x20_0001, 1 << 20));
        assert_eq!(wrong(|b| b[34] = 0), wrong_place(0, 1 << 20));
        assert_eq!(wrong(|b| b[42] = 0), wrong_place(2 << 20, 0));
        assert_eq!(wrong(|b| b[66] = 0x20).1, CorruptKind::Overlap(2 << 20));
        assert_eq!(wrong(|b| b[8] = 1).1, CorruptKind::NoRegion(spec::region::METADATA));
        assert_eq!(wrong(|b| b[9] = 8).1, CorruptKind::EntryCount(2051));
        let twice = |b: &mut [u8]| b.copy_within(16..32, 48);
        assert_eq!(wrong(twice).1, CorruptKind::RegionTwice(bat));
    }

    #[test]
    fn an_unknown_region_that_is_required_is_refused() {
        let mut bytes = regions().encode();
        bytes[16 + 2 * 32 + 28] = 1;
        put_checksum(&mut bytes);
        let error = Regions::parse(&bytes, 0).unwrap_err().to_string();
        let wanted = "region 00000005-0000-0000-0000-000000000000";
        assert_eq!(error, format!("unsupported vhdx feature: {wanted}"));
    }
}
