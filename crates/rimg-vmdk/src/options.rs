//! Creation options: their table, and what they mean together.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::FORMAT;
use crate::spec::descriptor::NO_PARENT;
use rimg_core::{Error, OptionKind, OptionSpec, RawOptions, Result};

const fn text(name: &'static str, help: &'static str, default: Option<&'static str>) -> OptionSpec {
    OptionSpec { name, kind: OptionKind::Text, help, default }
}

/// In the order in which `qemu-img create` prints them.
pub(crate) const SPECS: &[OptionSpec] = &[
    OptionSpec { name: "size", kind: OptionKind::Size, help: "Virtual disk size", default: None },
    text(
        "adapter_type",
        "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX",
        None,
    ),
    text("backing_file", "File name of a base image", None),
    text("backing_fmt", "Must be 'vmdk' if present", None),
    OptionSpec {
        name: "compat6",
        kind: OptionKind::Bool,
        help: "VMDK version 6 image",
        default: Some("off"),
    },
    text("hwversion", "VMDK hardware version", Some("undefined")),
    text(
        "subformat",
        "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | \
         twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ",
        None,
    ),
    text("toolsversion", "VMware guest tools version", None),
    OptionSpec {
        name: "zeroed_grain",
        kind: OptionKind::Bool,
        help: "Enable efficient zero writes using the zeroed-grain GTE feature",
        default: None,
    },
];

/// What QEMU has not.
pub(crate) const EXTRA_SPECS: &[OptionSpec] = &[text(
    "cid",
    "Content ID, eight hexadecimal digits; derived from the other options if absent",
    None,
)];

/// How a new disk is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subformat {
    MonolithicSparse,
    MonolithicFlat,
    TwoGbMaxExtentSparse,
    TwoGbMaxExtentFlat,
    StreamOptimized,
}

impl Subformat {
    const ALL: [Self; 5] = [
        Self::MonolithicSparse,
        Self::MonolithicFlat,
        Self::TwoGbMaxExtentSparse,
        Self::TwoGbMaxExtentFlat,
        Self::StreamOptimized,
    ];

    /// The `createType` of descriptors.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MonolithicSparse => "monolithicSparse",
            Self::MonolithicFlat => "monolithicFlat",
            Self::TwoGbMaxExtentSparse => "twoGbMaxExtentSparse",
            Self::TwoGbMaxExtentFlat => "twoGbMaxExtentFlat",
            Self::StreamOptimized => "streamOptimized",
        }
    }

    pub(crate) const fn is_flat(self) -> bool {
        matches!(self, Self::MonolithicFlat | Self::TwoGbMaxExtentFlat)
    }

    pub(crate) const fn is_split(self) -> bool {
        matches!(self, Self::TwoGbMaxExtentSparse | Self::TwoGbMaxExtentFlat)
    }
}

/// Why an overlay is refused whose parent is no VMDK.
pub(crate) const PARENT_OF_OTHER_FORMAT: &str = "backing_file must be a vmdk image";

/// What a new image is to be like; every combination is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    pub(crate) subformat: Subformat,
    pub(crate) adapter_type: String,
    pub(crate) hardware_version: String,
    pub(crate) tools_version: String,
    pub(crate) zeroed_grain: bool,
    pub(crate) backing_file: Option<String>,
    pub(crate) cid: Option<u32>,
}

