//! The parent locator: how a differencing image finds and knows its parent (2.6.2.6).

use super::Guid;
use crate::error::CorruptKind;
use crate::spec;
use rimg_core::{Result, num, on_disk};

on_disk! {
    /// The head of the item (2.6.2.6.1).
    pub(crate) struct RawLocator: LittleEndian, 20 bytes {
        type_low: u64 = 0,
        type_high: u64 = 8,
        key_value_count: u16 = 18,
    }
}

on_disk! {
    /// An entry of it (2.6.2.6.2).
    pub(crate) struct RawPair: LittleEndian, 12 bytes {
        key_offset: u32 = 0,
        value_offset: u32 = 4,
        key_length: u16 = 8,
        value_length: u16 = 10,
    }
}

const LINKAGE: &str = "parent_linkage";
const LINKAGE_2: &str = "parent_linkage2";
/// The keys of paths, in the order in which they are to be tried (2.2.4).
const PATHS: [&str; 3] = ["relative_path", "volume_path", "absolute_win32_path"];

/// What a differencing image says of its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParentLocator {
    /// The parent's `DataWriteGuid` when the image was made.
    pub(crate) linkage: Guid,
    /// What the parent's may be as well, while it is being merged.
    pub(crate) linkage2: Option<Guid>,
    /// Where the parent may be: keys and paths as they stand in the image, best first.
    pub(crate) paths: Vec<(&'static str, String)>,
}

impl ParentLocator {
    /// Reads the item that stands `at` in the file.
    pub(crate) fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let wrong = |kind: CorruptKind, field| kind.at("parent locator", field, at);
        let raw = bytes.first_chunk().map(RawLocator::parse).unwrap_or_default();
        let kind = Guid::of_words(raw.type_low, raw.type_high);
        if kind != spec::metadata::VHDX_PARENT_LOCATOR {
            return Err(wrong(CorruptKind::LocatorType(kind), "locator_type"));
        }
        let mut found: Vec<(String, String)> = Vec::new();
        let pairs = bytes.get(RawLocator::SIZE_BYTES..).unwrap_or_default();
        let (pairs, _) = pairs.as_chunks::<{ RawPair::SIZE_BYTES }>();
        if pairs.len() < usize::from(raw.key_value_count) {
            let kind = CorruptKind::EntryCount(raw.key_value_count.into());
            return Err(wrong(kind, "key_value_count"));
        }
        for pair in pairs.iter().take(raw.key_value_count.into()).map(RawPair::parse) {
            let key = text(bytes, pair.key_offset, pair.key_length);
            // Values of keys that are not known may be anything.
            let Some(key) = key else { return Err(wrong(CorruptKind::LocatorText, "key")) };
            let is_known = PATHS.contains(&&*key) || [LINKAGE, LINKAGE_2].contains(&&*key);
            if !is_known || found.iter().any(|(known, _)| *known == key) {
                continue;
            }
            match text(bytes, pair.value_offset, pair.value_length) {
                Some(value) => found.push((key, value)),
                None => return Err(wrong(CorruptKind::LocatorText, "value")),
            }
        }
        let value =
            |key: &str| found.iter().find(|(known, _)| known == key).map(|(_, value)| value);
        let guid = |key: &'static str| match value(key) {
            None => Ok(None),
            Some(text) => match Guid::parse(text) {
                Some(guid) => Ok(Some(guid)),
                None => Err(wrong(CorruptKind::NotGuid(text.clone()), key)),
            },
        };
        let Some(linkage) = guid(LINKAGE)? else {
            return Err(wrong(CorruptKind::NoLocatorKey(LINKAGE), "key"));
        };
        let paths = PATHS.iter().filter_map(|key| Some((*key, value(key)?.clone())));
        Ok(Self { linkage, linkage2: guid(LINKAGE_2)?, paths: paths.collect() })
    }

    /// Where in the item the linkage stands, if its text can be replaced by that of another GUID:
    /// offset and length in bytes.
    pub(crate) fn find_linkage(bytes: &[u8]) -> Option<(u32, u16)> {
        let raw = bytes.first_chunk().map(RawLocator::parse)?;
        let pairs = bytes.get(RawLocator::SIZE_BYTES..)?;
        let (pairs, _) = pairs.as_chunks::<{ RawPair::SIZE_BYTES }>();
        let mut pairs = pairs.iter().take(raw.key_value_count.into()).map(RawPair::parse);
        let pair = pairs.find(|pair| {
            text(bytes, pair.key_offset, pair.key_length).as_deref() == Some(LINKAGE)
        })?;
        Some((pair.value_offset, pair.value_length))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut pairs = vec![(LINKAGE, format!("{{{}}}", self.linkage))];
        pairs.extend(self.linkage2.map(|guid| (LINKAGE_2, format!("{{{guid}}}"))));
        pairs.extend(self.paths.iter().map(|(key, path)| (*key, path.clone())));
        let (type_low, type_high) = spec::metadata::VHDX_PARENT_LOCATOR.words();
        let key_value_count = u16::try_from(pairs.len()).unwrap_or_default();
        let mut bytes = RawLocator { type_low, type_high, key_value_count }.encode().to_vec();
        let entries = pairs.len().saturating_mul(RawPair::SIZE_BYTES);
        let mut texts = Vec::new();
        let mut put = |text: &str| {
            let offset = bytes.len().saturating_add(entries).saturating_add(texts.len());
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let len = u16::try_from(utf16.len()).unwrap_or_default();
            texts.extend(utf16);
            (u32::try_from(offset).unwrap_or_default(), len)
        };
        let entries: Vec<_> = pairs.iter().map(|(key, value)| (put(key), put(value))).collect();
        for ((key_offset, key_length), (value_offset, value_length)) in entries {
            let pair = RawPair { key_offset, value_offset, key_length, value_length };
            bytes.extend_from_slice(&pair.encode());
        }
        bytes.append(&mut texts);
        bytes
    }

    /// The names under which the parent is to be looked for: separators are slashes.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.paths.iter().map(|(_, path)| path.replace('\\', "/"))
    }
}

