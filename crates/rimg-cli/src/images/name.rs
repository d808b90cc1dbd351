//! What stands where an image is to be named.

use crate::images::node::{Node, NodeOptions, PROTOCOLS};
use crate::images::open::SHARED_FOR_WRITING;
use crate::images::protocol::{driver_of, node_of, of_driver, protocol_of};
use crate::images::shown::{image_name, node_name};
use crate::images::{How, format};
use crate::json::{ReadError, Scalar, read_scalars};
use crate::message::Stop;
use crate::options::OptionList;
use std::ffi::OsStr;
use std::path::Path;

/// The name of an image, as the user or another image gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName {
    /// What the image lies in.
    node: Node,
    /// Whether that is all: its bytes are the image, without a format.
    is_bare: bool,
    /// What the format was told, as it was said.
    said: NodeOptions,
    /// All that was given, as it is shown in messages.
    given: String,
}

impl ImageName {
    /// Reads what the user gave: a path, a protocol and what it takes, `json:` and an object, or
    /// with `image_opts` a list of options. The last two may say the format, which goes to `how`.
    pub(crate) fn parse(name: &OsStr, image_opts: bool, how: &mut How) -> Result<Self, Stop> {
        let given = name.to_string_lossy();
        let refused = |reason: String| Stop::failed(format!("Could not open '{given}': {reason}"));
        if image_opts {
            if how.format.is_some() {
                return Err(Stop::failed("--image-opts and --format are mutually exclusive"));
            }
            let shares = how.force_share;
            let parsed = Self::from_list(&given, how).map_err(refused)?;
            if shares && how.refuses_to_share {
                return Err(Stop::failed("--force-share/-U conflicts with image options"));
            }
            return Ok(parsed);
        }
        Self::of_user(name, how).map_err(refused)
    }

    /// Reads a name that the user gave, but no list of options.
    ///
    /// # Errors
    /// Why it is no name.
    pub(crate) fn of_user(name: &OsStr, how: &mut How) -> Result<Self, String> {
        let given = name.to_string_lossy();
        if let Some(object) = given.strip_prefix("json:") {
            return Self::from_json(&given, object, how);
        }
        let protocol = how
            .format
            .as_deref()
            .and_then(|format| PROTOCOLS.into_iter().find(|protocol| *protocol == format));
        let node = match protocol {
            Some(driver) => of_driver(driver, name)?,
            None => node_of(name)?,
        };
        if protocol.is_some() {
            how.format = None;
        }
        let (said, given) = (NodeOptions::default(), given.into_owned());
        Ok(Self { node, is_bare: protocol.is_some(), said, given })
    }

