//! Creation options.

use crate::{FORMAT, SECTOR_BYTES};
use rimg_core::{Error, OptionKind, OptionSpec, Preallocation, RawOptions, Result};

pub(crate) const SPECS: &[OptionSpec] = &[
    OptionSpec {
        name: "extent_size_hint",
        kind: OptionKind::Size,
        help: "Extent size hint for the image file, 0 to disable",
        default: None,
    },
    OptionSpec {
        name: "nocow",
        kind: OptionKind::Bool,
        help: "Turn off copy-on-write (valid only on btrfs)",
        default: None,
    },
    OptionSpec {
        name: "preallocation",
        kind: OptionKind::Text,
        help: "Preallocation mode (allowed values: off, falloc, full)",
        default: None,
    },
    OptionSpec { name: "size", kind: OptionKind::Size, help: "Virtual disk size", default: None },
];

/// The part of a file that is the disk, as run-time options say it; all of it unless they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Window {
    /// Where it begins, in bytes.
    pub(crate) start: u64,
    /// How long it is, in bytes; it goes to the end of the file when that is not given.
    pub(crate) size: Option<u64>,
}

impl Window {
    pub(crate) fn parse(options: &RawOptions) -> Result<Self> {
        let mut window = Self::default();
        for (name, value) in options.iter() {
            let number = || value.parse().map_err(|_| expects_size(name));
            match name {
                "offset" => window.start = number()?,
                "size" => window.size = Some(number()?),
                _ => return Err(Error::unknown_open_option(FORMAT, name)),
            }
        }
        Ok(window)
    }

    /// How much of a file of `file_len` bytes it has.
    pub(crate) fn len_in(&self, file_len: u64) -> Result<u64> {
        let Self { start, size } = *self;
        let rest = file_len.checked_sub(start).ok_or_else(|| {
            let than = format!("size of the containing file ({file_len})");
            invalid("offset", format!("Offset ({start}) cannot be greater than {than}"))
        })?;
        match size {
            None => Ok(rest),
            Some(size) if size > rest => Err(invalid(
                "size",
                format!(
                    "The sum of offset ({start}) and size ({size}) has to be smaller or equal to \
                     the  actual size of the containing file ({file_len})"
                ),
            )),
            Some(size) if !size.is_multiple_of(SECTOR_BYTES) => {
                let reason = format!("Specified size is not multiple of {SECTOR_BYTES}");
                Err(invalid("size", reason))
            }
            Some(size) => Ok(size),
        }
    }
}

fn expects_size(name: &str) -> Error {
    let reason = format!("Parameter '{name}' expects a size");
    invalid(if name == "offset" { "offset" } else { "size" }, reason)
}

/// Creation options, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    pub(crate) preallocation: Preallocation,
}

impl CreateOptions {
    pub(crate) fn parse(options: &RawOptions) -> Result<Self> {
        let mut parsed = Self { preallocation: Preallocation::Off };
        for (name, value) in options.iter() {
            match name {
                "preallocation" => parsed.preallocation = preallocation(value)?,
                "extent_size_hint" => check_extent_size_hint(value)?,
                "nocow" => check_bool("nocow", value)?,
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

fn preallocation(value: &str) -> Result<Preallocation> {
    let mode = Preallocation::from_name(value)
        .ok_or_else(|| invalid("preallocation", format!("invalid parameter value: {value}")))?;
    check_preallocation(mode)?;
    Ok(mode)
}

/// There is no metadata that could be written beforehand.
pub(crate) fn check_preallocation(mode: Preallocation) -> Result<()> {
    match mode {
        Preallocation::Off | Preallocation::Falloc | Preallocation::Full => Ok(()),
        Preallocation::Metadata => Err(invalid(
            "preallocation",
            format!("Unsupported preallocation mode: {}", mode.name()),
        )),
    }
}

fn check_extent_size_hint(value: &str) -> Result<()> {
    let bytes: u64 = value.parse().map_err(|_| {
        invalid("extent_size_hint", "Parameter 'extent_size_hint' expects a size".to_owned())
    })?;
    if bytes > u64::from(u32::MAX) {
        return Err(invalid("extent_size_hint", "Extent size hint is too large".to_owned()));
    }
    Ok(())
}

fn check_bool(option: &'static str, value: &str) -> Result<()> {
    match value {
        "on" | "off" => Ok(()),
        _ => Err(invalid(option, format!("Parameter '{option}' expects 'on' or 'off'"))),
    }
}

pub(crate) fn invalid(option: &'static str, reason: String) -> Error {
    Error::InvalidOption { option, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(options: RawOptions) -> Option<String> {
        CreateOptions::parse(&options).err().map(|error| error.to_string())
    }

    #[test]
    fn values_are_checked_in_the_words_of_qemu_img() {
        for (name, value, expected) in [
            ("preallocation", "metadata", "Unsupported preallocation mode: metadata"),
            ("preallocation", "bogus", "invalid parameter value: bogus"),
            ("extent_size_hint", "5242880000", "Extent size hint is too large"),
            ("nocow", "x", "Parameter 'nocow' expects 'on' or 'off'"),
            ("bla", "x", "unsupported raw feature: creation option 'bla'"),
        ] {
            assert_eq!(reason(RawOptions::new().with(name, value)).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_window_lies_in_its_file() {
        let window = |text: &str| {
            let mut options = RawOptions::new();
            for (name, value) in text.split(',').filter_map(|entry| entry.split_once('=')) {
                options.set(name, value);
            }
            Window::parse(&options)
                .and_then(|window| window.len_in(4096))
                .map_err(|error| error.to_string())
        };
        assert_eq!(window(""), Ok(4096));
        assert_eq!(window("offset=100"), Ok(3996));
        assert_eq!(window("offset=1024,size=1024"), Ok(1024));
        for (options, reason) in [
            (
                "offset=4097,size=100",
                "Offset (4097) cannot be greater than size of the containing file (4096)",
            ),
            (
                "offset=512,size=3585",
                "The sum of offset (512) and size (3585) has to be smaller or equal to the  actual \
                 size of the containing file (4096)",
            ),
            ("size=100", "Specified size is not multiple of 512"),
            ("x=1", "Block format 'raw' does not support the option 'x'"),
        ] {
            assert_eq!(window(options), Err(reason.to_owned()), "{options}");
        }
    }

    #[test]
    fn every_listed_option_is_accepted() {
        let options = RawOptions::new()
            .with("extent_size_hint", "1048576")
            .with("nocow", "on")
            .with("preallocation", "falloc")
            .with("size", "512");
        let parsed = CreateOptions::parse(&options).unwrap();
        assert_eq!(parsed, CreateOptions { preallocation: Preallocation::Falloc });
        assert_eq!(options.iter().count(), SPECS.len());
    }
}
