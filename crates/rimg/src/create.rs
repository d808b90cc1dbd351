//! Creating images.

use crate::error::{Action, FileError};
use crate::open::Opener;
use crate::options::{invalid, normalise};
use crate::policy::{DenyAll, Policy, resolve_name};
use crate::probe::probe;
use crate::registry::{FORMATS, Formats, backing_driver, driver};
use crate::target::Target;
use core::fmt::{self, Debug};
use rimg_core::{
    DependencyRole, Error, FormatDriver, ImageInfo, Limits, RawOptions, Result, Secret, Storage,
};
use rimg_storage::{CacheMode, FileOptions, FileStorage};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BACKING_FILE: &str = "backing_file";
const BACKING_FORMAT: &str = "backing_fmt";

/// How to create an image in local files.
/// ```
/// use rimg::{Creator, Opener};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("disk.raw");
/// Creator::new("raw").size(1 << 20).option("preallocation", "falloc").create(&path)?;
/// assert_eq!(Opener::new().format("raw").open(&path)?.size_bytes(), 1 << 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A file that is there already is replaced, unless another program has locked it or the options
/// are wrong. When creation fails, no half-made image stays behind.
#[derive(Clone)]
pub struct Creator {
    formats: Formats,
    format: String,
    size_bytes: Option<u64>,
    options: RawOptions,
    open_backing: bool,
    known_backing: Option<ImageInfo>,
    limits: Limits,
    cache: CacheMode,
    policy: Arc<dyn Policy>,
}

impl Creator {
    /// An image of this format.
    #[must_use]
    pub fn new(format: impl Into<String>) -> Self {
        Self {
            formats: FORMATS,
            format: format.into(),
            size_bytes: None,
            options: RawOptions::new(),
            open_backing: true,
            known_backing: None,
            limits: Limits::default(),
            cache: CacheMode::default(),
            policy: Arc::new(DenyAll),
        }
    }

    /// The formats to choose from; [`FORMATS`] unless given.
    #[must_use]
    pub fn formats(mut self, formats: Formats) -> Self {
        self.formats = formats;
        self
    }

    /// The size of the disk in bytes; that of the backing image unless given.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Self {
        self.size_bytes = Some(bytes);
        self
    }

    /// One creation option of the format, as in `-o name=value`. The format's
    /// [`create_options`](rimg_core::FormatInfo::create_options) tell which there are; sizes may
    /// have suffixes.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.set(name, value);
        self
    }

    /// Several creation options, and their secrets.
    #[must_use]
    pub fn options(mut self, options: &RawOptions) -> Self {
        self.options.add(options);
        self
    }

    /// A passphrase that options may name `id`, as in `encrypt.key-secret=id`.
    #[must_use]
    pub fn secret(mut self, id: impl Into<String>, secret: Secret) -> Self {
        self.options.add_secret(id, secret);
        self
    }

    /// The image below, named as the new image will name it (relative to its own folder), and its
    /// format.
    #[must_use]
    pub fn backing(self, name: impl Into<String>, format: impl Into<String>) -> Self {
        self.option(BACKING_FILE, name).option(BACKING_FORMAT, format)
    }

    /// Whether to open the image below, to see that it is there and how large it is. Without it
    /// the size has to be given.
    #[must_use]
    pub fn open_backing(mut self, open: bool) -> Self {
        self.open_backing = open;
        self
    }

    /// What the image below said of itself when the caller opened it: it is then not opened again.
    #[must_use]
    pub fn known_backing(mut self, info: ImageInfo) -> Self {
        self.known_backing = Some(info);
        self.open_backing(false)
    }

    /// What opening the image below may cost.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How the operating system's cache is used for the new files.
    #[must_use]
    pub fn cache(mut self, cache: CacheMode) -> Self {
        self.cache = cache;
        self
    }

    /// Who decides about the files that the image below names in turn; the image below itself was
    /// named by the caller and is opened. [`DenyAll`] unless given.
    #[must_use]
    pub fn policy(mut self, policy: impl Policy + 'static) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// Creates the image and returns what was decided about it.
    ///
    /// # Errors
    /// [`FileError`] with [`Error::InvalidOption`] before anything is written;
    /// [`Error::Dependency`] when the image below cannot be opened; what the file system says.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<Plan, FileError> {
        let path = path.as_ref();
        let plan = self.plan(path)?;
        plan.carry_out(path)?;
        Ok(plan)
    }

    /// Checks everything that can be checked without writing, finds out the size, and says what
    /// [`Plan::carry_out`] will do. For programs that tell their user before they do it.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn plan(&self, path: impl AsRef<Path>) -> Result<Plan, FileError> {
        let path = path.as_ref();
        self.plan_for(path).map_err(FileError::new(Action::Create, path))
    }

    fn plan_for(&self, path: &Path) -> Result<Plan> {
        let driver = driver(self.formats, &self.format)
            .ok_or_else(|| invalid("format", format!("Unknown file format '{}'", self.format)))?;
        let format = driver.format();
        if !format.writable {
            return Err(invalid(
                "format",
                format!("Format driver '{}' does not support image creation", format.name),
            ));
        }
        if self.options.value(BACKING_FILE).is_some() && !format.backing {
            return Err(invalid(
                BACKING_FILE,
                format!("Backing file not supported for file format '{}'", format.name),
            ));
        }
        let options = normalise(format, &self.options)?;
        let size_bytes = self.given_size(&options)?;
        let backing = self.check_backing(path, &options)?;
        let size_bytes = size_bytes
            .or(backing.as_ref().map(|backing| backing.virtual_size_bytes))
            .ok_or_else(|| invalid("size", "Image creation needs a size parameter".to_owned()))?;
        Ok(Plan { driver, size_bytes, options, backing, cache: self.cache })
    }

    /// The size as given, as an argument or as an option.
    fn given_size(&self, options: &RawOptions) -> Result<Option<u64>> {
        let option = options.value("size").and_then(|size| size.parse().ok());
        match (self.size_bytes, option) {
            (Some(_), Some(_)) => {
                Err(invalid("size", "The image size must be specified only once".to_owned()))
            }
            (size, option) => Ok(size.or(option)),
        }
    }

    /// Checks what is said of the image below, and returns what it says of itself if it was opened.
    fn check_backing(&self, path: &Path, options: &RawOptions) -> Result<Option<ImageInfo>> {
        let format = options.value(BACKING_FORMAT);
        let Some(name) = options.value(BACKING_FILE) else {
            return match format {
                None => Ok(None),
                Some(_) => Err(invalid(
                    BACKING_FORMAT,
                    "Backing format cannot be used without backing file".to_owned(),
                )),
            };
        };
        if name.is_empty() {
            return Err(invalid(
                BACKING_FILE,
                "Expected backing file name, got empty string".to_owned(),
            ));
        }
        if Path::new(name) == path || is_same_file(path, name) {
            return Err(invalid(
                BACKING_FILE,
                "Error: Trying to create an image with the same filename as the backing file"
                    .to_owned(),
            ));
        }
        if let Some(format) = format
            && backing_driver(self.formats, format).is_none()
        {
            return Err(invalid(BACKING_FORMAT, format!("Unknown driver '{format}'")));
        }
        if !self.open_backing {
            let known = |_| Ok(self.known_backing.clone());
            return format.map_or_else(|| Err(no_backing_format(None)), known);
        }
        let dependency = |source| Error::Dependency {
            role: DependencyRole::Backing,
            name: name.to_owned(),
            source: Box::new(source),
        };
        let below = resolve_name(Some(path), name).map_err(dependency)?;
        let Some(format) = format else { return Err(no_backing_format(self.guess(&below))) };
        let mut opener = Opener::new().formats(self.formats).limits(self.limits).format(format);
        opener.policy = Arc::clone(&self.policy);
        // Its size is all that is wanted: that takes no key.
        opener = opener.inspect_only(true);
        let image = opener.open(below).map_err(|error| dependency(error.source))?;
        image.info().map(Some)
    }

    /// The format that the file looks like, to help the user.
    fn guess(&self, path: &Path) -> Option<&'static str> {
        let file = FileStorage::open(path, FileOptions::read()).ok()?;
        let name = path.to_string_lossy();
        Some(probe(self.formats, &file, Some(&name)).ok()?.driver.format().name)
    }
}

