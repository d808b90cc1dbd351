//! Header extensions (Header extensions): a list of type, length, data padded to 8 bytes.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use crate::spec;
use rimg_core::{Result, num};

/// One header extension. What is not understood is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extension {
    BackingFormat(String),
    DataFileName(String),
    /// The raw table; see [`super::feature`].
    FeatureNames(Vec<u8>),
    Bitmaps(Vec<u8>),
    Encryption(Vec<u8>),
    Unknown {
        kind: u32,
        data: Vec<u8>,
    },
}

impl Extension {
    fn parse(kind: u32, data: &[u8], at: u64) -> Result<Self> {
        let text = || {
            core::str::from_utf8(data)
                .map(str::to_owned)
                .map_err(|_| CorruptKind::NotUtf8.at("header extension", "data", at))
        };
        Ok(match kind {
            spec::extension::BACKING_FORMAT => Self::BackingFormat(text()?),
            spec::extension::DATA_FILE_NAME => Self::DataFileName(text()?),
            spec::extension::FEATURE_NAMES => Self::FeatureNames(data.to_vec()),
            spec::extension::BITMAPS => Self::Bitmaps(data.to_vec()),
            spec::extension::ENCRYPTION => Self::Encryption(data.to_vec()),
            _ => Self::Unknown { kind, data: data.to_vec() },
        })
    }

    fn parts(&self) -> (u32, &[u8]) {
        match self {
            Self::BackingFormat(name) => (spec::extension::BACKING_FORMAT, name.as_bytes()),
            Self::DataFileName(name) => (spec::extension::DATA_FILE_NAME, name.as_bytes()),
            Self::FeatureNames(data) => (spec::extension::FEATURE_NAMES, data),
            Self::Bitmaps(data) => (spec::extension::BITMAPS, data),
            Self::Encryption(data) => (spec::extension::ENCRYPTION, data),
            Self::Unknown { kind, data } => (*kind, data),
        }
    }
}

/// Whether the list of extensions from `from` on has its end marker in `start`.
pub(super) fn ends_within(start: &[u8], from: u32) -> bool {
    let mut rest = usize::try_from(from).ok().and_then(|from| start.get(from..));
    while let Some((head, behind)) = rest.and_then(<[u8]>::split_first_chunk::<8>) {
        let (kind, len) = kind_and_len(*head);
        if kind == spec::extension::END {
            return true;
        }
        let len = num::align_up(len, 8).and_then(|len| usize::try_from(len).ok());
        rest = len.and_then(|len| behind.get(len..));
    }
    false
}

/// The head of an extension.
fn kind_and_len([a, b, c, d, e, f, g, h]: [u8; 8]) -> (u32, u64) {
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]).into())
}

/// Reads the extensions between `from` and `end`; a list may also end where its space does.
pub(super) fn parse_all(start: &[u8], from: u32, end: u64) -> Result<Vec<Extension>> {
    let mut found = Vec::new();
    let mut at = u64::from(from);
    while let Some(data_at) = at.checked_add(8).filter(|data_at| *data_at <= end) {
        let Some(head) = start.get(num::to_usize(at)?..).and_then(<[u8]>::first_chunk::<8>) else {
            break;
        };
        let (kind, len) = kind_and_len(*head);
        if kind == spec::extension::END {
            break;
        }
        let too_long = || CorruptKind::Extension { kind, len }.at("header extension", "length", at);
        let data_end = data_at.checked_add(len).filter(|e| *e <= end).ok_or_else(too_long)?;
        let data =
            start.get(num::to_usize(data_at)?..num::to_usize(data_end)?).ok_or_else(too_long)?;
        found.push(Extension::parse(kind, data, data_at)?);
        at = num::align_up(data_end, 8).ok_or_else(too_long)?;
    }
    Ok(found)
}

/// Appends the extensions and the end marker.
pub(super) fn encode_all(extensions: &[Extension], bytes: &mut Vec<u8>) {
    for extension in extensions {
        let (kind, data) = extension.parts();
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes.extend_from_slice(&[0; 8]);
}
