//! Opening images.

use crate::chain::{self, Link, Source};
use crate::error::{Action, FileError};
use crate::policy::{DenyAll, Policy};
use crate::registry::{FORMATS, Formats};
use core::fmt::{self, Debug};
use core::ops::Deref;
use rimg_core::{
    BlockImage, DependencyRole, Finding, FormatInfo, Limits, RawOptions, Result, Secret, Storage,
};
use rimg_storage::{CacheMode, FileOptions, Locking};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How to open an image: read-only, its format found out, nothing else opened, unless told
/// otherwise.
/// ```
/// use rimg::{LocalFiles, Opener};
///
/// let opener = Opener::new().format("qcow2").writable(true).policy(LocalFiles);
/// assert!(opener.open("/nonexistent/disk.qcow2").is_err());
/// ```
#[derive(Clone)]
pub struct Opener {
    pub(crate) formats: Formats,
    pub(crate) format: Option<String>,
    pub(crate) writable: bool,
    pub(crate) writable_depth: Option<u32>,
    pub(crate) inspect_only: bool,
    pub(crate) backing: bool,
    pub(crate) limits: Limits,
    pub(crate) cache: CacheMode,
    pub(crate) locking: Locking,
    pub(crate) shares_raw: bool,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) options: RawOptions,
}

impl Default for Opener {
    fn default() -> Self {
        Self {
            formats: FORMATS,
            format: None,
            writable: false,
            writable_depth: None,
            inspect_only: false,
            backing: true,
            limits: Limits::default(),
            cache: CacheMode::default(),
            locking: Locking::default(),
            shares_raw: false,
            policy: Arc::new(DenyAll),
            options: RawOptions::new(),
        }
    }
}

impl Opener {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The format of the image. Without it the image is probed; a raw disk whose contents a
    /// guest decides about should never be.
    #[must_use]
    pub fn format(mut self, name: impl Into<String>) -> Self {
        self.format = Some(name.into());
        self
    }

    /// The formats to choose from; [`FORMATS`] unless given.
    #[must_use]
    pub fn formats(mut self, formats: Formats) -> Self {
        self.formats = formats;
        self
    }

    /// Whether the image will be written, too. What is below it never is, unless it asks to.
    #[must_use]
    pub fn writable(mut self, writable: bool) -> Self {
        self.writable = writable;
        self
    }

    /// Opens an image of the backing chain for writing as well: 1 is the image's own backing
    /// image. For changes that go into the image below, as when an overlay is committed.
    #[must_use]
    pub fn writable_depth(mut self, depth: u32) -> Self {
        self.writable_depth = Some(depth);
        self
    }

    /// Opens it even where its state forbids reading guest data: enough for
    /// [`info`](BlockImage::info) and a check.
    #[must_use]
    pub fn inspect_only(mut self, inspect_only: bool) -> Self {
        self.inspect_only = inspect_only;
        self
    }

    /// Whether to open what is below the image. Without it, reading what lies there is an error,
    /// and [`extent_at`](BlockImage::extent_at) shows it as
    /// [`ExtentKind::Backing`](rimg_core::ExtentKind::Backing).
    #[must_use]
    pub fn backing(mut self, backing: bool) -> Self {
        self.backing = backing;
        self
    }

    /// What the image may cost.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How the operating system's cache is used for local files.
    #[must_use]
    pub fn cache(mut self, cache: CacheMode) -> Self {
        self.cache = cache;
        self
    }

    /// What other processes may do with local files meanwhile.
    #[must_use]
    pub fn locking(mut self, locking: Locking) -> Self {
        self.locking = locking;
        self
    }

    /// Whether to open local files that another process, such as a running VM, is writing
    /// (`-U`). What is read may then be torn.
    #[must_use]
    pub fn force_share(self, share: bool) -> Self {
        self.locking(if share { Locking::Shared } else { Locking::Exclusive })
    }

    /// Whether to let another process, such as a running VM, write to what is read as a raw image,
    /// and stay locked otherwise. There is no metadata that could be torn, and QEMU does so; what
    /// is read may still be old in one place and new in another.
    #[must_use]
    pub fn shares_raw(mut self, share: bool) -> Self {
        self.shares_raw = share;
        self
    }

    /// Who decides about the files that the image names; [`DenyAll`] unless given.
    #[must_use]
    pub fn policy(mut self, policy: impl Policy + 'static) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// A run-time option of the format, such as `encrypt.key-secret`, which names a
    /// [`secret`](Self::secret). Those of the image below start with `backing.`, those of the one
    /// below that with `backing.backing.`, and so on.
    ///
    /// `backing.file.filename` (with `backing.driver`) and `data-file.filename` are opened in place
    /// of what the image names, or where it names nothing; no policy is asked.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.set(name, value);
        self
    }

