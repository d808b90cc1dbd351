//! What stands where an image is to be named.

use crate::images::{How, format};
use crate::json::{ReadError, read_options};
use crate::message::Stop;
use crate::options::{OptionList, parse_bool};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The name of an image, as the user or another image gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName {
    /// Where the file is.
    path: PathBuf,
    /// The file's name as it is shown in reports.
    shown: String,
    /// All that was given, as it is shown in messages.
    given: String,
}

impl ImageName {
    /// Reads what the user gave: a path, `file:` and a path, `json:` and an object, or with
    /// `image_opts` a list of options. The last two may say the format, which goes to `how`.
    pub(crate) fn parse(name: &OsStr, image_opts: bool, how: &mut How) -> Result<Self, Stop> {
        let given = name.to_string_lossy();
        let refused = |reason: String| Stop::failed(format!("Could not open '{given}': {reason}"));
        if image_opts {
            if how.format.is_some() {
                return Err(Stop::failed("--image-opts and --format are mutually exclusive"));
            }
            return Self::from_list(&given, how).map_err(refused);
        }
        match given.strip_prefix("json:") {
            Some(object) => Self::from_json(&given, object, how).map_err(refused),
            None => Self::of_file(name).map_err(refused),
        }
    }

    /// Reads a name as an image may give it: never options.
    ///
    /// # Errors
    /// Why it is no name of a file.
    pub(crate) fn of_file(name: &OsStr) -> Result<Self, String> {
        let shown = name.to_string_lossy();
        if name.is_empty() {
            return Err("The 'file' block driver requires a file name".to_owned());
        }
        let given = shown.to_string();
        if let Some(path) = shown.strip_prefix("file:") {
            return Ok(Self { path: path.into(), shown: path.to_owned(), given });
        }
        match protocol_of(&shown) {
            Some(protocol) => Err(format!("Unknown protocol '{protocol}'")),
            None => Ok(Self { path: name.into(), shown: given.clone(), given }),
        }
    }

    /// Reads `driver=qcow2,file.filename=a.img` and its like.
    fn from_list(given: &str, how: &mut How) -> Result<Self, String> {
        if !given.is_empty() && !given.contains(['=', ',']) {
            return Err(format!("Cannot find device='{given}' nor node-name='{given}'"));
        }
        let mut list = OptionList::default();
        if !given.is_empty() {
            list.add(given)?;
        }
        Self::from_options(given, list.iter(), how)
    }

    /// Reads `{"driver":"qcow2","file":{"filename":"a.img"}}` and its like.
    fn from_json(given: &str, object: &str, how: &mut How) -> Result<Self, String> {
        let options = read_options(object)
            .map_err(|ReadError(reason)| format!("Could not parse the JSON options: {reason}"))?;
        let options = options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Self::from_options(given, options, how)
    }

    fn from_options<'o>(
        given: &str,
        options: impl Iterator<Item = (&'o str, &'o str)>,
        how: &mut How,
    ) -> Result<Self, String> {
        let (mut driver, mut path, mut unknown) = (None, None, None);
        for (name, value) in options {
            match (name, value) {
                ("driver", _) => driver = Some(value.to_owned()),
                ("file.filename", _) => path = Some(value.to_owned()),
                ("force-share", _) => how.force_share |= parse_bool(value) == Some(true),
                ("file.driver", "file" | "host_device") | ("read-only", "on") => {}
                _ if name.starts_with("file.") => unknown = Some(name.to_owned()),
                // The format knows which it has.
                _ => how.options.set(name, value),
            }
        }
        if let Some(driver) = driver.as_ref().filter(|driver| format(driver).is_none()) {
            return Err(format!("Unknown driver '{driver}'"));
        }
        let Some(path) = path else {
            return Err(match driver {
                Some(_) => "A block device must be specified for \"file\"".to_owned(),
                None => "Must specify either driver or file".to_owned(),
            });
        };
        if let Some(unknown) = unknown {
            let driver = driver.as_deref().unwrap_or("raw");
            return Err(format!("Block format '{driver}' does not support the option '{unknown}'"));
        }
        if how.format.is_none() {
            how.format = driver;
        }
        Ok(Self { path: path.clone().into(), shown: path, given: given.to_owned() })
    }

    /// The file's name as it is shown in reports.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// All that was given, as it is shown in messages.
    pub(crate) fn given(&self) -> &str {
        &self.given
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The protocol that a name starts with, as `nbd` in `nbd:localhost:10809`.
pub(crate) fn protocol_of(name: &str) -> Option<&str> {
    let end = name.find([':', '/'])?;
    let (protocol, rest) = name.split_at_checked(end)?;
    rest.starts_with(':').then_some(protocol)
}

/// Where a file that the image `base` names is to be found.
pub(crate) fn combine(base: &str, name: &str) -> String {
    if name.starts_with('/') || protocol_of(name).is_some() {
        return name.to_owned();
    }
    match base.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(given: &str, image_opts: bool) -> Result<(ImageName, How), String> {
        let mut how = How::default();
        match ImageName::parse(given.as_ref(), image_opts, &mut how) {
            Ok(name) => Ok((name, how)),
            Err(Stop::Failed { message, .. }) => Err(message),
            Err(stop) => panic!("{stop:?}"),
        }
    }

    #[test]
    fn protocols_end_before_the_first_slash() {
        assert_eq!(protocol_of("nbd:localhost:1"), Some("nbd"));
        assert_eq!(protocol_of("http://x"), Some("http"));
        assert_eq!(protocol_of("./a:b"), None);
        assert_eq!(protocol_of("plain"), None);
    }

    #[test]
    fn names_in_images_are_relative_to_them() {
        assert_eq!(combine("d/top", "../base"), "d/../base");
        assert_eq!(combine("top", "base"), "base");
        assert_eq!(combine("/top", "base"), "/base");
        assert_eq!(combine("d/top", "/base"), "/base");
        assert_eq!(combine("d/top", "nbd:x"), "nbd:x");
    }

    #[test]
    fn options_say_format_and_file() {
        let list = "driver=qcow2,file.driver=file,file.filename=a,,b";
        let object = r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"a,b"}}"#;
        for (given, image_opts) in [(list, true), (object, false)] {
            let (name, how) = name(given, image_opts).unwrap();
            assert_eq!((name.shown(), name.given()), ("a,b", given));
            assert_eq!(how.format.as_deref(), Some("qcow2"));
        }
        assert!(name("file.filename=a,force-share=on", true).unwrap().1.force_share);
    }

    #[test]
    fn options_that_mean_nothing_here_are_refused() {
        for (given, reason) in [
            ("a.img", "Cannot find device='a.img' nor node-name='a.img'"),
            ("", "Must specify either driver or file"),
            ("driver=raw", "A block device must be specified for \"file\""),
            ("driver=nbd,file.filename=a", "Unknown driver 'nbd'"),
            (
                "driver=raw,file.filename=a,file.x=y",
                "Block format 'raw' does not support the option 'file.x'",
            ),
        ] {
            let message = format!("Could not open '{given}': {reason}");
            assert_eq!(name(given, true).map(drop), Err(message));
        }
    }

    #[test]
    fn images_cannot_name_options() {
        for given in ["json:{\"file.filename\":\"a\"}", "nbd:x"] {
            assert!(ImageName::of_file(given.as_ref()).is_err(), "{given}");
        }
    }
}
