//! The feature name table (Feature name table).
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Extension;
use crate::spec;

/// Which of the three feature fields a name is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FeatureKind {
    Incompatible,
    Compatible,
    Autoclear,
}

impl FeatureKind {
    const fn code(self) -> u8 {
        match self {
            Self::Incompatible => 0,
            Self::Compatible => 1,
            Self::Autoclear => 2,
        }
    }
}

/// The names that this crate writes into new images: those that QEMU writes, in its order.
const NAMES: [(FeatureKind, u8, &str); 8] = [
    (FeatureKind::Incompatible, 0, "dirty bit"),
    (FeatureKind::Incompatible, 1, "corrupt bit"),
    (FeatureKind::Incompatible, 2, "external data file"),
    (FeatureKind::Incompatible, 3, "compression type"),
    (FeatureKind::Incompatible, 4, "extended L2 entries"),
    (FeatureKind::Compatible, 0, "lazy refcounts"),
    (FeatureKind::Autoclear, 0, "bitmaps"),
    (FeatureKind::Autoclear, 1, "raw external data"),
];

impl Extension {
    /// The feature name table of a new image.
    pub(crate) fn feature_names() -> Self {
        let mut table = Vec::with_capacity(NAMES.len().saturating_mul(spec::FEATURE_NAME_BYTES));
        for (kind, bit, name) in NAMES {
            let end = table.len().saturating_add(spec::FEATURE_NAME_BYTES);
            table.extend_from_slice(&[kind.code(), bit]);
            table.extend_from_slice(name.as_bytes());
            table.resize(end, 0);
        }
        Self::FeatureNames(table)
    }
}

/// The names of the set bits of `features`, from the image's own table where it has them: the last
/// one, as of all extensions that are there twice.
pub(super) fn names(extensions: &[Extension], kind: FeatureKind, features: u64) -> String {
    let table = extensions.iter().rev().find_map(|extension| match extension {
        Extension::FeatureNames(table) => Some(table.as_slice()),
        _ => None,
    });
    let mut names: Vec<String> = Vec::new();
    let mut unnamed = 0_u64;
    for bit in (0_u8..64).filter(|bit| features & (1 << bit) != 0) {
        match table.and_then(|table| name_of(table, kind, bit)) {
            Some(name) => names.push(name),
            None => unnamed |= 1 << bit,
        }
    }
    if unnamed != 0 {
        names.push(format!("Unknown incompatible feature: {unnamed:x}"));
    }
    names.join(", ")
}

fn name_of(table: &[u8], kind: FeatureKind, bit: u8) -> Option<String> {
    // The last one may be cut off.
    table.chunks(spec::FEATURE_NAME_BYTES).find_map(|entry| match entry {
        [entry_kind, entry_bit, name @ ..] if *entry_kind == kind.code() && *entry_bit == bit => {
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            // Control characters of a hostile image have no business on a terminal.
            let text = String::from_utf8_lossy(name.get(..end)?);
            Some(text.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
        }
        _ => None,
    })
}
