//! Opening images, with the words that users of qemu-img know for what goes wrong.

use crate::class::Class;
use crate::images::attach::{Attached, NodeHow, attach, check_device, driver_of_file, report_file};
use crate::images::format;
use crate::images::name::{ImageName, combine, is_relative};
use crate::images::node::{Common, Node, NodeOptions, option_size};
use crate::images::shown::node_name;
use crate::message::{Stop, describe, describe_io};
use crate::output::info::{ImageReport, NodeReport};
use rimg::{
    BlockImage, CacheMode, Dependency, DependencyRole, Error, FileError, Grant, ImageInfo, Layer,
    LocalFiles, LockConflict, MemoryStorage, OpenedImage, Opener, Policy as _, RawOptions, op,
};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

/// How an image is to be opened.
#[derive(Debug, Clone)]
pub(crate) struct How {
    /// Its format; found by itself when not given.
    pub(crate) format: Option<String>,
    /// Whether it will be written.
    pub(crate) writable: bool,
    /// Which of the images below will be written as well: 1 is the next one.
    pub(crate) writable_depth: Option<u32>,
    /// Whether others may be writing to it.
    pub(crate) force_share: bool,
    /// Whether options say that nobody else may.
    pub(crate) refuses_to_share: bool,
    /// Whether options say that it is not to be written.
    pub(crate) read_only: bool,
    /// Whether somebody may be writing to it where it is read as it is, without a format.
    pub(crate) shares_raw: bool,
    /// Whether the images below are opened, too.
    pub(crate) backing: bool,
    /// Whether a look at the image's own words is all that is wanted.
    pub(crate) inspect_only: bool,
    /// Whether it is opened for its metadata alone, whatever is wrong with it.
    pub(crate) metadata_only: bool,
    /// How the system's page cache is used, unless options say otherwise.
    pub(crate) cache: CacheMode,
    /// Whether options say that the page cache is passed by.
    pub(crate) direct: Option<bool>,
    /// Whether options say that flushes do nothing.
    pub(crate) no_flush: Option<bool>,
    /// What the image's format is to be told, and the secrets that this may name.
    pub(crate) options: RawOptions,
}

impl Default for How {
    fn default() -> Self {
        Self {
            format: None,
            writable: false,
            writable_depth: None,
            force_share: false,
            refuses_to_share: false,
            read_only: false,
            shares_raw: true,
            backing: true,
            inspect_only: false,
            metadata_only: false,
            cache: CacheMode::Writeback,
            direct: None,
            no_flush: None,
            options: RawOptions::new(),
        }
    }
}

/// Why an image that others write to is not opened for writing.
pub(crate) const SHARED_FOR_WRITING: &str = "force-share=on can only be used with read-only images";

/// What the options of the image below start with.
const BACKING: &str = "backing.";
/// What those of the data file start with.
const DATA_FILE: &str = "data-file.";

/// The options that name an image's passphrase: as it is called where a format may be encrypted,
/// and where it is nothing else.
pub(crate) const KEY_SECRETS: [&str; 2] = ["encrypt.key-secret", "key-secret"];

/// The one of [`KEY_SECRETS`] that a format has.
fn key_secret(format: &str) -> &'static str {
    let [among_others, alone] = KEY_SECRETS;
    if format == "luks" { alone } else { among_others }
}

impl How {
    /// Notes what nodes are asked.
    pub(crate) fn heed(&mut self, common: Common) {
        self.force_share |= common.force_share == Some(true);
        self.read_only |= common.read_only == Some(true);
        self.direct = common.direct.or(self.direct);
        self.no_flush = common.no_flush.or(self.no_flush);
    }

    /// How the system's page cache is used.
    pub(crate) fn cache_mode(&self) -> CacheMode {
        let mode = match (self.no_flush, self.cache) {
            (Some(true), CacheMode::Writeback) => CacheMode::Unsafe,
            (Some(false), CacheMode::Unsafe) => CacheMode::Writeback,
            (_, mode) => mode,
        };
        match (self.direct, mode) {
            (Some(true), CacheMode::Writethrough) => CacheMode::Directsync,
            (Some(true), CacheMode::Writeback | CacheMode::Unsafe) => CacheMode::None,
            (Some(false), CacheMode::Directsync) => CacheMode::Writethrough,
            (Some(false), CacheMode::None) => CacheMode::Writeback,
            (_, mode) => mode,
        }
    }

