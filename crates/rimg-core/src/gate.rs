//! How a format reaches files other than the one it was given.

use crate::{BlockImage, Error, Finding, ImageInfo, Limits, RawOptions, Result, Storage};
use core::fmt::{self, Debug};
use std::sync::Arc;

/// Decides about, and opens, the files that an image names. The names come from the image and are
/// as trustworthy as the image is.
///
/// Formats call it; the facade and embedders implement it. A gate that always answers
/// [`Error::Denied`](crate::Error::Denied) is the safe choice.
pub trait DependencyGate: Sync {
    /// Opens a file that holds bytes of the image: an external data file, a VMDK extent.
    ///
    /// # Errors
    /// [`Error::Denied`](crate::Error::Denied) when policy forbids it; otherwise why it could not
    /// be opened.
    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>>;

    /// Opens the image below: a backing file, a parent. `None` when the caller asked not to.
    ///
    /// # Errors
    /// As for [`open_file`](Self::open_file).
    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>>;

    /// Whether the caller names the file with this role himself. It is then opened whatever the
    /// image says, and also for an image that says nothing, by an empty name.
    fn is_given(&self, _role: DependencyRole) -> bool {
        false
    }

    /// Is told what is wrong with an image that its last writer did not close, and what is done
    /// about it, while it is repaired to be written again.
    fn repairing(&self, _finding: &Finding) {}
}

/// A file that an image names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency<'a> {
    /// What it is to the image.
    pub role: DependencyRole,
    /// Its name, exactly as in the image: an opaque path, relative to the image's own.
    pub name: &'a str,
    /// Its format, where the image says so.
    pub format: Option<&'a str>,
    /// Whether it will be written.
    pub writable: bool,
}

/// What a file is to the image that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DependencyRole {
    /// The image below.
    Backing,
    /// Holds the guest data of a qcow2 image.
    DataFile,
    /// Holds part of the guest data.
    Extent,
    /// Holds the header of an image that has it apart. The caller named it, not the image.
    Header,
}

impl fmt::Display for DependencyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backing => "backing file",
            Self::DataFile => "data file",
            Self::Extent => "extent",
            Self::Header => "header",
        })
    }
}

/// How to open an image.
#[derive(Clone, Copy)]
pub struct OpenOptions<'a> {
    /// Whether to open it for writing, too.
    pub writable: bool,
    /// Open it even where its state forbids reading guest data (unknown features, corruption):
    /// enough for `info` and `check`, nothing else is promised. With `writable`, enough for a
    /// check that repairs.
    pub inspect_only: bool,
    /// What it may cost.
    pub limits: Limits,
    /// How it reaches other files.
    pub gate: &'a dyn DependencyGate,
    /// What the format is to be told besides, such as `encrypt.key-secret`, and the secrets that
    /// this names. [`RawOptions::NONE`] when nothing.
    pub options: &'a RawOptions,
}

impl OpenOptions<'_> {
    /// Refuses every run-time option: for formats that have none.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] in the words of QEMU.
    pub fn refuse_options(&self, format: &'static str) -> Result<()> {
        match self.options.iter().next() {
            Some((name, _)) => Err(Error::unknown_open_option(format, name)),
            None => Ok(()),
        }
    }
}

impl Debug for OpenOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("writable", &self.writable)
            .field("inspect_only", &self.inspect_only)
            .field("limits", &self.limits)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The files that a new image is made of.
pub trait TargetFiles: Sync {
    /// The image's own file: writable and empty.
    fn main(&self) -> &Arc<dyn Storage>;

    /// A further file, writable and empty, by the name that the image will refer to it with
    /// (relative to its own).
    ///
    /// # Errors
    /// Why it could not be made.
    fn sibling(&self, name: &str) -> Result<Arc<dyn Storage>>;

    /// The name of the image's own file, without folders, where it has one: some formats name
    /// siblings after it.
    fn main_name(&self) -> Option<&str> {
        None
    }

    /// What the image below says of itself, where one is named and was opened: some formats note
    /// which version of it they were made over.
    fn backing_info(&self) -> Option<&ImageInfo> {
        None
    }
}
