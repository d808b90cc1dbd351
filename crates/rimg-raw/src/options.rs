//! Creation options.

use crate::FORMAT;
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
