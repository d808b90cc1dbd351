//! Creation options.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::CorruptKind;
use crate::spec;
use rimg_core::{Error, OptionKind, OptionSpec, RawOptions, Result};

const fn option(
    name: &'static str,
    kind: OptionKind,
    help: &'static str,
    default: Option<&'static str>,
) -> OptionSpec {
    OptionSpec { name, kind, help, default }
}

/// In the order in which `qemu-img create` prints them; its help is sorted by name.
pub(crate) const SPECS: &[OptionSpec] = &[
    option("size", OptionKind::Size, "Virtual disk size", None),
    option("backing_file", OptionKind::Text, "File name of a base image", None),
    option("backing_fmt", OptionKind::Text, "Image format of the base image", None),
    option("cluster_size", OptionKind::Size, "Cluster size (in bytes)", Some("65536")),
    option("table_size", OptionKind::Size, "L1/L2 table size (in clusters)", None),
];

/// Options that the file below an image has, not the format.
const PROTOCOL_OPTIONS: &[&str] = &["nocow", "extent_size_hint", "preallocation"];

/// What a new image is to be like; every combination is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    pub(crate) geometry: Geometry,
    /// A multiple of the sector size.
    pub(crate) size_bytes: u64,
    pub(crate) backing_file: Option<String>,
    pub(crate) backing_is_raw: bool,
}

impl CreateOptions {
    /// Reads the options for an image of `size_bytes` and refuses what does not go together, in
    /// the order and the words of `qemu-img create`.
    pub(crate) fn parse(size_bytes: u64, raw: &RawOptions) -> Result<Self> {
        let known =
            |name| SPECS.iter().any(|spec| spec.name == name) || PROTOCOL_OPTIONS.contains(&name);
        if let Some((name, _)) = raw.iter().find(|(name, _)| !known(name)) {
            return refuse("options", format!("Invalid parameter '{name}'"));
        }
        let cluster = number(raw, "cluster_size", spec::DEFAULT_CLUSTER_BYTES)?;
        let table = number(raw, "table_size", spec::DEFAULT_TABLE_CLUSTERS)?;
        let geometry = match Geometry::new(cluster, table) {
            Ok(geometry) => geometry,
            Err(CorruptKind::TableClusters(_)) => {
                let (least, most) = spec::TABLE_CLUSTERS.into_inner();
                let reason =
                    format!("QED table size must be within range [{least}, {most}] and power of 2");
                return refuse("table_size", reason);
            }
            Err(_) => {
                let (least, most) = spec::CLUSTER_BYTES.into_inner();
                let reason = format!(
                    "QED cluster size must be within range [{least}, {most}] and power of 2"
                );
                return refuse("cluster_size", reason);
            }
        };
        let most = geometry.max_image_bytes();
        let size = size_bytes.checked_next_multiple_of(spec::SECTOR_BYTES);
        let Some(size_bytes) = size.filter(|&size| size <= most) else {
            return refuse(
                "size",
                format!(
                    "QED image size must be a non-zero multiple of cluster size and less than \
                     {most} bytes"
                ),
            );
        };
        Ok(Self {
            geometry,
            size_bytes,
            backing_file: raw.value("backing_file").map(str::to_owned),
            backing_is_raw: raw.value("backing_fmt") == Some("raw"),
        })
    }
}

pub(crate) fn refuse<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

/// A number; one that is too large is none that is allowed either.
fn number(raw: &RawOptions, name: &'static str, default: u32) -> Result<u32> {
    let Some(text) = raw.value(name) else { return Ok(default) };
    match text.parse::<u64>() {
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => refuse(
            name,
            format!(
                "Parameter '{name}' expects a non-negative number below 2^64\n\
                 Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
                 and exabytes, respectively."
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_wrong_is_named_in_the_words_of_qemu_img() {
        let cluster = "QED cluster size must be within range [4096, 67108864] and power of 2";
        let table = "QED table size must be within range [1, 16] and power of 2";
        let size = "QED image size must be a non-zero multiple of cluster size and less than";
        for (bytes, options, expected) in [
            (1, &[("cluster_size", "2048"), ("table_size", "3")][..], cluster),
            (1, &[("cluster_size", "4294971392")], cluster),
            (u64::MAX, &[("table_size", "3")], table),
            ((64 << 40) + 1, &[], size),
            ((1 << 30) + 1, &[("cluster_size", "4096"), ("table_size", "1")], size),
            (1, &[("bla", "1")], "Invalid parameter 'bla'"),
        ] {
            let mut raw = RawOptions::new();
            for (name, value) in options {
                raw.set(*name, *value);
            }
            let error = CreateOptions::parse(bytes, &raw).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        assert!(CreateOptions::parse(64 << 40, RawOptions::NONE).is_ok());
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let plain = CreateOptions::parse(1, RawOptions::NONE).unwrap();
        let mut raw = RawOptions::new();
        for spec in SPECS {
            if let Some(default) = spec.default {
                raw.set(spec.name, default);
            }
        }
        assert_eq!(CreateOptions::parse(512, &raw).unwrap(), plain);
    }
}
