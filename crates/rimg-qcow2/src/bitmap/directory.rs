//! The bitmaps extension of the header and the bitmap directory (Bitmaps extension, Bitmap
//! directory).
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::CorruptKind;
use crate::header::{Extension, Header};
use crate::spec::{self, bitmap_flag};
use rimg_core::{Error, MetadataBudget, Result, Storage, num, on_disk};

on_disk! {
    /// The bitmaps extension of the header.
    pub(crate) struct RawBitmapsExtension: BigEndian, 24 bytes {
        nb_bitmaps: u32 = 0,
        bitmap_directory_size: u64 = 8,
        bitmap_directory_offset: u64 = 16,
    }
}

on_disk! {
    /// The fixed part of a bitmap directory entry.
    pub(crate) struct RawBitmap: BigEndian, 24 bytes {
        bitmap_table_offset: u64 = 0,
        bitmap_table_size: u32 = 8,
        flags: u32 = 12,
        kind: u8 = 16,
        granularity_bits: u8 = 17,
        name_size: u16 = 18,
        extra_data_size: u32 = 20,
    }
}

/// An entry of the bitmap directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bitmap {
    pub(crate) name: String,
    pub(crate) raw: RawBitmap,
    /// Extra data and name as they are on disk.
    tail: Vec<u8>,
    /// Where the entry lies in the file; 0 for one that is not on disk yet.
    pub(crate) at: u64,
}

impl Bitmap {
    /// An entry for a new bitmap.
    pub(crate) fn new(name: &str, granularity_bits: u8) -> Self {
        let raw = RawBitmap {
            flags: bitmap_flag::AUTO,
            kind: spec::BITMAP_TYPE_DIRTY,
            granularity_bits,
            name_size: u16::try_from(name.len()).unwrap_or(u16::MAX),
            ..RawBitmap::default()
        };
        Self { name: name.to_owned(), raw, tail: name.as_bytes().to_vec(), at: 0 }
    }

    pub(crate) const fn has(&self, flag: u32) -> bool {
        self.raw.flags & flag != 0
    }

    /// Whether it has extra data that says: who does not know me must not use the bitmap.
    pub(crate) const fn is_unusable(&self) -> bool {
        self.raw.extra_data_size != 0 && !self.has(bitmap_flag::EXTRA_DATA_COMPATIBLE)
    }

    /// How long the entry is in the directory, in bytes.
    pub(crate) fn len_bytes(&self) -> u64 {
        num::to_u64(RawBitmap::SIZE_BYTES.saturating_add(self.tail.len()).next_multiple_of(8))
    }

    /// Refuses what no writer of bitmaps leaves behind. Reading a list is more lenient.
    pub(crate) fn validate(&self, g: Geometry) -> Result<()> {
        let raw = self.raw;
        let fail = |field: &'static str, kind: CorruptKind| {
            let at = self.at.saturating_add(RawBitmap::offset_of(field));
            Err(kind.at("bitmap directory", field, at))
        };
        if raw.kind != spec::BITMAP_TYPE_DIRTY {
            return fail("kind", CorruptKind::BitmapType(raw.kind));
        }
        if raw.flags & !bitmap_flag::KNOWN != 0 {
            return fail("flags", CorruptKind::ReservedBits(raw.flags.into()));
        }
        if !spec::BITMAP_GRANULARITY_BITS.contains(&raw.granularity_bits.into()) {
            return fail("granularity_bits", CorruptKind::BitmapGranularity(raw.granularity_bits));
        }
        if raw.name_size == 0 || usize::from(raw.name_size) > spec::MAX_BITMAP_NAME_BYTES {
            return fail("name_size", CorruptKind::BitmapName(raw.name_size));
        }
        let table = raw.bitmap_table_offset;
        let is_missing = table == 0 && raw.bitmap_table_size != 0;
        if is_missing || !g.is_aligned(table) {
            return fail("bitmap_table_offset", CorruptKind::Misaligned(table));
        }
        Ok(())
    }
}

