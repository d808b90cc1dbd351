//! New images: from what the user said to what a format driver is told.

use crate::class::Class;
use crate::epoch::source_date_epoch;
use crate::images::attach::{Attached, NodeHow, attach};
use crate::images::name::{ImageName, combine};
use crate::images::node::Node;
use crate::images::open::{How, KEY_SECRETS, Reason, open_or_reason};
use crate::images::protocol::node_of;
use crate::images::{format, is_backing_format};
use crate::message::{describe, describe_io};
use crate::options::{self, Chosen, OptionList};
use rimg::{
    CacheMode, Creator, DependencyRole, Error, FileError, FormatInfo, ImageInfo, LocalFiles,
    LockConflict, OptionSpec, Plan, RawOptions, op,
};
use rimg_convert::TargetGuard;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

const PREALLOCATION: &str = "preallocation";

/// The option by which formats that keep a time take it, in seconds since 1970.
const TIMESTAMP: &str = "timestamp";

/// What the user said of an image to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewImage {
    /// Its name.
    pub(crate) filename: OsString,
    /// The size of its disk in bytes.
    pub(crate) size_bytes: Option<u64>,
    /// The image to be below it, as the new image is to name it.
    pub(crate) backing: Option<String>,
    /// The format of that.
    pub(crate) backing_format: Option<String>,
    /// Secrets that options may name.
    pub(crate) secrets: RawOptions,
}

/// An image that can be made: everything that can be known before is checked.
#[derive(Debug)]
pub(crate) struct PlannedImage {
    filename: OsString,
    format: &'static FormatInfo,
    /// What the format is called.
    called: String,
    table: Vec<&'static OptionSpec>,
    chosen: Chosen,
    size_bytes: u64,
    /// What the image below says of itself, where it was looked at.
    backing: Option<ImageInfo>,
    secrets: RawOptions,
}

/// What QEMU calls a file that is nothing else: a raw image is the same.
pub(crate) const PLAIN_FILE: &str = "file";

/// The format by the name that a user gave it, if images of it can be made.
///
/// # Errors
/// The message.
pub(crate) fn creatable_format(name: &str) -> Result<&'static FormatInfo, String> {
    match format(if name == PLAIN_FILE { "raw" } else { name }) {
        None => Err(format!("Unknown file format '{name}'")),
        Some(info) if !info.writable => {
            Err(format!("Format driver '{name}' does not support image creation"))
        }
        Some(info) => Ok(info),
    }
}

impl NewImage {
    /// Checks everything that can be checked before anything is written; looks at the backing
    /// image if `check_backing`.
    ///
    /// # Errors
    /// The message, without the image's name.
    pub(crate) fn plan(
        &self,
        called: &str,
        list: &OptionList,
        check_backing: bool,
    ) -> Result<PlannedImage, String> {
        let format = creatable_format(called)?;
        check_protocol(&self.filename)?;
        let called = called.to_owned();
        let table = options::table(format, true);
        let mut chosen = list.resolve(&table)?;
        if self.size_bytes.is_some() && chosen.plain("size").is_some() {
            return Err("The image size must be specified only once".to_owned());
        }
        set(&mut chosen, &table, "backing_file", self.backing.as_deref(), || {
            format!("Backing file not supported for file format '{called}'")
        })?;
        set(&mut chosen, &table, "backing_fmt", self.backing_format.as_deref(), || {
            format!("Backing file format not supported for file format '{called}'")
        })?;
        let backing = self.look_at_backing(&chosen, check_backing)?;
        let asked = match chosen.plain("size") {
            Some(size) => size.parse().ok(),
            None => self.size_bytes,
        };
        let size_bytes = asked
            .or(backing.as_ref().map(|backing| backing.virtual_size_bytes))
            .ok_or_else(|| "Image creation needs a size parameter".to_owned())?;
        set(&mut chosen, &table, "size", Some(&size_bytes.to_string()), no_size)?;
        let (filename, secrets) = (self.filename.clone(), self.secrets.clone());
        Ok(PlannedImage { filename, format, called, table, chosen, size_bytes, backing, secrets })
    }

    /// What the backing image says of itself, if there is one that can be looked at.
    fn look_at_backing(&self, chosen: &Chosen, check: bool) -> Result<Option<ImageInfo>, String> {
        let Some(backing) = chosen.plain("backing_file") else { return Ok(None) };
        if backing.is_empty() {
            return Err("Expected backing file name, got empty string".to_owned());
        }
        if *backing == *self.filename {
            let message = "Trying to create an image with the same filename as the backing file";
            return Err(format!("Error: {message}"));
        }
        let declared = chosen.plain("backing_fmt");
        let mut info = None;
        let mut hint = String::new();
        if check {
            let full = combine(&self.filename.to_string_lossy(), backing);
            let mut how = How {
                format: declared.map(str::to_owned),
                force_share: true,
                inspect_only: true,
                options: self.secrets.clone(),
                ..How::default()
            };
            let unopened = |reason: String| format!("{reason}\nCould not open backing image.");
            let name = ImageName::of_user(full.as_ref(), &mut how).map_err(unopened)?;
            let opened = open_or_reason(&name, &how).map_err(|reason| unopened(reason.text))?;
            hint = format!("\nDetected format of {}.", opened.format());
            info = Some(opened.disk().info().map_err(|error| unopened(describe(&error)))?);
        }
        if declared.is_none() {
            return Err(format!("Backing file specified without backing format{hint}"));
        }
        Ok(info)
    }
}