    /// A passphrase that options may name `id`.
    /// ```
    /// use rimg::{Opener, Secret};
    ///
    /// let opener = Opener::new()
    ///     .format("qcow2")
    ///     .option("encrypt.key-secret", "disk")
    ///     .secret("disk", Secret::from("correct horse"));
    /// assert!(!format!("{opener:?}").contains("horse"));
    /// ```
    #[must_use]
    pub fn secret(mut self, id: impl Into<String>, secret: Secret) -> Self {
        self.options.add_secret(id, secret);
        self
    }

    /// Several options, and their secrets.
    #[must_use]
    pub fn options(mut self, options: &RawOptions) -> Self {
        self.options.add(options);
        self
    }

    /// Opens the image in a local file.
    ///
    /// # Errors
    /// [`FileError`] with what went wrong; an error of a file that the image names is an
    /// [`Error::Dependency`](rimg_core::Error::Dependency), or the policy's
    /// [`Error::Denied`](rimg_core::Error::Denied).
    pub fn open(&self, path: impl AsRef<Path>) -> Result<OpenedImage, FileError> {
        let path = path.as_ref();
        self.open_source(Source::File(path.to_owned())).map_err(FileError::new(Action::Open, path))
    }

    /// Opens the image in a storage. Relative names in it can only be resolved by a policy that
    /// knows better than a directory.
    ///
    /// # Errors
    /// As for [`open`](Self::open), without the path.
    pub fn open_storage(&self, file: Arc<dyn Storage>) -> Result<OpenedImage, FileError> {
        self.open_source(Source::Storage(file)).map_err(FileError::new(Action::Open, ""))
    }

    /// Opens the image in a storage that stands for the local file at `path`: for something between
    /// the image and its file. Relative names in the image start from the file's folder.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_storage_at(
        &self,
        file: Arc<dyn Storage>,
        path: impl AsRef<Path>,
    ) -> Result<OpenedImage, FileError> {
        let path = path.as_ref();
        let source = Source::Wrapped(path.to_owned(), file);
        self.open_source(source).map_err(FileError::new(Action::Open, path))
    }

    fn open_source(&self, source: Source) -> Result<OpenedImage> {
        let layers = Mutex::new(Vec::new());
        let link = Link::top(source)?;
        let image = chain::open_layer(
            self,
            &link,
            self.format.as_deref(),
            self.writable,
            &self.options,
            &layers,
        )?;
        let layers = layers.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(OpenedImage { image, layers })
    }

    /// How local files are opened.
    pub(crate) fn file_options(&self, writable: bool) -> FileOptions {
        let options = if writable { FileOptions::write() } else { FileOptions::read() };
        options.cache(self.cache).locking(self.locking)
    }
}

impl Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("format", &self.format)
            .field("writable", &self.writable)
            .field("writable_depth", &self.writable_depth)
            .field("inspect_only", &self.inspect_only)
            .field("backing", &self.backing)
            .field("limits", &self.limits)
            .field("cache", &self.cache)
            .field("locking", &self.locking)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// An open image and how it came about. It is used as the [`BlockImage`] that it derefs to.
#[derive(Debug)]
pub struct OpenedImage {
    image: Box<dyn BlockImage>,
    layers: Vec<Layer>,
}

/// One image of a backing chain.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Layer {
    /// Its local file: the caller's path, or the one that the policy gave.
    pub path: Option<PathBuf>,
    /// Its format.
    pub format: &'static FormatInfo,
    /// Whether the format was found by probing.
    pub probed: bool,
    /// Whether its own writes are watched, because it was guessed to be raw: what would make it
    /// look like another format is refused.
    pub guarded: bool,
    /// The name of the image below and its format, as this one gives them, whether it was opened
    /// or not.
    pub backing: Option<(String, Option<String>)>,
    /// Other local files that it consists of.
    pub files: Vec<(DependencyRole, PathBuf)>,
    /// What was wrong with it, and done about it, as its last writer had not closed it and it was
    /// to be written again.
    pub repaired: Vec<Finding>,
}

impl OpenedImage {
    /// The format of the image.
    #[must_use]
    pub fn format(&self) -> &'static FormatInfo {
        self.top().format
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.top().path.as_deref()
    }

    /// Whether the format was found by probing. A program that writes to an image of format raw
    /// that was probed should say so: its user may have meant something else.
    #[must_use]
    pub fn is_probed(&self) -> bool {
        self.top().probed
    }

    /// The images of the backing chain, the image itself first.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The image alone.
    #[must_use]
    pub fn into_image(self) -> Box<dyn BlockImage> {
        self.image
    }

    /// Writes back what is in memory, and reports what went wrong; dropping cannot.
    ///
    /// # Errors
    /// What the storage says.
    pub fn close(mut self) -> Result<(), FileError> {
        let path = self.layers.swap_remove(0).path.unwrap_or_default();
        self.image.close().map_err(FileError::new(Action::Close, path))
    }

    #[expect(clippy::indexing_slicing, reason = "opening pushes the image's own layer first")]
    fn top(&self) -> &Layer {
        &self.layers[0]
    }
}

impl Deref for OpenedImage {
    type Target = dyn BlockImage;

    fn deref(&self) -> &Self::Target {
        self.image.as_ref()
    }
}