/// The directory's place as the header gives it. `None` where there are no bitmaps, or none that
/// can be trusted.
pub(crate) fn directory(header: &Header) -> Result<Option<RawBitmapsExtension>> {
    if header.autoclear & spec::autoclear::BITMAPS == 0 {
        return Ok(None);
    }
    let Some(data) = header.bitmaps_extension() else { return Ok(None) };
    let wrong = |kind: CorruptKind| kind.at("bitmaps extension", "bitmap_directory_size", 0);
    let len = num::to_u64(data.len());
    let raw = data
        .first_chunk()
        .map(RawBitmapsExtension::parse)
        .ok_or_else(|| wrong(CorruptKind::Extension { kind: spec::extension::BITMAPS, len }))?;
    if raw.nb_bitmaps > spec::MAX_BITMAPS
        || raw.bitmap_directory_size > spec::MAX_BITMAP_DIRECTORY_BYTES
    {
        return Err(wrong(CorruptKind::TableTooLarge(raw.bitmap_directory_size)));
    }
    Ok(Some(raw))
}

impl Header {
    /// The data of the bitmaps extension, whether or not it can be trusted.
    pub(crate) fn bitmaps_extension(&self) -> Option<&[u8]> {
        self.extensions.iter().rev().find_map(|extension| match extension {
            Extension::Bitmaps(data) => Some(data.as_slice()),
            _ => None,
        })
    }
}

/// Reads the directory.
pub(crate) fn read_directory(
    file: &dyn Storage,
    header: &Header,
    budget: &mut MetadataBudget,
) -> Result<Vec<Bitmap>> {
    let Some(place) = directory(header)? else { return Ok(Vec::new()) };
    let at = place.bitmap_directory_offset;
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    if at.saturating_add(place.bitmap_directory_size) > len {
        return Err(CorruptKind::TableTruncated.at("bitmap directory", "entries", at));
    }
    let mut bytes = budget.buffer("bitmap directory", place.bitmap_directory_size)?;
    file.read_exact_at(&mut bytes, at).map_err(Error::io("read bitmap directory", at))?;
    // Once as bytes, once as entries.
    let entries = u64::from(place.nb_bitmaps).saturating_mul(num::to_u64(size_of::<Bitmap>()));
    budget.reserve("bitmap directory", entries.saturating_add(place.bitmap_directory_size))?;
    parse(&bytes, place.nb_bitmaps, at)
}

/// Reads `count` entries from the directory that lies at `at`.
fn parse(bytes: &[u8], count: u32, at: u64) -> Result<Vec<Bitmap>> {
    let mut bitmaps = Vec::new();
    let mut start = 0_usize;
    for _ in 0..count {
        let entry_at = at.saturating_add(num::to_u64(start));
        let truncated = || CorruptKind::TableTruncated.at("bitmap directory", "entry", entry_at);
        let rest = bytes.get(start..).ok_or_else(truncated)?;
        let raw = RawBitmap::parse(rest.first_chunk().ok_or_else(truncated)?);
        let extra = num::to_usize(raw.extra_data_size.into())?;
        let end = RawBitmap::SIZE_BYTES.saturating_add(extra).saturating_add(raw.name_size.into());
        let tail = rest.get(RawBitmap::SIZE_BYTES..end).ok_or_else(truncated)?;
        if raw.granularity_bits > 63 {
            let kind = CorruptKind::EntryTooLong(raw.granularity_bits.into());
            return Err(kind.at("bitmap directory", "granularity_bits", entry_at));
        }
        let name = tail.get(extra..).unwrap_or_default();
        bitmaps.push(Bitmap {
            name: String::from_utf8_lossy(name).into_owned(),
            raw,
            tail: tail.to_vec(),
            at: entry_at,
        });
        start = start.saturating_add(end.checked_next_multiple_of(8).ok_or_else(truncated)?);
    }
    Ok(bitmaps)
}