fn set(
    chosen: &mut Chosen,
    table: &[&'static OptionSpec],
    name: &str,
    value: Option<&str>,
    unknown: impl FnOnce() -> String,
) -> Result<(), String> {
    let Some(value) = value else { return Ok(()) };
    let spec = table.iter().find(|spec| spec.name == name).ok_or_else(unknown)?;
    chosen.set(spec, value);
    Ok(())
}

fn no_size() -> String {
    "The format has no size option".to_owned()
}

fn check_protocol(filename: &OsStr) -> Result<(), String> {
    if filename.is_empty() {
        // The system says it best.
        return Ok(());
    }
    match node_of(filename)? {
        Node::File(_) | Node::Nbd(_) => Ok(()),
        node => {
            let driver = node.driver();
            Err(format!("Protocol driver '{driver}' does not support image creation"))
        }
    }
}

/// What keeps a target that was just made from looking finished before it is; `files` are those
/// that it consists of, if it was made of any.
pub(crate) fn guard(files: Vec<PathBuf>, filename: &OsStr) -> TargetGuard {
    if files.is_empty() { TargetGuard::existing(filename) } else { TargetGuard::created(files) }
}

impl PlannedImage {
    /// The line that `create` prints.
    pub(crate) fn announcement(&self) -> String {
        let shown = self.chosen.shown(&self.table);
        let filename = self.filename.to_string_lossy();
        format!("Formatting '{filename}', fmt={}{shown}\n", self.called)
    }

    /// Makes the image, and returns the files that it consists of.
    ///
    /// # Errors
    /// Why not, without the image's name.
    pub(crate) fn create(&self) -> Result<Vec<PathBuf>, Reason> {
        let plan = self.plan()?;
        let created = match self.existing_file()? {
            None => plan.carry_out(self.path()),
            Some(file) => plan.carry_out_in(file.storage).map(|()| Vec::new()),
        };
        created.map_err(|FileError { source, .. }| self.reason(&source))
    }

    /// What would be made.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub(crate) fn plan(&self) -> Result<Plan, Reason> {
        let backing_format = self.chosen.plain("backing_fmt");
        if let Some(unknown) = backing_format.filter(|name| !is_backing_format(name)) {
            let text = match self.format.name {
                "qcow" => format!("unrecognized backing format '{unknown}'"),
                _ => format!("Parameter 'backing-fmt' does not accept value '{unknown}'"),
            };
            return Err(text.into());
        }
        let mut creator = Creator::new(self.format.name)
            .size(self.size_bytes)
            .options(&self.driver_options()?)
            .options(&self.secrets)
            .open_backing(self.backing.is_none() && notes_what_is_below(self.format))
            .policy(LocalFiles);
        if let Some(info) = &self.backing {
            creator = creator.known_backing(info.clone());
        }
        creator.plan(self.path()).map_err(|FileError { source, .. }| self.reason(&source))
    }

    /// What is to be used as it is, since its kind of file cannot be made.
    fn existing_file(&self) -> Result<Option<Attached>, String> {
        if self.filename.is_empty() {
            return Ok(None);
        }
        let node = node_of(&self.filename)?;
        if node.driver() == "file" {
            return Ok(None);
        }
        let how = NodeHow {
            writable: true,
            force_share: false,
            cache: CacheMode::default(),
            secrets: &self.secrets,
        };
        attach(&node, how).map(Some).map_err(|reason| {
            format!(
                "Protocol driver '{}' does not support creating new images, so an existing image \
                 must be selected as the target; however, opening the given target as an existing \
                 image failed: {reason}",
                node.driver()
            )
        })
    }

    /// What the format is told: not what is for the file alone.
    fn driver_options(&self) -> Result<RawOptions, String> {
        let mut unseen = options::HINTS.to_vec();
        unseen.push("size");
        if self.format.create_option(PREALLOCATION).is_none() {
            // The file begins empty: there is nothing to allocate before the format writes to it.
            match self.chosen.plain(PREALLOCATION) {
                None | Some("off" | "falloc" | "full") => unseen.push(PREALLOCATION),
                Some("metadata") => return Err("Unsupported preallocation mode: metadata".into()),
                Some(other) => return Err(format!("invalid parameter value: {other}")),
            }
        }
        let mut options = self.chosen.for_driver(&unseen);
        if self.format.create_option(TIMESTAMP).is_some()
            && options.value(TIMESTAMP).is_none()
            && let Some(epoch) = source_date_epoch()?
        {
            options.set(TIMESTAMP, epoch.to_string());
        }
        Ok(options)
    }

    /// What has to be said to open the image once it is made: the key of an encrypted one.
    pub(crate) fn open_options(&self) -> RawOptions {
        let mut options = self.secrets.clone();
        for key in KEY_SECRETS {
            if let Some(id) = self.chosen.plain(key) {
                options.set(key, id);
            }
        }
        options
    }

    fn path(&self) -> PathBuf {
        match self.filename.to_str().and_then(|name| name.strip_prefix("file:")) {
            Some(path) => path.into(),
            None => self.filename.clone().into(),
        }
    }

    fn reason(&self, error: &Error) -> Reason {
        Reason { text: self.words(error), class: Class::of(error) }
    }

    fn words(&self, error: &Error) -> String {
        let path = self.path();
        let filename = path.display();
        match error {
            Error::Io { op: op::CREATE | op::OPEN, source, .. } => {
                if LockConflict::of(source).is_some() {
                    format!("{source}\nIs another process using the image [{filename}]?")
                } else {
                    format!("Could not create '{filename}': {}", describe_io(source))
                }
            }
            Error::Dependency { role: DependencyRole::Backing, name, source } => {
                let below = combine(&self.filename.to_string_lossy(), name);
                format!("Could not open '{below}': {}", describe(source))
            }
            Error::Io { source, .. } if source.raw_os_error() == Some(FILE_TOO_LARGE) => {
                let format = self.format.name;
                format!("The image size is too large for file format '{format}'")
            }
            Error::Io { op: op::RESERVE_SPACE | op::WRITE_RESERVED_ZEROES, .. }
                if self.format.name == "qcow2" =>
            {
                let reason = describe(error);
                format!("Could not resize image: Failed to resize underlying file: {reason}")
            }
            Error::Io { op: op::EXTEND_FILE, .. } if self.format.name == "qcow2" => {
                format!("Could not resize image: {}", describe(error))
            }
            other => describe(other),
        }
    }
}

