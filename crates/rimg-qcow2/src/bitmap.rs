//! The directory of persistent bitmaps (Bitmaps): what there is, not what is in them.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use crate::header::{Extension, Header};
use crate::spec;
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
}

/// Where the bitmap directory is: offset and length in bytes, and how many entries it has. `None`
/// where there are no bitmaps, or none that can be trusted.
pub(crate) fn directory(header: &Header) -> Result<Option<RawBitmapsExtension>> {
    if header.autoclear & spec::autoclear::BITMAPS == 0 {
        return Ok(None);
    }
    let Some(data) = header.extensions.iter().find_map(|extension| match extension {
        Extension::Bitmaps(data) => Some(data),
        _ => None,
    }) else {
        return Ok(None);
    };
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

/// Reads the directory.
pub(crate) fn read_directory(
    file: &dyn Storage,
    header: &Header,
    budget: &mut MetadataBudget,
) -> Result<Vec<Bitmap>> {
    let Some(place) = directory(header)? else { return Ok(Vec::new()) };
    let at = place.bitmap_directory_offset;
    let mut bytes = budget.buffer("bitmap directory", place.bitmap_directory_size)?;
    file.read_exact_at(&mut bytes, at).map_err(Error::io("read bitmap directory", at))?;
    parse_directory(&bytes, place.nb_bitmaps, at)
}

fn parse_directory(bytes: &[u8], count: u32, at: u64) -> Result<Vec<Bitmap>> {
    let mut bitmaps = Vec::new();
    let mut start = 0_usize;
    for _ in 0..count {
        let entry_at = at.saturating_add(num::to_u64(start));
        let truncated = || CorruptKind::TableTruncated.at("bitmap directory", "entry", entry_at);
        let rest = bytes.get(start..).ok_or_else(truncated)?;
        let raw = RawBitmap::parse(rest.first_chunk().ok_or_else(truncated)?);
        let name_start =
            RawBitmap::SIZE_BYTES.saturating_add(num::to_usize(raw.extra_data_size.into())?);
        let end = name_start.saturating_add(raw.name_size.into());
        let name = rest.get(name_start..end).ok_or_else(truncated)?;
        if raw.granularity_bits > 63 {
            let kind = CorruptKind::EntryTooLong(raw.granularity_bits.into());
            return Err(kind.at("bitmap directory", "granularity_bits", entry_at));
        }
        bitmaps.push(Bitmap { name: String::from_utf8_lossy(name).into_owned(), raw });
        start = start.saturating_add(end.checked_next_multiple_of(8).ok_or_else(truncated)?);
    }
    Ok(bitmaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    fn entry(name: &str) -> Vec<u8> {
        let raw = RawBitmap {
            bitmap_table_offset: 0x8_0000,
            bitmap_table_size: 1,
            flags: 2,
            kind: 1,
            granularity_bits: 16,
            name_size: u16::try_from(name.len()).unwrap(),
            extra_data_size: 0,
        };
        let mut bytes = raw.encode().to_vec();
        bytes.extend_from_slice(name.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn entries_are_padded_to_eight_bytes() {
        let bytes = [entry("one"), entry("a longer name")].concat();
        let bitmaps = parse_directory(&bytes, 2, 0).unwrap();
        let names: Vec<&str> = bitmaps.iter().map(|bitmap| bitmap.name.as_str()).collect();
        assert_eq!(names, ["one", "a longer name"]);
    }

    #[test]
    fn a_count_beyond_the_directory_is_an_error() {
        let error = parse_directory(&entry("one"), 2, 0x100).unwrap_err();
        assert_eq!(kind_of(&error), Some(&CorruptKind::TableTruncated));
        assert!(error.to_string().ends_with("0x120"), "{error}");
    }
}
