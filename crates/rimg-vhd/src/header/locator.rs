//! Parent locators: where a differencing disk's parent may be found.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::spec::{self, locator};
use rimg_core::{Error, Result, num, on_disk};

on_disk! {
    struct RawLocator: BigEndian, 24 bytes {
        platform_code: u32 = 0,
        platform_data_space: u32 = 4,
        platform_data_length: u32 = 8,
        platform_data_offset: u64 = 16,
    }
}

pub(super) const LOCATOR_BYTES: usize = RawLocator::SIZE_BYTES;

/// The longest name that is read, in bytes.
pub(crate) const MAX_NAME_BYTES: u32 = 64 << 10;

/// A parent locator that names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Locator {
    /// Whether the name is relative to the image's own.
    pub(crate) is_relative: bool,
    /// How long the name is, in bytes.
    pub(crate) len_bytes: u32,
    /// Where the name lies in the file.
    pub(crate) offset: u64,
}

impl Locator {
    /// Reads an entry; `None` for those that name nothing that is understood.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let raw = RawLocator::parse(bytes.first_chunk()?);
        let is_relative = match raw.platform_code {
            locator::W2RU => true,
            locator::W2KU => false,
            _ => return None,
        };
        let len_bytes = raw.platform_data_length;
        (1..=MAX_NAME_BYTES).contains(&len_bytes).then_some(Self {
            is_relative,
            len_bytes,
            offset: raw.platform_data_offset,
        })
    }

    /// A locator for the file of this name, and the bytes that are to lie at `offset`, whole
    /// sectors: folders are separated by backslashes there.
    pub(super) fn new(name: &str, offset: u64) -> Result<(Self, Vec<u8>)> {
        let is_relative = !name.starts_with('/');
        let name = name.replace('/', "\\");
        let name = if is_relative { format!(".\\{name}") } else { name };
        let mut bytes: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let len_bytes = u32::try_from(bytes.len()).ok().filter(|len| *len <= MAX_NAME_BYTES);
        let len_bytes = len_bytes.ok_or_else(|| Error::InvalidOption {
            option: "backing_file",
            reason: "File name of the parent is too long".to_owned(),
        })?;
        bytes.resize(num::to_usize(spec::whole_sectors(len_bytes.into()))?, 0);
        Ok((Self { is_relative, len_bytes, offset }, bytes))
    }

    pub(super) fn encode(&self) -> [u8; LOCATOR_BYTES] {
        let space = spec::whole_sectors(self.len_bytes.into());
        let raw = RawLocator {
            platform_code: if self.is_relative { locator::W2RU } else { locator::W2KU },
            platform_data_space: u32::try_from(space).unwrap_or(u32::MAX),
            platform_data_length: self.len_bytes,
            platform_data_offset: self.offset,
        };
        raw.encode()
    }

    /// The name in `bytes`, in the way of Windows.
    pub(crate) fn name(bytes: &[u8]) -> String {
        let (units, _) = bytes.as_chunks::<2>();
        let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
        let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        String::from_utf16_lossy(&units)
    }
}