    /// What the format is told: nothing of a passphrase that nobody is going to try.
    fn options(&self) -> RawOptions {
        let mut options = self.options.clone();
        if self.inspect_only {
            for name in KEY_SECRETS {
                options.remove(name);
            }
            // Nor of a file that nobody is going to open.
            options = options.split_prefix(DATA_FILE).1;
        }
        options
    }
}

/// The mode that `-T` names; the default when it is not given.
pub(crate) fn source_cache(name: Option<&str>) -> Result<CacheMode, Stop> {
    cache(name, CacheMode::Writeback, "source cache")
}

/// The mode that `-t` names; the default when it is not given.
pub(crate) fn target_cache(name: Option<&str>) -> Result<CacheMode, Stop> {
    cache(name, CacheMode::Unsafe, "cache")
}

/// The mode that `-t` names for an image that is changed in place.
pub(crate) fn image_cache(name: Option<&str>) -> Result<CacheMode, Stop> {
    cache(name, CacheMode::Writeback, "cache")
}

fn cache(name: Option<&str>, default: CacheMode, what: &str) -> Result<CacheMode, Stop> {
    let Some(name) = name else { return Ok(default) };
    CacheMode::from_name(name).ok_or_else(|| Stop::failed(format!("Invalid {what} option: {name}")))
}

/// An open image under the name that the user knows it by.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The image.
    pub(crate) image: OpenedImage,
    /// Its name.
    pub(crate) filename: String,
    /// What it lies in, where that is no plain file.
    attached: Option<Attached>,
    /// Whether that is the image, without a format.
    is_bare: bool,
}

/// Opens an image.
///
/// # Errors
/// `Could not open 'NAME': ` and why.
pub(crate) fn open(name: &ImageName, how: &How) -> Result<Opened, Stop> {
    let given = name.given();
    if how.writable && how.force_share {
        return Err(Stop::failed(format!("Could not open '{given}': {SHARED_FOR_WRITING}")));
    }
    if how.writable && how.read_only {
        return Err(Stop::failed(format!("Could not open '{given}': Block node is read-only")));
    }
    open_or_reason(name, how).map_err(|Reason { text, class }| {
        Stop::failed(format!("Could not open '{given}': {text}")).of(class)
    })
}

/// Why an image could not be opened, made, or closed.
#[derive(Debug)]
pub(crate) struct Reason {
    /// In words.
    pub(crate) text: String,
    /// What kind of an error it is.
    pub(crate) class: Class,
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self { text, class: Class::Failed }
    }
}

