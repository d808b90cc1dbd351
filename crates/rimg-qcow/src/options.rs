//! Creation options.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::crypt;
use crate::header::Header;
use crate::spec;
use rimg_core::{Error, OptionKind, OptionSpec, RawOptions, Result};

const fn option(name: &'static str, kind: OptionKind, help: &'static str) -> OptionSpec {
    OptionSpec { name, kind, help, default: None }
}

/// In the order in which `qemu-img create` prints them; its help is sorted by name.
pub(crate) const SPECS: &[OptionSpec] = &[
    option("size", OptionKind::Size, "Virtual disk size"),
    option("backing_file", OptionKind::Text, "File name of a base image"),
    option("backing_fmt", OptionKind::Text, "Format of the backing image"),
    option(
        "encryption",
        OptionKind::Bool,
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    ),
    option("encrypt.format", OptionKind::Text, "Encrypt the image, format choices: 'aes'"),
    option(
        "encrypt.key-secret",
        OptionKind::Text,
        "ID of the secret that provides the AES encryption key",
    ),
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
    if size_bytes == 0 {
        return refuse("size", "Image size is too small, cannot be zero length");
    }
    let backing = raw.value("backing_file").map(str::to_owned);
    if backing.as_ref().is_some_and(|name| {
        u32::try_from(name.len()).map_or(true, |len| len > spec::MAX_BACKING_NAME_BYTES)
    }) {
        return refuse("backing_file", "Backing file name too long");
    }
    let is_encrypted = crypt::check_new(raw)?;
    let method = if is_encrypted { spec::crypt::AES } else { spec::crypt::NONE };
    let size = size_bytes.checked_next_multiple_of(spec::SECTOR_BYTES).unwrap_or(u64::MAX);
    let header = Header::new(size, backing, method)?;
    if size > spec::MAX_FILE_BYTES || header.l1_entries().saturating_mul(8) > spec::MAX_L1_BYTES {
        return refuse("size", "The image size is too large for file format 'qcow'");
    }
    Ok(header)
}

pub(crate) fn refuse<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_in_the_words_of_qemu_img() {
        let long = "x".repeat(1024);
        for (size, options, expected) in [
            (0, &[][..], "Image size is too small, cannot be zero length"),
            (1, &[("cluster_size", "1")], "Invalid parameter 'cluster_size'"),
            (1, &[("backing_file", &long[..])], "Backing file name too long"),
            (1 << 60, &[], "The image size is too large for file format 'qcow'"),
            (1, &[("encryption", "on")], "Parameter 'encrypt.key-secret' is required for cipher"),
            (
                1,
                &[("encryption", "on"), ("encrypt.format", "aes")],
                "'encrypt.format' and its alias 'encryption' can't be used at the same time",
            ),
            (1, &[("encrypt.format", "luks")], "Unsupported encryption format"),
            (1, &[("encrypt.key-secret", "s")], "Parameter 'encrypt.format' is missing"),
            (1, &[("encrypt.format", "aes"), ("encrypt.key-secret", "s")], "No secret with id 's'"),
        ] {
            let mut raw = RawOptions::new();
            for (name, value) in options {
                raw.set(*name, *value);
            }
            assert_eq!(new_header(size, &raw).unwrap_err().to_string(), expected);
        }
        let raw = RawOptions::new().with("encryption", "off");
        assert!(!new_header(1, &raw).unwrap().is_encrypted());
    }
}
