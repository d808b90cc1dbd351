//! Backing chains: opening one image after the other, each by what the one above says of it.

use crate::error::{Action, FileError};
use crate::given::{Given, GivenBacking};
use crate::guarded_raw::GuardedRaw;
use crate::open::{Layer, OpenedImage, Opener};
use crate::policy::{Grant, Policy, local_path};
use crate::probe::{Probed, probe};
use crate::registry::backing_driver;
use rimg_core::{
    BlockImage, Dependency, DependencyGate, DependencyRole, Error, Finding, Match, OpenOptions,
    RawOptions, Result, Storage, op,
};
use rimg_storage::{FileStorage, Locking};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Where the bytes of an image come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    File(PathBuf),
    Storage(Arc<dyn Storage>),
    /// A local file, and what stands before it.
    Wrapped(PathBuf, Arc<dyn Storage>),
}

/// An image that is being opened, and those above it that are waiting for it.
#[derive(Debug)]
pub(crate) struct Link<'a> {
    above: Option<&'a Link<'a>>,
    source: Source,
    /// Device and inode of a local file.
    identity: Option<(u64, u64)>,
    /// 1 for the top.
    depth: u32,
}

impl<'a> Link<'a> {
    pub(crate) fn top(source: Source) -> Result<Self> {
        let identity = identity(&source)?;
        Ok(Self { above: None, source, identity, depth: 1 })
    }

    fn below(&'a self, source: Source) -> Result<Self> {
        let identity = identity(&source)?;
        Ok(Self { above: Some(self), source, identity, depth: self.depth.saturating_add(1) })
    }

    fn path(&self) -> Option<&Path> {
        match &self.source {
            Source::File(path) | Source::Wrapped(path, _) => Some(path),
            Source::Storage(_) => None,
        }
    }

    /// Whether an image above is in the same bytes.
    fn is_loop(&self) -> bool {
        std::iter::successors(self.above, |link| link.above).any(|link| {
            match (&link.source, &self.source) {
                (Source::Storage(one), Source::Storage(other)) => Arc::ptr_eq(one, other),
                _ => link.identity.is_some() && link.identity == self.identity,
            }
        })
    }
}

/// Tells files apart, whatever they are called.
fn identity(source: &Source) -> Result<Option<(u64, u64)>> {
    match source {
        Source::Storage(_) => Ok(None),
        Source::File(path) | Source::Wrapped(path, _) => {
            let found = fs::metadata(path).map_err(Error::io(op::OPEN, 0))?;
            Ok(Some((found.dev(), found.ino())))
        }
    }
}

/// Opens one image, and through its gate those below it. Pushes a [`Layer`] for each.
pub(crate) fn open_layer(
    opener: &Opener,
    link: &Link<'_>,
    format: Option<&str>,
    writable: bool,
    options: &RawOptions,
    layers: &Mutex<Vec<Layer>>,
) -> Result<Box<dyn BlockImage>> {
    let Given { backing: below, data_file, own } = Given::of(options)?;
    let find = |file: &dyn Storage| match format {
        Some(name) => Ok(Probed { driver: known(opener, name)?, certainty: Match::Sure }),
        None => {
            let name = link.path().map(Path::to_string_lossy);
            probe(opener.formats, file, name.as_deref())
        }
    };
    let (file, Probed { driver, certainty }) = match &link.source {
        Source::Storage(file) | Source::Wrapped(_, file) => {
            (Arc::clone(file), find(file.as_ref())?)
        }
        Source::File(path) => open_probed(opener, path, writable, find)?,
    };
    let guarded = writable && certainty == Match::Fallback;
    let mut all = layers.lock().unwrap_or_else(PoisonError::into_inner);
    let index = all.len();
    all.push(Layer {
        path: link.path().map(Path::to_owned),
        format: driver.format(),
        probed: format.is_none(),
        guarded,
        backing: None,
        files: Vec::new(),
        repaired: Vec::new(),
    });
    drop(all);

    let gate = ChainGate { opener, link, layers, index, below: &below, data_file };
    let image = driver.open(
        file,
        &OpenOptions {
            writable,
            inspect_only: opener.inspect_only,
            limits: opener.limits,
            gate: &gate,
            options: &own,
        },
    )?;
    if let Some(name) = below.first().filter(|_| opener.backing && image.backing().is_none()) {
        // Rather than an image that reads otherwise than it was meant to.
        return Err(Error::unknown_open_option(driver.format().name, &name));
    }
    Ok(if guarded { Box::new(GuardedRaw::new(image, opener.formats)) } else { image })
}