/// As [`open`], with the reason alone.
pub(crate) fn open_or_reason(name: &ImageName, how: &How) -> Result<Opened, Reason> {
    let mut opener = Opener::new()
        .writable(how.writable)
        .force_share(how.force_share)
        .shares_raw(how.shares_raw)
        .backing(how.backing)
        .inspect_only(how.inspect_only || how.metadata_only)
        .cache(how.cache_mode())
        .options(&how.options());
    if let Some(depth) = how.writable_depth {
        opener = opener.writable_depth(depth);
    }
    let folderless = name.node_without_folder();
    opener = match folderless {
        Some(driver) => opener.policy(without_folder(driver, name.shown(), how.inspect_only)),
        None if how.inspect_only => opener.policy(without_data_file),
        None => opener.policy(LocalFiles),
    };
    if let Some(name) = &how.format {
        if format(name).is_none() {
            return Err(format!("Unknown driver '{name}'").into());
        }
        opener = opener.format(name.as_str());
    }
    if name.is_bare() {
        opener = opener.format("raw");
    }
    let attached = match name.node() {
        // Without locks is this file, and none that the image names.
        Node::File(node) if node.locks => {
            check_device(node)?;
            None
        }
        node => {
            let (writable, force_share, cache) = (how.writable, how.force_share, how.cache_mode());
            let secrets = &how.options;
            Some(attach(node, NodeHow { writable, force_share, cache, secrets })?)
        }
    };
    let opened = match (&attached, name.path()) {
        (Some(attached), Some(path)) => opener.open_storage_at(Arc::clone(&attached.storage), path),
        (Some(attached), None) => opener.open_storage(Arc::clone(&attached.storage)),
        (None, path) => opener.open(path.unwrap_or(Path::new(""))),
    };
    match opened {
        Ok(image) => {
            let repaired = image.layers().iter().flat_map(|layer| &layer.repaired);
            for finding in repaired.filter(|finding| !finding.wordless_in_qemu) {
                // As with the findings of a check, nobody may be reading them.
                let _ = writeln!(io::stderr(), "{}", finding.message);
            }
            let option = key_secret(image.format().name);
            let no_key = how.options.value(option).is_none();
            if how.metadata_only && no_key && image.info().is_ok_and(|info| info.encrypted) {
                // Metadata is plain, but who calls qemu-img does not get to see it either.
                return Err(format!("Parameter '{option}' is required for cipher").into());
            }
            if !how.backing
                && let Some((name, _)) =
                    how.options.iter().find(|(name, _)| name.starts_with("backing."))
            {
                // There is nobody whom it could be told.
                let error = Error::unknown_open_option(image.format().name, name);
                return Err(describe(&error).into());
            }
            let filename = name.shown_as(image.format().name);
            Ok(Opened { image, filename, attached, is_bare: name.is_bare() })
        }
        Err(FileError { source, .. }) => {
            let file = match (&attached, name.path()) {
                (None, Some(path)) => path.to_string_lossy().into_owned(),
                _ => name.shown(),
            };
            let no_folder = folderless.and_then(|driver| no_folder(&source, driver));
            let text = no_folder
                .map_or_else(|| reason_with(&source, &file, &how.options), ToOwned::to_owned);
            Err(Reason { text, class: Class::of(&source) })
        }
    }
}

/// What a format is told, its sizes as plain numbers.
pub(crate) fn raw_options(said: &NodeOptions) -> Result<RawOptions, String> {
    let mut options = RawOptions::new();
    for (name, value) in said.iter() {
        match name {
            // Of all formats only raw has these.
            "offset" | "size" => {
                options.set(name, option_size(name, value.option())?.to_string());
            }
            _ => options.set(name, value.option()),
        }
    }
    Ok(options)
}

/// What an image says of itself is not in its data file, which may be gone.
fn without_data_file(wanted: &Dependency<'_>, from: Option<&Path>) -> rimg::Result<Grant> {
    match wanted.role {
        DependencyRole::DataFile => Ok(Grant::Storage(Arc::new(MemoryStorage::new()))),
        _ => LocalFiles.decide(wanted, from),
    }
}

/// Why the file `filename` could not be opened as an image.
pub(crate) fn reason(error: &Error, filename: &str) -> String {
    reason_with(error, filename, RawOptions::NONE)
}

/// As [`reason`], where options may name the files that the image consists of.
fn reason_with(error: &Error, filename: &str, options: &RawOptions) -> String {
    match error {
        Error::Io { op: op::OPEN, source, .. } => open_words(source, filename),
        Error::Dependency { role: DependencyRole::Backing, name, source } => {
            let (options, _) = options.split_prefix(BACKING);
            let below = reason_with(source, &given_or(&options, filename, name), &options);
            format!("Could not open backing file: {below}")
        }
        Error::ReadOnly(Error::MARKED_CORRUPT) => {
            "qcow2: Image is corrupt; cannot be opened read/write".to_owned()
        }
        Error::ReadOnly(_) => "Image is read-only".to_owned(),
        Error::Dependency { role: DependencyRole::Header, name, source } => reason(source, name),
        Error::Dependency { role: DependencyRole::DataFile, name, source } => {
            let (options, _) = options.split_prefix(DATA_FILE);
            reason(source, &given_or(&options, filename, name))
        }
        Error::Dependency { name, source, .. } => reason(source, &combine(filename, name)),
        other => describe(other),
    }
}