impl CreateOptions {
    /// Reads the options and refuses what does not go together, in the words of `qemu-img create`.
    pub(crate) fn parse(raw: &RawOptions) -> Result<Self> {
        let is_known = |name: &str| SPECS.iter().chain(EXTRA_SPECS).any(|spec| spec.name == name);
        let unknown = raw.iter().find(|(name, _)| !is_known(name));
        if let Some((name, _)) = unknown {
            return Err(Error::Unsupported {
                format: FORMAT,
                feature: format!("creation option '{name}'"),
            });
        }
        let backing_file = raw.value("backing_file").map(str::to_owned);
        let is_other = raw.value("backing_fmt").is_some_and(|format| format != FORMAT);
        if backing_file.is_some() && is_other {
            return refuse("backing_file", PARENT_OF_OTHER_FORMAT);
        }
        let word = |name, default: &str| {
            let value = raw.value(name).unwrap_or(default);
            check_text(name, value).map(|()| value.to_owned())
        };
        let adapter_type = word("adapter_type", "ide")?;
        let hardware_version = match word("hwversion", "undefined")?.as_str() {
            "undefined" if is_on(raw, "compat6")? => "6".to_owned(),
            "undefined" => "4".to_owned(),
            _ if is_on(raw, "compat6")? => {
                return refuse("compat6", "compat6 cannot be enabled with hwversion set");
            }
            other => other.to_owned(),
        };
        if !matches!(adapter_type.as_str(), "ide" | "buslogic" | "lsilogic" | "legacyESX") {
            return refuse("adapter_type", format!("invalid parameter value: {adapter_type}"));
        }
        let subformat = word("subformat", "monolithicSparse")?;
        let found = Subformat::ALL.into_iter().find(|known| known.name() == subformat);
        let Some(subformat) = found else {
            return refuse("subformat", format!("invalid parameter value: {subformat}"));
        };
        let zeroed_grain = is_on(raw, "zeroed_grain")?;
        if subformat.is_flat() && backing_file.is_some() {
            return refuse("backing_file", "Flat image can't have backing file");
        }
        if subformat.is_flat() && zeroed_grain {
            return refuse("zeroed_grain", "Flat image can't enable zeroed grain");
        }
        if let Some(name) = &backing_file {
            check_text("backing_file", name)?;
        }
        Ok(Self {
            subformat,
            adapter_type,
            hardware_version,
            tools_version: word("toolsversion", "2147483647")?,
            zeroed_grain,
            backing_file,
            cid: raw.value("cid").map(parse_cid).transpose()?,
        })
    }

    /// How many heads the adapter makes of the disk.
    pub(crate) fn heads(&self) -> u32 {
        if self.adapter_type == "ide" { 16 } else { 255 }
    }
}

fn parse_cid(text: &str) -> Result<u32> {
    let is_plain = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let cid = u32::from_str_radix(text, 16).ok().filter(|cid| is_plain && *cid != NO_PARENT);
    cid.map_or_else(|| refuse("cid", format!("invalid parameter value: {text}")), Ok)
}

fn is_on(raw: &RawOptions, name: &'static str) -> Result<bool> {
    match raw.value(name) {
        Some("on") => Ok(true),
        Some("off") | None => Ok(false),
        Some(_) => refuse(name, format!("Parameter '{name}' expects 'on' or 'off'")),
    }
}

/// Refuses what would end a value of the descriptor before its time.
pub(crate) fn check_text(option: &'static str, value: &str) -> Result<()> {
    if value.chars().any(|letter| letter == '"' || letter.is_control()) {
        return refuse(option, format!("'{}' cannot be in a descriptor", value.escape_default()));
    }
    Ok(())
}

pub(crate) fn refuse<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_qemu_img() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("adapter_type", "foo")], "invalid parameter value: foo"),
            (&[("subformat", "foo")], "invalid parameter value: foo"),
            (
                &[("compat6", "on"), ("hwversion", "7")],
                "compat6 cannot be enabled with hwversion set",
            ),
            (
                &[("subformat", "monolithicFlat"), ("zeroed_grain", "on")],
                "Flat image can't enable zeroed grain",
            ),
            (
                &[("subformat", "twoGbMaxExtentFlat"), ("backing_file", "a")],
                "Flat image can't have backing file",
            ),
            (
                &[("adapter_type", "foo"), ("backing_file", "a"), ("backing_fmt", "raw")],
                PARENT_OF_OTHER_FORMAT,
            ),
            (&[("toolsversion", "1\"\n")], "'1\\\"\\n' cannot be in a descriptor"),
            (&[("cid", "123")], "invalid parameter value: 123"),
            (&[("cid", "ffffffff")], "invalid parameter value: ffffffff"),
            (&[("bla", "x")], "unsupported vmdk feature: creation option 'bla'"),
        ];
        for (options, expected) in cases {
            let mut raw = RawOptions::new();
            for (name, value) in *options {
                raw.set(*name, *value);
            }
            let error = CreateOptions::parse(&raw).unwrap_err();
            assert_eq!(error.to_string(), *expected);
        }
    }

    #[test]
    fn options_add_up() {
        let raw = RawOptions::new()
            .with("compat6", "on")
            .with("hwversion", "undefined")
            .with("adapter_type", "lsilogic")
            .with("cid", "0000000a");
        let parsed = CreateOptions::parse(&raw).unwrap();
        assert_eq!((parsed.hardware_version.as_str(), parsed.heads()), ("6", 255));
        assert_eq!(parsed.cid, Some(10));
        assert_eq!(parsed.tools_version, "2147483647");
    }
}