/// The bytes of a directory.
pub(crate) fn encode<'a>(bitmaps: impl Iterator<Item = (&'a Bitmap, RawBitmap)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (bitmap, raw) in bitmaps {
        bytes.extend_from_slice(&raw.encode());
        bytes.extend_from_slice(&bitmap.tail);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{ClusterBits, RefcountOrder};
    use crate::error::kind_of;

    fn raw(name: &str, extra: u32) -> RawBitmap {
        RawBitmap {
            bitmap_table_offset: 0x8_0000,
            bitmap_table_size: 1,
            flags: 2,
            kind: 1,
            granularity_bits: 16,
            name_size: u16::try_from(name.len()).unwrap(),
            extra_data_size: extra,
        }
    }

    fn entry(name: &str) -> Vec<u8> {
        let mut bytes = raw(name, 0).encode().to_vec();
        bytes.extend_from_slice(name.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn entries_are_padded_to_eight_bytes() {
        let bytes = [entry("one"), entry("a longer name")].concat();
        let bitmaps = parse(&bytes, 2, 0).unwrap();
        let names: Vec<&str> = bitmaps.iter().map(|bitmap| bitmap.name.as_str()).collect();
        assert_eq!(names, ["one", "a longer name"]);
        assert_eq!(bitmaps[1].at, 32);
        assert_eq!(encode(bitmaps.iter().map(|bitmap| (bitmap, bitmap.raw))), bytes);
    }

    #[test]
    fn extra_data_and_odd_names_are_kept() {
        let mut bytes = raw("abc", 5).encode().to_vec();
        bytes.extend_from_slice(b"extra\xff\xfec");
        let bitmaps = parse(&bytes, 1, 0).unwrap();
        assert!(bitmaps[0].is_unusable());
        assert_eq!(encode(bitmaps.iter().map(|bitmap| (bitmap, bitmap.raw))), bytes);
    }

    #[test]
    fn a_count_beyond_the_directory_is_an_error() {
        let error = parse(&entry("one"), 2, 0x100).unwrap_err();
        assert_eq!(kind_of(&error), Some(&CorruptKind::TableTruncated));
        assert!(error.to_string().ends_with("0x120"), "{error}");
    }

    #[test]
    fn every_field_is_looked_at() {
        let g = Geometry {
            cluster: ClusterBits::new(16).unwrap(),
            extended_l2: false,
            zero_flag: true,
            refcount: RefcountOrder::new(4).unwrap(),
        };
        let check = |change: fn(&mut RawBitmap)| {
            let mut bitmap = parse(&entry("one"), 1, 0x100).unwrap().remove(0);
            change(&mut bitmap.raw);
            let error = bitmap.validate(g).err()?;
            Some((kind_of(&error).cloned()?, error.to_string()))
        };
        assert_eq!(check(|_| ()), None);
        let at = |offset: &str, field: &str| {
            format!("qcow2 image is corrupt: bitmap directory, {field} at offset {offset}")
        };
        type Change = fn(&mut RawBitmap);
        let cases: [(Change, CorruptKind, String); 8] = [
            (|raw| raw.kind = 0, CorruptKind::BitmapType(0), at("0x110", "kind")),
            (|raw| raw.flags = 10, CorruptKind::ReservedBits(10), at("0x10c", "flags")),
            (
                |raw| raw.granularity_bits = 8,
                CorruptKind::BitmapGranularity(8),
                at("0x111", "granularity_bits"),
            ),
            (
                |raw| raw.granularity_bits = 32,
                CorruptKind::BitmapGranularity(32),
                at("0x111", "granularity_bits"),
            ),
            (|raw| raw.name_size = 0, CorruptKind::BitmapName(0), at("0x112", "name_size")),
            (|raw| raw.name_size = 1024, CorruptKind::BitmapName(1024), at("0x112", "name_size")),
            (
                |raw| raw.bitmap_table_offset = 0,
                CorruptKind::Misaligned(0),
                at("0x100", "bitmap_table_offset"),
            ),
            (
                |raw| raw.bitmap_table_offset = 0x8_0200,
                CorruptKind::Misaligned(0x8_0200),
                at("0x100", "bitmap_table_offset"),
            ),
        ];
        for (change, kind, message) in cases {
            assert_eq!(check(change), Some((kind, message)));
        }
    }
}