fn known(opener: &Opener, name: &str) -> Result<&'static dyn rimg_core::FormatDriver> {
    backing_driver(opener.formats, name).ok_or_else(|| Error::InvalidOption {
        option: "format",
        reason: format!("Unknown driver '{name}'"),
    })
}

/// Opens a file and finds what format it is of, which decides how it is locked.
fn open_probed(
    opener: &Opener,
    path: &Path,
    writable: bool,
    find: impl FnOnce(&dyn Storage) -> Result<Probed>,
) -> Result<(Arc<dyn Storage>, Probed)> {
    let open = |locking| {
        let options = opener.file_options(writable).locking(locking);
        FileStorage::open(path, options).map_err(Error::io(op::OPEN, 0))
    };
    if writable || !opener.shares_raw || opener.locking != Locking::Exclusive {
        let file = open(opener.locking)?;
        let probed = find(&file)?;
        return Ok((Arc::new(file), probed));
    }
    let file = open(Locking::Shared)?;
    let probed = find(&file)?;
    if probed.driver.format().name != "raw" {
        file.relock(Locking::Exclusive).map_err(Error::io(op::OPEN, 0))?;
    }
    Ok((Arc::new(file), probed))
}

fn open_file(opener: &Opener, path: &Path, writable: bool) -> Result<Arc<dyn Storage>> {
    let file = FileStorage::open(path, opener.file_options(writable));
    Ok(Arc::new(file.map_err(Error::io(op::OPEN, 0))?))
}

/// Opens the files that one image names.
struct ChainGate<'a> {
    opener: &'a Opener,
    link: &'a Link<'a>,
    layers: &'a Mutex<Vec<Layer>>,
    /// The image's place among the layers.
    index: usize,
    /// What the caller said of the image below.
    below: &'a GivenBacking,
    /// The data file that the caller gave.
    data_file: Option<PathBuf>,
}

impl DependencyGate for ChainGate<'_> {
    fn is_given(&self, role: DependencyRole) -> bool {
        match role {
            DependencyRole::Backing => self.below.path.is_some(),
            DependencyRole::DataFile => self.data_file.is_some(),
            _ => false,
        }
    }

    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        match self.decide(wanted)? {
            Source::Storage(file) | Source::Wrapped(_, file) => Ok(file),
            Source::File(path) => {
                let file = open_file(self.opener, &path, wanted.writable)
                    .map_err(|error| dependency(wanted, error))?;
                let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(layer) = layers.get_mut(self.index) {
                    layer.files.push((wanted.role, path));
                }
                Ok(file)
            }
        }
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = layers.get_mut(self.index).filter(|_| !wanted.name.is_empty()) {
            layer.backing = Some((wanted.name.to_owned(), wanted.format.map(ToOwned::to_owned)));
        }
        drop(layers);
        if !self.opener.backing {
            return Ok(None);
        }
        let source = self.decide(wanted)?;
        let image = self.open_below(wanted, source).map_err(|error| dependency(wanted, error))?;
        Ok(Some(image))
    }

    fn repairing(&self, finding: &Finding) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = layers.get_mut(self.index) {
            layer.repaired.push(finding.clone());
        }
    }
}

impl ChainGate<'_> {
    /// What the policy gives. Its refusals are passed on as they are: they name the file.
    fn decide(&self, wanted: &Dependency<'_>) -> Result<Source> {
        if let Some(path) = self.given(wanted)? {
            check_kind(&path).map_err(|error| dependency(wanted, error))?;
            return Ok(Source::File(path));
        }
        let policy: &dyn Policy = self.opener.policy.as_ref();
        let grant = policy.decide(wanted, self.link.path()).and_then(|grant| match grant {
            Grant::Storage(file) => Ok(Source::Storage(file)),
            Grant::File(path) => {
                check_kind(&path)?;
                Ok(Source::File(path))
            }
        });
        grant.map_err(|error| match error {
            Error::Denied(_) => error,
            other => dependency(wanted, other),
        })
    }

    /// What was named by who opens the image, and not by the image: no policy is asked.
    fn given(&self, wanted: &Dependency<'_>) -> Result<Option<PathBuf>> {
        match wanted.role {
            DependencyRole::Header => local_path(wanted.name).map(Some),
            DependencyRole::Backing => Ok(self.below.path.clone()),
            DependencyRole::DataFile => Ok(self.data_file.clone()),
            _ => Ok(None),
        }
    }

    fn open_below(&self, wanted: &Dependency<'_>, source: Source) -> Result<Arc<dyn BlockImage>> {
        let link = self.link.below(source)?;
        // Names that the caller gave come to an end, so they may lead to the same file again.
        if link.is_loop() && !self.is_given(wanted.role) {
            return Err(infinite_loop(&link, wanted));
        }
        check_depth(self.opener, link.depth)?;
        let wanted_here = self.opener.writable_depth == Some(link.depth.saturating_sub(1));
        let writable = wanted.writable || wanted_here;
        let GivenBacking { format, options, .. } = self.below;
        let format = format.as_deref().or(wanted.format);
        let open = || open_layer(self.opener, &link, format, writable, options, self.layers);
        let image = if link.depth.is_multiple_of(LEVELS_PER_STACK) {
            on_another_stack(open)?
        } else {
            open()?
        };
        Ok(Arc::from(image))
    }
}