/// Whether overlays of this format note the identity of the image below, which has to be opened for
/// it.
fn notes_what_is_below(format: &FormatInfo) -> bool {
    format.name == "vmdk"
}

/// `EFBIG`, whose own words would say less.
const FILE_TOO_LARGE: i32 = 27;

/// What is said of the target of a conversion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TargetWishes<'a> {
    /// `-o`
    pub(crate) list: &'a OptionList,
    /// `-B`
    pub(crate) backing: Option<&'a str>,
    /// `-F`
    pub(crate) backing_format: Option<&'a str>,
    /// More than one.
    pub(crate) several_sources: bool,
    /// `-c`
    pub(crate) compress: bool,
    /// Secrets that options may name.
    pub(crate) secrets: &'a RawOptions,
}

/// Several sources become one disk, which has nothing in common with what lies below the target.
pub(crate) const BACKING_FOR_SEVERAL: &str =
    "Having a backing file for the target makes no sense when concatenating multiple input images";

/// Checks everything that can be known before the target of a conversion is made.
///
/// # Errors
/// The message.
pub(crate) fn plan_target(
    filename: &OsStr,
    format_name: &str,
    wishes: TargetWishes<'_>,
    size_bytes: u64,
) -> Result<PlannedImage, String> {
    let format = creatable_format(format_name)?;
    check_protocol(filename)?;
    let table = options::table(format, true);
    let mut chosen = wishes.list.resolve(&table)?;
    // Whatever the options say, the target is as large as the sources.
    set(&mut chosen, &table, "size", Some(&size_bytes.to_string()), no_size)?;
    set(&mut chosen, &table, "backing_file", wishes.backing, || {
        format!("Backing file not supported for file format '{format_name}'")
    })?;
    set(&mut chosen, &table, "backing_fmt", wishes.backing_format, || {
        format!("Backing file format not supported for file format '{format_name}'")
    })?;
    let has_backing = chosen.plain("backing_file").is_some();
    if has_backing && wishes.several_sources {
        return Err(BACKING_FOR_SEVERAL.to_owned());
    }
    if has_backing && chosen.plain("backing_fmt").is_none() {
        return Err("Use of backing file requires explicit backing format".to_owned());
    }
    if wishes.compress {
        require_compression(format_name)?;
        let encrypted = chosen.plain("encryption") == Some("on");
        if encrypted || chosen.plain("encrypt.format").is_some() {
            return Err("Compression and encryption not supported at the same time".to_owned());
        }
        if chosen.plain("preallocation").is_some_and(|mode| mode != "off") {
            return Err("Compression and preallocation not supported at the same time".to_owned());
        }
    }
    let (filename, secrets) = (filename.to_owned(), wishes.secrets.clone());
    let (called, backing) = (format_name.to_owned(), None);
    Ok(PlannedImage { filename, format, called, table, chosen, size_bytes, backing, secrets })
}

/// Refuses `-c` for formats that have no compressed clusters.
///
/// # Errors
/// The message.
pub(crate) fn require_compression(format_name: &str) -> Result<(), String> {
    match format(format_name) {
        Some(info) if info.compresses => Ok(()),
        _ => Err("Compression not supported for this file format".to_owned()),
    }
}
