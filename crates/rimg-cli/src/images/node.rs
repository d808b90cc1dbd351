//! The nodes that an image is made of: what `file.driver=…` and its like describe.

use crate::images::blkdebug::DebugNode;
use crate::images::format;
use crate::images::nbd::NbdNode;
use crate::images::quorum::QuorumNode;
use crate::json::Scalar;
use crate::options::parse_bool;
use crate::size::parse_size;
use std::path::{Path, PathBuf};

/// What gives bytes to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A local file.
    File(FileNode),
    /// A disk that a server exports.
    Nbd(NbdNode),
    /// Nothing.
    Null(NullNode),
    /// Another node, and errors as they are wanted.
    Debug(Box<DebugNode>),
    /// Several that hold the same.
    Quorum(QuorumNode),
    /// An image within an image.
    Image(Box<ImageNode>),
}

/// A local file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileNode {
    /// `file`, or `host_device`.
    pub(crate) driver: &'static str,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Whether other programs are asked whether they use it.
    pub(crate) locks: bool,
}

/// What can be asked of every node.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Common {
    /// Whether others may be writing.
    pub(crate) force_share: Option<bool>,
    /// Whether nobody is to write here.
    pub(crate) read_only: Option<bool>,
    /// Whether the system's page cache is passed by.
    pub(crate) direct: Option<bool>,
    /// Whether flushes do nothing.
    pub(crate) no_flush: Option<bool>,
}

/// A disk that is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NullNode {
    /// `null-co` or `null-aio`.
    pub(crate) driver: &'static str,
    /// What was said of it: `size` and `read-zeroes`.
    pub(crate) said: NodeOptions,
    /// Its length in bytes.
    pub(crate) size_bytes: u64,
    /// Whether it says that it reads as zeroes.
    pub(crate) read_zeroes: bool,
}

/// An image within an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageNode {
    /// Its format.
    pub(crate) driver: &'static str,
    /// What the format is told.
    pub(crate) said: NodeOptions,
    /// What it lies in.
    pub(crate) file: Node,
}

/// Drivers that give bytes, and formats of none.
pub(crate) const PROTOCOLS: [&str; 8] =
    ["file", "host_device", "host_cdrom", "nbd", "null-co", "null-aio", "blkdebug", "quorum"];

/// Names and values that one node is told, those of nodes below it with their prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NodeOptions(Vec<(String, Scalar)>);

impl NodeOptions {
    /// Of a name given twice the last value counts.
    pub(crate) fn set(&mut self, name: String, value: Scalar) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.option())
    }

    /// The value of `name`, which is taken out.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.take_scalar(name).map(|value| value.option().to_owned())
    }

    /// As [`take`](Self::take), with its type.
    pub(crate) fn take_scalar(&mut self, name: &str) -> Option<Scalar> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(index).1)
    }

    /// What is for the node called `child`, which is taken out.
    pub(crate) fn take_child(&mut self, child: &str) -> Self {
        let strip = |name: &str| Some(name.strip_prefix(child)?.strip_prefix('.')?.to_owned());
        let (mut below, mut rest) = (Self::default(), Self::default());
        for (name, value) in std::mem::take(&mut self.0) {
            match strip(&name) {
                Some(name) => below.0.push((name, value)),
                None => rest.0.push((name, value)),
            }
        }
        *self = rest;
        below
    }

    /// Leaves out the nodes above the last one called `child` that pass everything on as it is.
    pub(crate) fn skip_filters(&mut self, child: &str) {
        let prefix = format!("{child}.");
        while self.value(&format!("{prefix}driver")) == Some("blkdebug") {
            let own = |name: &str| name.strip_prefix(&prefix).map(ToOwned::to_owned);
            let is_filter = |name: &str| name == "driver" || name.starts_with("image.");
            if self.iter().filter_map(|(name, _)| own(name)).any(|name| !is_filter(&name)) {
                return;
            }
            let mut below = self.take_child(child).take_child("image");
            for (name, value) in std::mem::take(&mut below.0) {
                self.set(format!("{prefix}{name}"), value);
            }
        }
    }

    /// Whether there is something for the node called `child`.
    pub(crate) fn has_child(&self, child: &str) -> bool {
        let is_of = |name: &str| name.strip_prefix(child).is_some_and(|rest| rest.starts_with('.'));
        self.0.iter().any(|(name, _)| is_of(name))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Scalar)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Takes out what every node knows.
    ///
    /// # Errors
    /// Which of them is not what it should be.
    pub(crate) fn take_common(&mut self) -> Result<Common, String> {
        // Nothing here depends on these.
        for name in ["node-name", "auto-read-only", "discard", "detect-zeroes"] {
            self.take_scalar(name);
        }
        let mut switch = |name| {
            let value = self.take(name).map(|value| parse_bool(&value));
            value.map(|on| on.ok_or_else(|| format!("Parameter '{name}' expects 'on' or 'off'")))
        };
        Ok(Common {
            force_share: switch("force-share").transpose()?,
            read_only: switch("read-only").transpose()?,
            direct: switch("cache.direct").transpose()?,
            no_flush: switch("cache.no-flush").transpose()?,
        })
    }

    /// Refuses what is left, in the name of `driver`.
    pub(crate) fn refuse_rest(&self, driver: &str) -> Result<(), String> {
        match self.0.first() {
            Some((name, _)) if PROTOCOLS.contains(&driver) => {
                Err(format!("Block protocol '{driver}' doesn't support the option '{name}'"))
            }
            Some((name, _)) => {
                Err(format!("Block format '{driver}' does not support the option '{name}'"))
            }
            None => Ok(()),
        }
    }
}

