//! Options: of new volumes, of amending, of opening.

use crate::FORMAT;
use rimg_core::{Error, OptionKind, OptionSpec, Preallocation, RawOptions, Result};
use rimg_crypto::luks1::{OptionNames, WantedVolume};

/// What the options of LUKS are called here.
pub(crate) const NAMES: OptionNames = OptionNames::PLAIN;

const fn option(name: &'static str, kind: OptionKind, help: &'static str) -> OptionSpec {
    OptionSpec { name, kind, help, default: None }
}

/// Creation options, in the order in which qemu-img prints them.
pub(crate) const CREATE: &[OptionSpec] = &[
    option("size", OptionKind::Size, "Virtual disk size"),
    option("key-secret", OptionKind::Text, "ID of the secret that provides the keyslot passphrase"),
    option("cipher-alg", OptionKind::Text, "Name of encryption cipher algorithm"),
    option("cipher-mode", OptionKind::Text, "Name of encryption cipher mode"),
    option("ivgen-alg", OptionKind::Text, "Name of IV generator algorithm"),
    option("ivgen-hash-alg", OptionKind::Text, "Name of IV generator hash algorithm"),
    option("hash-alg", OptionKind::Text, "Name of encryption hash algorithm"),
    option("iter-time", OptionKind::Number, "Time to spend in PBKDF in milliseconds"),
    option("detached-header", OptionKind::Bool, "Create a detached LUKS header"),
    option(
        "preallocation",
        OptionKind::Text,
        "Preallocation mode (allowed values: off, falloc, full)",
    ),
];

/// What an image can be brought to, in the order of the help.
pub(crate) const AMEND: &[OptionSpec] = &[
    option("iter-time", OptionKind::Number, "Time to spend in PBKDF in milliseconds"),
    option("keyslot", OptionKind::Number, "Select a single keyslot to modify explicitly"),
    option(
        "new-secret",
        OptionKind::Text,
        "New secret to set in the matching keyslots. Empty string to erase",
    ),
    option("old-secret", OptionKind::Text, "Select all keyslots that match this password"),
    option("state", OptionKind::Text, "Select new state of affected keyslots (active/inactive)"),
];

/// A new volume as the options want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    pub(crate) volume: WantedVolume,
    /// The data will be in another file.
    pub(crate) detached_header: bool,
    pub(crate) preallocation: Preallocation,
}

impl CreateOptions {
    pub(crate) fn parse(raw: &RawOptions) -> Result<Self> {
        refuse_unknown(raw, CREATE)?;
        let preallocation = match raw.value("preallocation") {
            None => Preallocation::Off,
            Some(name) => Preallocation::from_name(name).ok_or_else(|| {
                invalid("preallocation", format!("invalid parameter value: {name}"))
            })?,
        };
        let detached_header = match raw.value("detached-header") {
            None | Some("off") => false,
            Some("on") => true,
            Some(_) => {
                let reason = "Parameter 'detached-header' expects 'on' or 'off'";
                return Err(invalid("detached-header", reason.to_owned()));
            }
        };
        Ok(Self { volume: NAMES.new_volume(raw)?, detached_header, preallocation })
    }
}

/// Refuses names that are not among `known`.
pub(crate) fn refuse_unknown(raw: &RawOptions, known: &[OptionSpec]) -> Result<()> {
    match raw.iter().find(|(name, _)| known.iter().all(|spec| spec.name != *name)) {
        Some((name, _)) => Err(invalid("options", format!("Invalid parameter '{name}'"))),
        None => Ok(()),
    }
}

/// The file that the header is in, if that is not the volume's own.
pub(crate) fn header_file(raw: &RawOptions) -> Result<Option<&str>> {
    for (name, value) in raw.iter() {
        match (name, value) {
            ("key-secret" | "header.filename", _) | ("header.driver", "file" | "host_device") => {}
            _ => return Err(Error::unknown_open_option(FORMAT, name)),
        }
    }
    Ok(raw.value("header.filename"))
}

pub(crate) fn invalid(option: &'static str, reason: String) -> Error {
    Error::InvalidOption { option, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_in_the_words_of_qemu_img() {
        for (name, value, expected) in [
            ("preallocation", "foo", "invalid parameter value: foo"),
            ("detached-header", "x", "Parameter 'detached-header' expects 'on' or 'off'"),
            ("cipher-alg", "foo", "Parameter 'cipher-alg' does not accept value 'foo'"),
            ("cipher-alg", "sm4", "Algorithm 'sm4' not supported"),
            ("iter-time", "x", "Parameter 'iter-time' expects a number"),
            ("foo", "x", "Invalid parameter 'foo'"),
            ("key-secret", "t", "No secret with id 't'"),
        ] {
            let raw = RawOptions::new()
                .with_secret("s", "abc".into())
                .with("key-secret", "s")
                .with(name, value);
            let error = CreateOptions::parse(&raw).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let error = CreateOptions::parse(RawOptions::NONE).unwrap_err();
        assert_eq!(error.to_string(), "Parameter 'key-secret' is required for cipher");
    }
}