fn text(bytes: &[u8], offset: u32, length: u16) -> Option<String> {
    let start = num::to_usize(offset.into()).ok()?;
    let bytes = bytes.get(start..)?.get(..usize::from(length))?;
    let (units, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    if rest.is_empty() && !units.is_empty() { String::from_utf16(&units).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    fn locator() -> ParentLocator {
        ParentLocator {
            linkage: Guid(1 << 90 | 3),
            linkage2: None,
            paths: vec![("relative_path", r"..\base disk.vhdx".to_owned())],
        }
    }

    #[test]
    fn what_was_encoded_is_parsed() {
        let with_all = ParentLocator {
            linkage2: Some(Guid(8)),
            paths: PATHS.iter().map(|key| (*key, format!("é{key}"))).collect(),
            ..locator()
        };
        for locator in [locator(), with_all] {
            assert_eq!(ParentLocator::parse(&locator.encode(), 0).unwrap(), locator);
        }
        assert_eq!(locator().names().collect::<Vec<_>>(), ["../base disk.vhdx"]);
    }

    #[test]
    fn locators_that_cannot_be_are_named() {
        let wrong = |change: fn(&mut Vec<u8>)| {
            let mut bytes = locator().encode();
            change(&mut bytes);
            let error = ParentLocator::parse(&bytes, 0x1000).unwrap_err();
            error.source().and_then(|kind| kind.downcast_ref()).cloned()
        };
        assert_eq!(wrong(|b| b[18] = 200), Some(CorruptKind::EntryCount(200)));
        assert_eq!(wrong(|b| b[18] = 0), Some(CorruptKind::NoLocatorKey(LINKAGE)));
        assert_eq!(wrong(|b| b[28] = 1), Some(CorruptKind::LocatorText));
        assert_eq!(wrong(|b| b[23] = 1), Some(CorruptKind::LocatorText));
        assert_eq!(wrong(|b| b[30] = 4), Some(CorruptKind::NotGuid("{0".to_owned())));
        assert!(matches!(wrong(|b| b[0] = 0), Some(CorruptKind::LocatorType(_))));
        assert!(matches!(wrong(Vec::clear), Some(CorruptKind::LocatorType(_))));
    }
}