/// What is going to be created.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Plan {
    /// The driver that creates it.
    pub driver: &'static dyn FormatDriver,
    /// The size of the disk in bytes.
    pub size_bytes: u64,
    /// The options as given, sizes in plain bytes.
    pub options: RawOptions,
    /// What the image below says of itself, if it was opened.
    backing: Option<ImageInfo>,
    cache: CacheMode,
}

impl Plan {
    /// Creates the image and returns the files that it consists of, its own first. They are what
    /// has to go when the image is given up after all.
    ///
    /// # Errors
    /// As for [`Creator::create`].
    pub fn carry_out(&self, path: impl AsRef<Path>) -> Result<Vec<PathBuf>, FileError> {
        let path = path.as_ref();
        self.write(path).map_err(FileError::new(Action::Create, path))
    }

    /// Creates the image in a writable storage, whatever it holds. A storage that is zero where it
    /// was not written, as a file is, is emptied first. What is on others, as devices, stays there
    /// as far as the format does not write. What was begun cannot be taken back.
    ///
    /// # Errors
    /// As for [`Creator::create`]; an image that is made of several files cannot be made so.
    pub fn carry_out_in(&self, file: Arc<dyn Storage>) -> Result<(), FileError> {
        let options = FileOptions::write().cache(self.cache);
        // What it holds would be taken for zeroes afterwards.
        if let Some(writer) = file.writer().filter(|writer| writer.is_zero_where_unwritten()) {
            let emptied = writer.set_len_bytes(0).map_err(Error::io("empty the file", 0));
            emptied.map_err(FileError::new(Action::Create, ""))?;
        }
        let target = Target::in_storage(file, options, self.backing.clone());
        self.fill(&target).map(|_| ()).map_err(FileError::new(Action::Create, ""))
    }

    fn write(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let options = FileOptions::write().cache(self.cache);
        self.fill(&Target::new(path, options, self.backing.clone())?)
    }

    fn fill(&self, target: &Target) -> Result<Vec<PathBuf>> {
        let done = self
            .driver
            .create(target, self.size_bytes, &self.options)
            .and_then(|()| target.finish());
        match done {
            Ok(()) => Ok(target.paths()),
            Err(error) => {
                target.undo();
                Err(error)
            }
        }
    }
}

impl Debug for Creator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Creator")
            .field("format", &self.format)
            .field("size_bytes", &self.size_bytes)
            .field("options", &self.options)
            .field("open_backing", &self.open_backing)
            .field("limits", &self.limits)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

fn no_backing_format(guess: Option<&str>) -> Error {
    let mut reason = "Backing file specified without backing format".to_owned();
    if let Some(guess) = guess {
        reason.push_str(&format!("\nDetected format of {guess}."));
    }
    invalid(BACKING_FORMAT, reason)
}

/// Whether the image to be made would be its own backing file.
fn is_same_file(path: &Path, name: &str) -> bool {
    let canonical = |path: PathBuf| path.canonicalize().ok();
    match (canonical(path.to_owned()), resolve_name(Some(path), name).ok().and_then(canonical)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}