/// Decides for an image in `file`, a node of `driver`, which is in no folder: paths count from
/// nowhere, but for data files, which are found from where the user is.
fn without_folder(
    driver: &'static str,
    file: String,
    inspect_only: bool,
) -> impl Fn(&Dependency<'_>, Option<&Path>) -> rimg::Result<Grant> {
    move |wanted, from| {
        if wanted.role == DependencyRole::DataFile && inspect_only {
            return without_data_file(wanted, from);
        }
        if wanted.role == DependencyRole::DataFile || !is_relative(wanted.name) {
            return LocalFiles.decide(wanted, Some(Path::new("")));
        }
        let why = format!("Cannot generate a base directory for {driver} nodes");
        let feature = match wanted.role {
            DependencyRole::Extent => {
                format!("Cannot use relative paths with VMDK descriptor file '{file}': {why}")
            }
            _ => why,
        };
        Err(Error::Unsupported { format: driver, feature })
    }
}

/// What [`without_folder`] said.
fn no_folder<'a>(error: &'a Error, driver: &str) -> Option<&'a str> {
    match error {
        Error::Unsupported { format, feature } if *format == driver => Some(feature),
        Error::Dependency { source, .. } => no_folder(source, driver),
        _ => None,
    }
}

/// The name of a file: what its options give, or what the image `above` calls it.
fn given_or(options: &RawOptions, above: &str, name: &str) -> String {
    let given = ["file.filename", "filename"].iter().find_map(|key| options.value(key));
    given.map_or_else(|| combine(above, name), ToOwned::to_owned)
}

/// Why the system did not open the file `filename`.
pub(crate) fn open_words(error: &io::Error, filename: &str) -> String {
    if LockConflict::of(error).is_some() {
        format!("{error}\nIs another process using the image [{filename}]?")
    } else if error.raw_os_error().is_some() {
        format!("Could not open '{filename}': {}", describe_io(error))
    } else {
        error.to_string()
    }
}

/// Tells regular files apart, whatever they are called.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((metadata.dev(), metadata.ino()))
}

impl Opened {
    /// Whether it lies in a local file, by nothing but its path.
    pub(crate) const fn is_local(&self) -> bool {
        self.attached.is_none()
    }

    /// The image as what all formats have in common.
    pub(crate) fn disk(&self) -> &dyn BlockImage {
        &*self.image
    }

