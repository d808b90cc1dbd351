//! Creation options.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::header::Header;
use crate::spec::{self, SECTOR_BYTES};
use rimg_core::{Error, OptionKind, OptionSpec, RawOptions, Result};

/// In the order in which `qemu-img create` prints them; its help is sorted by name.
pub(crate) const SPECS: &[OptionSpec] = &[
    OptionSpec { name: "size", kind: OptionKind::Size, help: "Virtual disk size", default: None },
    OptionSpec {
        name: "cluster_size",
        kind: OptionKind::Size,
        help: "Parallels image cluster size",
        default: Some("1048576"),
    },
];

/// Options that the file below an image has, not the format.
const PROTOCOL_OPTIONS: &[&str] = &["nocow", "extent_size_hint", "preallocation"];

/// The header of the image that options ask for, in the words of `qemu-img create` where it is
/// none.
pub(crate) fn new_header(size_bytes: u64, raw: &RawOptions) -> Result<Header> {
    let known =
        |name| SPECS.iter().any(|spec| spec.name == name) || PROTOCOL_OPTIONS.contains(&name);
    if let Some((name, _)) = raw.iter().find(|(name, _)| !known(name)) {
        return refuse("options", format!("Invalid parameter '{name}'"));
    }
    let bytes = cluster_bytes(raw)?;
    if bytes >= spec::MAX_CLUSTER_BYTES {
        return refuse("cluster_size", "Cluster size is too large");
    }
    let sectors = u32::try_from(bytes.div_ceil(SECTOR_BYTES)).unwrap_or(u32::MAX);
    let header = match sectors {
        0 => None,
        _ => Header::new(sectors, size_bytes.div_ceil(SECTOR_BYTES)),
    };
    match header {
        Some(header) => Ok(header),
        None => refuse("size", "Image size is too large for this cluster size"),
    }
}

pub(crate) fn refuse<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

fn cluster_bytes(raw: &RawOptions) -> Result<u64> {
    let Some(text) = raw.value("cluster_size") else { return Ok(spec::DEFAULT_CLUSTER_BYTES) };
    match text.parse() {
        Ok(bytes) => Ok(bytes),
        Err(_) => refuse(
            "cluster_size",
            "Parameter 'cluster_size' expects a non-negative number below 2^64\n\
             Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
             and exabytes, respectively.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_in_the_words_of_qemu_img() {
        let many = "Image size is too large for this cluster size";
        for (size, name, value, expected) in [
            (1, "cluster_size", "2147483648", "Cluster size is too large"),
            (1, "cluster_size", "0", many),
            (4097 << 40, "cluster_size", "1048576", many),
            (1, "bla", "1", "Invalid parameter 'bla'"),
        ] {
            let raw = RawOptions::new().with(name, value);
            assert_eq!(new_header(size, &raw).unwrap_err().to_string(), expected);
        }
        let odd = RawOptions::new().with("cluster_size", "1");
        assert_eq!(new_header(1025, &odd).unwrap().bat_entries, 3);
    }
}