/// How many images are opened, one inside the other, on the stack of one thread: the length of a
/// chain is its maker's choice, the size of the stack is not.
const LEVELS_PER_STACK: u32 = 16;

fn on_another_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("rimg-open".to_owned())
            .spawn_scoped(scope, work)
            .map_err(Error::io("start a thread", 0))?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn dependency(wanted: &Dependency<'_>, source: Error) -> Error {
    Error::Dependency { role: wanted.role, name: wanted.name.to_owned(), source: Box::new(source) }
}

fn infinite_loop(link: &Link<'_>, wanted: &Dependency<'_>) -> Error {
    let name =
        link.path().map_or_else(|| wanted.name.to_owned(), |path| path.display().to_string());
    Error::Denied(format!("Backing file '{name}' creates an infinite loop."))
}

fn check_depth(opener: &Opener, depth: u32) -> Result<()> {
    let limit = opener.limits.chain_depth;
    if depth <= limit {
        return Ok(());
    }
    Err(Error::Limit { what: "backing chain", needed: depth.into(), limit: limit.into() })
}

/// Pipes and terminals can deliver without end; an image has no business naming them.
fn check_kind(path: &Path) -> Result<()> {
    let kind = fs::metadata(path).map_err(Error::io(op::OPEN, 0))?.file_type();
    if kind.is_file() || kind.is_block_device() || kind.is_dir() {
        // Opening a directory tells best that it is one.
        return Ok(());
    }
    Err(Error::Denied(format!("'{}' is neither a regular file nor a block device", path.display())))
}

impl Opener {
    /// Opens the images of a backing chain one by one, each without what is below it: enough to
    /// show what they say of themselves, even if a lower one cannot be opened for reading.
    ///
    /// # Errors
    /// As for [`open`](Self::open), for the first image that does not open; its path tells which.
    pub fn open_each(&self, path: impl AsRef<Path>) -> Result<Vec<OpenedImage>, FileError> {
        let mut alone = self.clone().backing(false);
        let mut seen: Vec<(u64, u64)> = Vec::new();
        let mut images: Vec<OpenedImage> = Vec::new();
        let mut next = Some(path.as_ref().to_owned());
        while let Some(path) = next.take() {
            let failed = |error| FileError::new(Action::Open, &path)(error);
            let source = Source::File(path.clone());
            if let Some(identity) = identity(&source).map_err(failed)? {
                if seen.contains(&identity) {
                    let message =
                        format!("Backing file '{}' creates an infinite loop.", path.display());
                    return Err(failed(Error::Denied(message)));
                }
                seen.push(identity);
            }
            let depth = u32::try_from(seen.len()).unwrap_or(u32::MAX);
            check_depth(self, depth).map_err(failed)?;
            let image = alone.open(&path)?;
            let below = image.layers().first().and_then(|layer| layer.backing.clone());
            images.push(image);
            if let Some((name, format)) = below {
                let wanted = Dependency {
                    role: DependencyRole::Backing,
                    name: &name,
                    format: format.as_deref(),
                    writable: false,
                };
                let policy: &dyn Policy = self.policy.as_ref();
                match policy.decide(&wanted, Some(&path)).map_err(failed)? {
                    Grant::File(path) => {
                        check_kind(&path).map_err(FileError::new(Action::Open, &path))?;
                        next = Some(path);
                    }
                    Grant::Storage(_) => {
                        let reason = io::Error::from(io::ErrorKind::Unsupported);
                        return Err(failed(Error::io("open a storage one by one", 0)(reason)));
                    }
                }
                alone.format = format;
                alone.options = Given::of(&alone.options).map_err(failed)?.backing.options;
                alone.writable = false;
            }
        }
        Ok(images)
    }
}