    /// The format's name; the driver's of what has no format.
    pub(crate) fn format(&self) -> &'static str {
        match (&self.attached, self.is_bare) {
            (Some(attached), true) => attached.driver(),
            (None, true) => self.image.path().map_or("file", driver_of_file),
            (_, false) => self.image.format().name,
        }
    }

    /// Whether its bytes are those of a node of this driver, without a format.
    pub(crate) fn is_raw_over(&self, driver: &str) -> bool {
        let below = self.attached.as_ref().is_some_and(|attached| attached.driver() == driver);
        below && self.image.format().name == "raw"
    }

    /// The name of the format of one layer of the chain, 0 being the top.
    pub(crate) fn format_at(&self, depth: usize) -> &'static str {
        self.image.layers().get(depth).map_or("", |layer| layer.format.name)
    }

    /// Says so when the image will be written to and its format was only guessed.
    pub(crate) fn warn_if_guessed(&self) {
        if !self.image.layers().first().is_some_and(|layer| layer.guarded) {
            return;
        }
        // Nothing can be done when standard error is closed.
        let _ = writeln!(
            io::stderr(),
            "WARNING: Image format was not specified for '{}' and probing guessed raw.\n         \
             Automatically detecting the format is dangerous for raw images, write operations on \
             block 0 will be restricted.\n         \
             Specify the 'raw' format explicitly to remove the restrictions.",
            self.filename
        );
    }

    /// Whether it, or an image below it, lies in the file `path`, by whatever name.
    pub(crate) fn consists_of(&self, path: &Path) -> bool {
        let Some(file) = identity(path) else { return false };
        let files = |layer: &Layer| {
            let others = layer.files.iter().map(|(_, path)| path.clone());
            layer.path.iter().cloned().chain(others).collect::<Vec<_>>()
        };
        let all = self.image.layers().iter().flat_map(files);
        all.filter_map(|path| identity(&path)).any(|other| other == file)
    }

    /// What the image says of itself.
    pub(crate) fn info(&self) -> Result<ImageInfo, Stop> {
        self.image.info().map_err(|error| {
            let name = &self.filename;
            Stop::failed(format!("Could not open '{name}': {}", describe(&error)))
                .of(Class::of(&error))
        })
    }

    /// What `info` shows of the image, whose own words are `info`.
    pub(crate) fn report(&self, info: ImageInfo) -> Result<ImageReport, Stop> {
        self.report_or_error(info).map_err(|error| {
            let name = &self.filename;
            Stop::failed(format!("Could not read '{name}': {}", describe_io(&error)))
                .of(Class::of(&error))
        })
    }

    fn report_or_error(&self, mut info: ImageInfo) -> io::Result<ImageReport> {
        let file = self.file_report()?;
        if self.is_bare {
            return Ok(match (file, &self.attached) {
                (_, Some(attached)) => attached.image_report()?,
                (NodeReport::File(file), None) => ImageReport::of_file(file),
                (NodeReport::Image(image), None) => *image,
            });
        }
        let mut children = self.extent_reports()?;
        children.push(("file".to_owned(), file));
        let mut report = ImageReport {
            filename: self.filename.clone(),
            disk_bytes: children.iter().map(|(_, file)| file.disk_bytes()).sum(),
            tells_state: true,
            is_file: false,
            info: ImageInfo::default(),
            full_backing_filename: None,
            children,
        };
        report.inherit(&mut info);
        report.info = info;
        Ok(report)
    }

    fn file_report(&self) -> io::Result<NodeReport> {
        if let Some(attached) = &self.attached {
            return attached.report();
        }
        let file = self.image.file(0).ok_or(io::ErrorKind::NotFound)?;
        let path = self.image.path().unwrap_or(Path::new(""));
        let name = node_name(&Node::of_path(path));
        report_file(file.as_ref(), name, driver_of_file(path)).map(NodeReport::File)
    }

    /// The files that the image's extents lie in, by the names that QEMU gives them, in the order
    /// in which it shows them.
    fn extent_reports(&self) -> io::Result<Vec<(String, NodeReport)>> {
        let Some(layer) = self.image.layers().first() else { return Ok(Vec::new()) };
        let files = (1..).map_while(|index| self.image.file(index));
        let named = files.zip(&layer.files);
        let extents = named.filter(|(_, (role, _))| *role == DependencyRole::Extent);
        let mut reports = Vec::new();
        for (index, (file, (_, path))) in extents.enumerate() {
            let report = report_file(file.as_ref(), path.display().to_string(), "file")?;
            reports.insert(0, (format!("extents.{index}"), NodeReport::File(report)));
        }
        Ok(reports)
    }

    /// The name of a file of one layer of the chain, 0 being the top.
    pub(crate) fn file_name(&self, depth: usize, file: u16) -> String {
        let Some(layer) = self.image.layers().get(depth) else { return String::new() };
        if let (0, 0, Some(attached)) = (depth, file, &self.attached) {
            return attached.name_of_bytes().to_owned();
        }
        let other = usize::from(file).checked_sub(1).and_then(|index| layer.files.get(index));
        let path = other.map(|(_, path)| path).or(layer.path.as_ref());
        path.map(|path| path.display().to_string()).unwrap_or_default()
    }

    /// Writes back what is in memory.
    pub(crate) fn close(self) -> Result<(), Stop> {
        let filename = self.filename.clone();
        self.close_or_reason().map_err(|reason| {
            Stop::failed(format!("error while closing '{filename}': {}", reason.text))
                .of(reason.class)
        })
    }

    /// As [`close`](Self::close), with the reason alone.
    pub(crate) fn close_or_reason(self) -> Result<(), Reason> {
        self.image.close().map_err(|error| Reason {
            text: describe(&error.source),
            class: Class::of(&error.source),
        })
    }
}