    /// Reads a name as an image may give it: a local file, never options or a server.
    ///
    /// # Errors
    /// Why it is no name of a file.
    pub(crate) fn of_file(name: &OsStr) -> Result<Self, String> {
        let given = name.to_string_lossy().into_owned();
        match protocol_of(&given) {
            Some(protocol) if protocol != "file" && driver_of(protocol).is_some() => {
                Err(format!("'{given}' is not opened: protocol '{protocol}' in an image"))
            }
            _ => {
                let node = node_of(name)?;
                Ok(Self { node, is_bare: false, said: NodeOptions::default(), given })
            }
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
        let mut options = NodeOptions::default();
        for (name, value) in list.iter() {
            options.set(name.to_owned(), Scalar::Text(value.to_owned()));
        }
        Self::from_options(given, options, how)
    }

    /// Reads `{"driver":"qcow2","file":{"filename":"a.img"}}` and its like.
    fn from_json(given: &str, object: &str, how: &mut How) -> Result<Self, String> {
        let scalars = read_scalars(object)
            .map_err(|ReadError(reason)| format!("Could not parse the JSON options: {reason}"))?;
        let mut options = NodeOptions::default();
        for (name, value) in scalars {
            options.set(name, value);
        }
        Self::from_options(given, options, how)
    }

    fn from_options(given: &str, mut options: NodeOptions, how: &mut How) -> Result<Self, String> {
        let mut common = options.take_common()?;
        how.refuses_to_share |= common.force_share == Some(false);
        if (common.force_share, common.read_only) == (Some(true), Some(false)) {
            return Err(SHARED_FOR_WRITING.to_owned());
        }
        let in_options = options.take("driver");
        let driver = how.format.take().or(in_options);
        let given = given.to_owned();
        if let Some(driver) = driver.as_deref().filter(|driver| PROTOCOLS.contains(driver)) {
            let node = Node::of_options(driver, options, &mut common)?;
            how.heed(common);
            return Ok(Self { node, is_bare: true, said: NodeOptions::default(), given });
        }
        if let Some(driver) = driver.as_ref().filter(|driver| format(driver).is_none()) {
            return Err(format!("Unknown driver '{driver}'"));
        }
        let is_file = |name: &str| name == "file" || name.starts_with("file.");
        if driver.is_none() && !options.iter().any(|(name, _)| is_file(name)) {
            return Err("Must specify either driver or file".to_owned());
        }
        let node = Node::of_child(&mut options, "file", &mut common)?;
        how.heed(common);
        if options.value("backing").is_some_and(str::is_empty) {
            // Nothing below: what an image below would show cannot be read then.
            options.take("backing");
            how.backing = false;
        }
        how.format = driver;
        // The format knows which of the others it has, but not of nodes that pass everything on.
        let mut told = options.clone();
        told.skip_filters("data-file");
        for (name, value) in super::open::raw_options(&told)?.iter() {
            how.options.set(name, value);
        }
        Ok(Self { node, is_bare: false, said: options, given })
    }

    /// What lies below nodes that pass on what they are asked, rules or not: QEMU looks through them
    /// to tell what lies where.
    ///
    /// # Errors
    /// Which option of the image below is none.
    pub(crate) fn below_filter(self, how: &mut How) -> Result<Self, String> {
        let debug = match self.node {
            Node::Debug(debug) if self.is_bare => *debug,
            node => return Ok(Self { node, ..self }),
        };
        let Node::Image(image) = debug.image else {
            return Self { node: debug.image, ..self }.below_filter(how);
        };
        how.format = Some(image.driver.to_owned());
        for (name, value) in super::open::raw_options(&image.said)?.iter() {
            how.options.set(name, value);
        }
        Ok(Self { node: image.file, is_bare: false, said: image.said, given: self.given })
    }

    /// The name of the image as it is shown in reports, once its format is known.
    pub(crate) fn shown_as(&self, format: &str) -> String {
        if self.is_bare { self.shown() } else { image_name(format, &self.said, &self.node) }
    }

    /// The name of what the image lies in.
    pub(crate) fn shown(&self) -> String {
        node_name(&self.node)
    }

    /// All that was given, as it is shown in messages.
    pub(crate) fn given(&self) -> &str {
        &self.given
    }

    /// What the image lies in.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// The driver of the node that it lies in, if that lies in no folder: in several, that is.
    pub(crate) fn node_without_folder(&self) -> Option<&'static str> {
        let mut node = &self.node;
        loop {
            node = match node {
                Node::Quorum(_) => return Some(node.driver()),
                Node::Debug(debug) => &debug.image,
                Node::Image(image) => &image.file,
                Node::File(_) | Node::Nbd(_) | Node::Null(_) => return None,
            };
        }
    }

    /// Whether the bytes that it lies in are the image, and no format is wanted.
    pub(crate) fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// Where its file is, if it is a local one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.node.path()
    }
}

/// Whether a name that an image gives counts from where the image is.
pub(crate) fn is_relative(name: &str) -> bool {
    !name.starts_with('/') && protocol_of(name).is_none()
}

