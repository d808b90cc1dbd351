//! Creation options, and those for opening.

use crate::error::FORMAT;
use crate::spec;
use rimg_core::{Error, OpenOptions, OptionKind, OptionSpec, RawOptions, Result, Uuid};

const fn spec(name: &'static str, kind: OptionKind, help: &'static str) -> OptionSpec {
    OptionSpec { name, kind, help, default: None }
}

/// In the order in which `qemu-img create` prints them.
pub(crate) const SPECS: &[OptionSpec] = &[
    spec("size", OptionKind::Size, "Virtual disk size"),
    spec(
        "subformat",
        OptionKind::Text,
        "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} ",
    ),
    spec(
        "force_size",
        OptionKind::Bool,
        "Force disk size calculation to use the actual size specified, rather than using the \
         nearest CHS-based calculation",
    ),
];

/// Those that QEMU has not.
pub(crate) const EXTRA_SPECS: &[OptionSpec] = &[
    spec("backing_file", OptionKind::Text, "File name of the parent, a vpc image"),
    spec("backing_fmt", OptionKind::Text, "Image format of the parent (vpc)"),
    spec("block_size", OptionKind::Size, "VHD block size (default 2M)"),
    spec("uuid", OptionKind::Text, "UUID of the image (default: derived from its options)"),
    spec(
        "timestamp",
        OptionKind::Number,
        "Time of creation in seconds since 1970 (default: the year 2000)",
    ),
];

/// Creation options, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    /// The image below, by its name.
    pub(crate) parent: Option<String>,
    pub(crate) is_fixed: bool,
    /// The size is what was asked for, not that of a geometry.
    pub(crate) force_size: bool,
    /// A power of two, at least a sector.
    pub(crate) block_bytes: u32,
    pub(crate) uuid: Option<Uuid>,
    /// Seconds since the start of the year 2000.
    pub(crate) timestamp: u32,
}

impl CreateOptions {
    pub(crate) fn parse(options: &RawOptions) -> Result<Self> {
        let mut parsed = Self {
            parent: None,
            is_fixed: false,
            force_size: false,
            block_bytes: spec::BLOCK_BYTES,
            uuid: None,
            timestamp: 0,
        };
        for (name, value) in options.iter() {
            match name {
                "backing_file" => parsed.parent = Some(value.to_owned()),
                "backing_fmt" => check_parent_format(value)?,
                "subformat" => parsed.is_fixed = subformat(value)?,
                "force_size" => parsed.force_size = is_on("force_size", value)?,
                "block_size" => parsed.block_bytes = block_bytes(value)?,
                "uuid" => parsed.uuid = Some(uuid(value)?),
                "timestamp" => parsed.timestamp = timestamp(value)?,
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
        if parsed.parent.is_some() && parsed.is_fixed {
            let reason = "An image of fixed size has no parent".to_owned();
            return Err(invalid("subformat", reason));
        }
        Ok(parsed)
    }
}

fn check_parent_format(value: &str) -> Result<()> {
    if value == FORMAT {
        return Ok(());
    }
    Err(invalid("backing_fmt", "Parent must be a vpc image".to_owned()))
}

fn subformat(value: &str) -> Result<bool> {
    match value {
        "dynamic" => Ok(false),
        "fixed" => Ok(true),
        _ => Err(invalid(
            "subformat",
            format!("Parameter 'subformat' does not accept value '{value}'"),
        )),
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

fn timestamp(value: &str) -> Result<u32> {
    let seconds = value.parse().ok().and_then(|seconds: u64| seconds.checked_sub(spec::EPOCH));
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).ok_or_else(|| {
        let reason = "Time stamp must be from 946684800, the start of the year 2000, on";
        invalid("timestamp", reason.to_owned())
    })
}

pub(crate) fn invalid(option: &'static str, reason: String) -> Error {
    Error::InvalidOption { option, reason }
}

/// What the format is told when an image is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RunTimeOptions {
    /// The size is that of the geometry, or of the footer, whoever made the image.
    pub(crate) size_calculation: Option<SizeCalculation>,
    /// The parent's time stamp need not be the one that the image has: some programs store when
    /// the parent's file was last written to.
    pub(crate) any_parent_time: bool,
}

/// Where a disk's size is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SizeCalculation {
    Geometry,
    CurrentSize,
}

impl RunTimeOptions {
    pub(crate) fn parse(how: &OpenOptions<'_>) -> Result<Self> {
        let mut parsed = Self::default();
        for (name, value) in how.options.iter() {
            match (name, value) {
                // As with QEMU: of something else it makes nothing.
                ("force_size_calc", "current_size") => {
                    parsed.size_calculation = Some(SizeCalculation::CurrentSize);
                }
                ("force_size_calc", "chs") => {
                    parsed.size_calculation = Some(SizeCalculation::Geometry);
                }
                ("force_size_calc", other) => {
                    let reason = format!("Invalid size calculation mode: '{other}'");
                    return Err(invalid("force_size_calc", reason));
                }
                ("any_parent_time", value) => {
                    parsed.any_parent_time = is_on("any_parent_time", value)?;
                }
                (other, _) => return Err(Error::unknown_open_option(FORMAT, other)),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        for (name, value, expected) in [
            ("backing_fmt", "raw", "Parent must be a vpc image"),
            ("subformat", "x", "Parameter 'subformat' does not accept value 'x'"),
            ("force_size", "x", "Parameter 'force_size' expects 'on' or 'off'"),
            ("block_size", "1000", "Block size must be a power of two from 512 bytes to 1 GiB"),
            ("uuid", "x", "Invalid UUID 'x'"),
            ("timestamp", "1", "Time stamp must be from 946684800, the start of the year 2000, on"),
            ("bla", "x", "unsupported vpc feature: creation option 'bla'"),
        ] {
            let error = CreateOptions::parse(&RawOptions::new().with(name, value)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn every_listed_option_is_accepted() {
        let options = RawOptions::new()
            .with("size", "512")
            .with("subformat", "fixed")
            .with("force_size", "on")
            .with("block_size", "4096")
            .with("uuid", "00112233-4455-6677-8899-aabbccddeeff")
            .with("timestamp", "946684801");
        let parsed = CreateOptions::parse(&options).unwrap();
        assert!(parsed.is_fixed && parsed.force_size);
        assert_eq!((parsed.block_bytes, parsed.timestamp), (4096, 1));
        assert_eq!(parsed.uuid.unwrap().0[1], 0x11);
    }
}
