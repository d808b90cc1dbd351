//! What stands where an image is to be named.

use crate::images::How;
use crate::message::Stop;
use crate::options::OptionList;
use std::ffi::OsStr;
use std::path::PathBuf;

/// The name of an image, as the user or another image gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName {
    /// Where the file is.
    path: PathBuf,
    /// As it is shown in messages and reports.
    shown: String,
}

impl ImageName {
    /// Reads a name: a path, `file:` and a path, or with `image_opts` a list of options. The list
    /// may say the format, which goes to `how`.
    pub(crate) fn parse(name: &OsStr, image_opts: bool, how: &mut How) -> Result<Self, Stop> {
        if image_opts {
            if how.format.is_some() {
                return Err(Stop::failed("--image-opts and --format are mutually exclusive"));
            }
            return Self::from_options(&name.to_string_lossy(), how);
        }
        Self::of_file(name).map_err(|reason| {
            Stop::failed(format!("Could not open '{}': {reason}", name.to_string_lossy()))
        })
    }

    /// Reads a name that is no list of options.
    ///
    /// # Errors
    /// Why it is no name of a file.
    pub(super) fn of_file(name: &OsStr) -> Result<Self, String> {
        let shown = name.to_string_lossy();
        if name.is_empty() {
            return Err("The 'file' block driver requires a file name".to_owned());
        }
        if let Some(path) = shown.strip_prefix("file:") {
            return Ok(Self { path: path.into(), shown: path.to_owned() });
        }
        match protocol_of(&shown) {
            Some("json") => Err("json: names are not supported yet; use --image-opts".to_owned()),
            Some(protocol) => Err(format!("Unknown protocol '{protocol}'")),
            None => Ok(Self { path: name.into(), shown: shown.into_owned() }),
        }
    }

    /// Reads `driver=qcow2,file.filename=a.img` and its like.
    fn from_options(list: &str, how: &mut How) -> Result<Self, Stop> {
        let refuse =
            |reason: String| Err(Stop::failed(format!("Could not open '{list}': {reason}")));
        let mut options = OptionList::default();
        options.add(list).map_err(Stop::failed)?;
        let (mut driver, mut path) = (None, None);
        for (name, value) in options.iter() {
            match (name, value) {
                ("driver", _) => driver = Some(value.to_owned()),
                ("file.filename" | "filename", _) => path = Some(value.to_owned()),
                ("file.driver", "file" | "host_device") | ("read-only", "on") => {}
                (name, "on") if list == name => {}
                _ => return refuse(format!("option '{name}={value}' is not supported")),
            }
        }
        let Some(path) = path else {
            return refuse(format!("Cannot find device='{list}' nor node-name='{list}'"));
        };
        how.format = driver;
        Ok(Self { path: path.clone().into(), shown: path })
    }

    /// As it is shown.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &std::path::Path {
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

    fn options(list: &str) -> Result<(ImageName, How), String> {
        let mut how = How::default();
        match ImageName::parse(list.as_ref(), true, &mut how) {
            Ok(name) => Ok((name, how)),
            Err(Stop::Failed { message, .. }) => Err(message),
            Err(_) => Err(String::new()),
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
        let (name, how) = options("driver=qcow2,file.driver=file,file.filename=a,,b").unwrap();
        assert_eq!(name.shown(), "a,b");
        assert_eq!(how.format.as_deref(), Some("qcow2"));
        assert!(options("a.img").unwrap_err().contains("Cannot find device='a.img'"));
        assert!(options("driver=raw,file.driver=nbd").unwrap_err().contains("not supported"));
    }
}