/// Where a file that the image `base` names is to be found.
pub(crate) fn combine(base: &str, name: &str) -> String {
    if !is_relative(name) {
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
    fn names_in_images_are_relative_to_them() {
        assert_eq!(combine("d/top", "../base"), "d/../base");
        assert_eq!(combine("top", "base"), "base");
        assert_eq!(combine("/top", "base"), "/base");
        assert_eq!(combine("d/top", "/base"), "/base");
        assert_eq!(combine("d/top", "nbd:x"), "nbd:x");
    }

    #[test]
    fn a_name_that_was_a_path_still_looks_like_one() {
        for (given, shown) in [("file:a:b", "./a:b"), ("file:a", "a"), ("file:d/a:b", "d/a:b")] {
            assert_eq!(name(given, false).unwrap().0.shown(), shown);
        }
    }

    #[test]
    fn options_say_format_and_file() {
        let list = "driver=qcow2,file.driver=file,file.filename=a,,b";
        let object = r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"a,b"}}"#;
        for (given, image_opts) in [(list, true), (object, false)] {
            let (name, how) = name(given, image_opts).unwrap();
            assert_eq!((name.shown().as_str(), name.given()), ("a,b", given));
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
            ("driver=ssh,file.filename=a", "Unknown driver 'ssh'"),
            ("driver=nbd,file.filename=a", "NBD server address missing"),
            ("driver=raw,file=a", "Cannot find device='a' nor node-name='a'"),
            ("driver=raw,file.filename=", "The 'file' block driver requires a file name"),
            ("filename=a", "Must specify either driver or file"),
            (
                "driver=raw,file.filename=a,file.x=y",
                "Block protocol 'file' doesn't support the option 'x'",
            ),
        ] {
            let message = format!("Could not open '{given}': {reason}");
            assert_eq!(name(given, true).map(drop), Err(message));
        }
    }

    #[test]
    fn names_are_plain_where_that_says_all() {
        for (given, format, shown) in [
            ("driver=qcow2,lazy-refcounts=on,file.filename=a", "qcow2", "a"),
            ("driver=qcow2,file.driver=nbd,file.path=/s", "qcow2", "nbd+unix://?socket=/s"),
            ("driver=nbd,path=/s,export=e", "raw", "nbd+unix:///e?socket=/s"),
            ("driver=null-co,latency-ns=1", "raw", "null-co://"),
            (
                "driver=null-co,size=1k,read-zeroes=off",
                "raw",
                r#"json:{"read-zeroes": "off", "driver": "null-co", "size": "1k"}"#,
            ),
            (
                r#"json:{"driver":"raw","offset":512,"file":{"driver":"nbd","host":"h"}}"#,
                "raw",
                r#"json:{"offset": 512, "driver": "raw", "file": {"host": "h", "driver": "nbd"}}"#,
            ),
            (
                "driver=raw,file.driver=qcow2,file.file.filename=a",
                "raw",
                r#"json:{"driver": "raw", "file": {"driver": "qcow2", "file": {"driver": "file", "filename": "a"}}}"#,
            ),
            (
                "driver=luks,key-secret=s,header.filename=h,file.filename=a",
                "luks",
                r#"json:{"header": {"driver": "file", "filename": "h"}, "driver": "luks", "file": {"driver": "file", "filename": "a"}, "key-secret": "s"}"#,
            ),
            ("driver=qcow2,file.driver=blkdebug,file.image.filename=a", "qcow2", "blkdebug::a"),
            (
                "driver=blkdebug,image.filename=a,inject-error.0.event=none,inject-error.0.once=on",
                "raw",
                r#"json:{"inject-error.0.once": "on", "image": {"driver": "file", "filename": "a"}, "driver": "blkdebug", "inject-error.0.event": "none"}"#,
            ),
        ] {
            let (name, _) = name(given, !given.starts_with("json:")).unwrap();
            assert_eq!(name.shown_as(format), shown);
        }
    }

    #[test]
    fn images_cannot_name_options() {
        for given in ["json:{\"file.filename\":\"a\"}", "nbd:x"] {
            assert!(ImageName::of_file(given.as_ref()).is_err(), "{given}");
        }
    }
}
