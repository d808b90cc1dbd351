//! Creation options, and the one for opening.

use crate::error::FORMAT;
use crate::spec;
use rimg_core::{Error, OptionKind, OptionSpec, RawOptions, Result, Uuid};

/// In the order in which `qemu-img create` prints them.
pub(crate) const SPECS: &[OptionSpec] = &[
    OptionSpec { name: "size", kind: OptionKind::Size, help: "Virtual disk size", default: None },
    OptionSpec {
        name: "static",
        kind: OptionKind::Bool,
        help: "VDI static (pre-allocated) image",
        default: Some("off"),
    },
];

/// Those that QEMU has not.
pub(crate) const EXTRA_SPECS: &[OptionSpec] = &[
    OptionSpec {
        name: "block_size",
        kind: OptionKind::Size,
        help: "VDI block size (default 1M)",
        default: None,
    },
    OptionSpec {
        name: "uuid",
        kind: OptionKind::Text,
        help: "UUID of the image (default: derived from its options)",
        default: None,
    },
];

/// Names the image below one that does not name it itself, to open it.
pub(crate) const PARENT: &str = "parent";

/// Creation options, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    pub(crate) is_static: bool,
    /// A power of two, at least a sector.
    pub(crate) block_bytes: u32,
    pub(crate) uuid: Option<Uuid>,
}

impl CreateOptions {
    pub(crate) fn parse(options: &RawOptions) -> Result<Self> {
        let mut parsed = Self { is_static: false, block_bytes: spec::BLOCK_BYTES, uuid: None };
        for (name, value) in options.iter() {
            match name {
                "static" => parsed.is_static = is_on("static", value)?,
                "block_size" => parsed.block_bytes = block_bytes(value)?,
                "uuid" => parsed.uuid = Some(uuid(value)?),
                // The size comes as an argument of its own.
                "size" => {}
                _ => {
                    return Err(Error::Unsupported {
                        format: FORMAT,
                        feature: format!("creation option '{name}'"),
                    });
                }
            }
        }
        Ok(parsed)
    }
}

fn is_on(option: &'static str, value: &str) -> Result<bool> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(invalid(option, format!("Parameter '{option}' expects 'on' or 'off'"))),
    }
}

fn block_bytes(value: &str) -> Result<u32> {
    let bytes = value.parse().ok().filter(|bytes: &u32| {
        bytes.is_power_of_two() && (512..=spec::MAX_BLOCK_BYTES).contains(bytes)
    });
    bytes.ok_or_else(|| {
        let reason = "Block size must be a power of two from 512 bytes to 1 GiB";
        invalid("block_size", reason.to_owned())
    })
}

fn uuid(value: &str) -> Result<Uuid> {
    Uuid::parse(value).ok_or_else(|| invalid("uuid", format!("Invalid UUID '{value}'")))
}

pub(crate) fn invalid(option: &'static str, reason: String) -> Error {
    Error::InvalidOption { option, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        for (name, value, expected) in [
            ("static", "x", "Parameter 'static' expects 'on' or 'off'"),
            ("block_size", "1000", "Block size must be a power of two from 512 bytes to 1 GiB"),
            ("block_size", "256", "Block size must be a power of two from 512 bytes to 1 GiB"),
            ("uuid", "x", "Invalid UUID 'x'"),
            ("bla", "x", "unsupported vdi feature: creation option 'bla'"),
        ] {
            let error = CreateOptions::parse(&RawOptions::new().with(name, value)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn every_listed_option_is_accepted() {
        let options = RawOptions::new()
            .with("size", "512")
            .with("static", "on")
            .with("block_size", "4096")
            .with("uuid", "00112233-4455-6677-8899-aabbccddeeff");
        let parsed = CreateOptions::parse(&options).unwrap();
        assert!(parsed.is_static);
        assert_eq!(parsed.block_bytes, 4096);
        assert_eq!(parsed.uuid.unwrap().0[1], 0x11);
    }
}