impl Common {
    /// Adds what is asked of another node: what holds for one file holds for all.
    fn add(&mut self, other: Self) {
        let either = |one, other| if other == Some(true) { other } else { one };
        self.force_share = either(self.force_share, other.force_share);
        self.read_only = either(self.read_only, other.read_only);
        self.direct = either(self.direct, other.direct);
        self.no_flush = either(self.no_flush, other.no_flush);
    }
}

impl Node {
    /// The node that options describe, which is called `child` where it is to be used. Adds
    /// what is asked of it, and of nodes below, to `common`.
    pub(crate) fn of_child(
        options: &mut NodeOptions,
        child: &str,
        common: &mut Common,
    ) -> Result<Self, String> {
        if let Some(node) = options.value(child) {
            return Err(format!("Cannot find device='{node}' nor node-name='{node}'"));
        }
        let mut own = options.take_child(child);
        if own.is_empty() {
            return Err(format!("A block device must be specified for \"{child}\""));
        }
        let driver = match (own.take("driver"), own.value("filename")) {
            (Some(driver), _) => driver,
            (None, Some(_)) => "file".to_owned(),
            (None, None) => return Err("Must specify either driver or file".to_owned()),
        };
        Self::of_options(&driver, own, common)
    }

    /// The node of the driver `driver` that is told `options`.
    pub(crate) fn of_options(
        driver: &str,
        mut options: NodeOptions,
        common: &mut Common,
    ) -> Result<Self, String> {
        common.add(options.take_common()?);
        if let Some(info) = format(driver) {
            let file = Self::of_child(&mut options, "file", common)?;
            let node = ImageNode { driver: info.name, said: options, file };
            return Ok(Self::Image(Box::new(node)));
        }
        match PROTOCOLS.into_iter().find(|known| *known == driver) {
            Some("nbd") => NbdNode::of_options(options).map(Self::Nbd),
            Some(driver @ ("null-co" | "null-aio")) => null(driver, options).map(Self::Null),
            Some("blkdebug") => {
                DebugNode::of_options(options, common).map(|node| Self::Debug(Box::new(node)))
            }
            Some("quorum") => QuorumNode::of_options(options, common).map(Self::Quorum),
            Some(driver) => file(driver, options).map(Self::File),
            None => Err(format!("Unknown driver '{driver}'")),
        }
    }

    /// The local file at `path`.
    pub(crate) fn of_path(path: impl Into<PathBuf>) -> Self {
        Self::File(FileNode { driver: "file", path: path.into(), locks: true })
    }

    /// A disk that is nowhere, by its driver's name.
    pub(crate) fn of_null(driver: &'static str) -> Self {
        Self::Null(NullNode {
            driver,
            said: NodeOptions::default(),
            size_bytes: NULL_BYTES,
            read_zeroes: false,
        })
    }

    /// Its driver's name.
    pub(crate) fn driver(&self) -> &'static str {
        match self {
            Self::File(node) => node.driver,
            Self::Nbd(_) => "nbd",
            Self::Null(node) => node.driver,
            Self::Debug(_) => "blkdebug",
            Self::Quorum(_) => "quorum",
            Self::Image(node) => node.driver,
        }
    }

    /// The local file that all its bytes are in, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(node) => Some(&node.path),
            Self::Nbd(_) | Self::Null(_) | Self::Quorum(_) => None,
            Self::Debug(node) => node.image.path(),
            Self::Image(node) => node.file.path(),
        }
    }
}

fn file(driver: &'static str, mut options: NodeOptions) -> Result<FileNode, String> {
    let path = options.take("filename").filter(|path| !path.is_empty());
    for accepted in ["aio", "aio-max-batch", "pr-manager", "drop-cache"] {
        options.take(accepted);
    }
    let locks = match options.take("locking").as_deref() {
        None | Some("auto" | "on") => true,
        Some("off") => false,
        Some(other) => return Err(format!("invalid parameter value: {other}")),
    };
    let Some(path) = path else {
        return Err(format!("The '{driver}' block driver requires a file name"));
    };
    options.refuse_rest(driver)?;
    Ok(FileNode { driver, path: path.into(), locks })
}

/// How large a disk is that is nowhere, unless somebody says, in bytes.
const NULL_BYTES: u64 = 1 << 30;

fn null(driver: &'static str, mut options: NodeOptions) -> Result<NullNode, String> {
    let mut said = NodeOptions::default();
    let mut keep = |name: &str| {
        let value = options.take_scalar(name)?;
        said.set(name.to_owned(), value.clone());
        Some(value.option().to_owned())
    };
    let (size, read_zeroes) = (keep("size"), keep("read-zeroes"));
    options.take("latency-ns");
    options.refuse_rest(driver)?;
    let size_bytes = match size {
        None => NULL_BYTES,
        Some(size) => option_size("size", &size)?,
    };
    let read_zeroes = match read_zeroes {
        None => false,
        Some(value) => parse_bool(&value)
            .ok_or_else(|| "Parameter 'read-zeroes' expects 'on' or 'off'".to_owned())?,
    };
    Ok(NullNode { driver, said, size_bytes, read_zeroes })
}

/// A number of bytes that the option `name` gives.
pub(crate) fn option_size(name: &str, value: &str) -> Result<u64, String> {
    parse_size(value).map_err(|error| crate::options::size_error(name, value, error))
}
