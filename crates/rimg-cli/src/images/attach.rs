//! Opening what an image lies in.

use crate::images::node::{FileNode, ImageNode, Node};
use crate::images::open::{open_words, raw_options, reason};
use crate::images::shown::node_name;
use crate::message::describe_io;
use crate::output::info::{FileReport, ImageReport, NodeReport};
use rimg::{
    CacheMode, DebugStorage, FileOptions, FileStorage, ImageInfo, ImageStorage, LocalFiles,
    Locking, NbdOptions, NbdStorage, NullStorage, Opener, QuorumStorage, RawOptions, Storage,
};
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

/// How nodes are opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeHow<'a> {
    pub(crate) writable: bool,
    pub(crate) force_share: bool,
    pub(crate) cache: CacheMode,
    /// Secrets that images within images may need.
    pub(crate) secrets: &'a RawOptions,
}

/// An open node.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Its bytes.
    pub(crate) storage: Arc<dyn Storage>,
    name: String,
    driver: &'static str,
    /// What the nodes below are called, and those, in the order in which they are shown.
    below: Vec<(String, Self)>,
    /// What it says of itself, if it is an image.
    info: Option<ImageInfo>,
}

/// Opens a node and all below.
///
/// # Errors
/// The reason.
pub(crate) fn attach(node: &Node, how: NodeHow<'_>) -> Result<Attached, String> {
    let name = node_name(node);
    let (mut below, mut info) = (Vec::new(), None);
    let storage: Arc<dyn Storage> = match node {
        Node::File(node) => {
            check_device(node)?;
            let options = if how.writable { FileOptions::write() } else { FileOptions::read() };
            let locking = match how.force_share {
                _ if !node.locks => Locking::Off,
                true => Locking::Shared,
                false => Locking::Exclusive,
            };
            let options = options.cache(how.cache).locking(locking);
            let file = FileStorage::open(&node.path, options);
            Arc::new(file.map_err(|error| open_words(&error, &name))?)
        }
        Node::Nbd(node) => {
            let context = node.context.clone();
            let options = NbdOptions { writable: how.writable, cache: how.cache, context };
            let disk = NbdStorage::connect(&node.address, options);
            Arc::new(disk.map_err(|error| error.to_string())?)
        }
        Node::Null(node) => Arc::new(NullStorage::new(node.size_bytes, node.read_zeroes)),
        Node::Debug(node) => {
            let rules = node.rules()?;
            let image = attach(&node.image, how)?;
            let storage = DebugStorage::new(Arc::clone(&image.storage), how.cache, rules);
            below.push(("image".to_owned(), image));
            Arc::new(storage)
        }
        Node::Quorum(node) => {
            let mut copies = Vec::new();
            for (index, child) in node.children.iter().enumerate() {
                let child = attach(child, how)?;
                copies.push(Arc::clone(&child.storage));
                below.insert(0, (format!("children.{index}"), child));
            }
            let storage = QuorumStorage::new(copies, node.threshold);
            Arc::new(storage.map_err(|error| describe_io(&error))?)
        }
        Node::Image(node) => {
            let file = attach(&node.file, how)?;
            let (storage, said) = open_image(node, &file, how)?;
            info = Some(said);
            below.push(("file".to_owned(), file));
            Arc::new(storage)
        }
    };
    Ok(Attached { storage, name, driver: node.driver(), below, info })
}

/// Refuses a file that is no device where one is wanted.
pub(crate) fn check_device(node: &FileNode) -> Result<(), String> {
    let FileNode { driver, path, .. } = node;
    if *driver == "file" {
        return Ok(());
    }
    let path_shown = path.to_string_lossy();
    let kind = fs::metadata(path).map_err(|error| open_words(&error, &path_shown))?.file_type();
    if kind.is_block_device() || kind.is_char_device() {
        return Ok(());
    }
    let wanted = "to be either a character or block device";
    Err(format!("'{driver}' driver requires '{path_shown}' {wanted}"))
}

fn open_image(
    node: &ImageNode,
    file: &Attached,
    how: NodeHow<'_>,
) -> Result<(ImageStorage, ImageInfo), String> {
    let mut options = raw_options(&node.said)?;
    options.add_secrets_of(how.secrets);
    let opener = Opener::new()
        .format(node.driver)
        .writable(how.writable)
        .force_share(how.force_share)
        .cache(how.cache)
        .policy(LocalFiles)
        .options(&options);
    let storage = Arc::clone(&file.storage);
    let opened = match node.file.path() {
        Some(path) => opener.open_storage_at(storage, path),
        None => opener.open_storage(storage),
    };
    let opened = opened.map_err(|error| reason(&error.source, &file.name))?;
    let info = opened.info().map_err(|error| reason(&error, &file.name))?;
    Ok((ImageStorage::new(opened.into_image()), info))
}

impl Attached {
    /// Its driver's name.
    pub(crate) fn driver(&self) -> &'static str {
        self.driver
    }

    /// The name of the node whose offsets tell where bytes lie.
    pub(crate) fn name_of_bytes(&self) -> &str {
        match (&self.info, self.below.first()) {
            (Some(_), Some((_, below))) => below.name_of_bytes(),
            _ => &self.name,
        }
    }

    /// What `info` shows of it.
    pub(crate) fn report(&self) -> io::Result<NodeReport> {
        if !self.below.is_empty() {
            return Ok(NodeReport::Image(Box::new(self.image_report()?)));
        }
        report_file(self.storage.as_ref(), self.name.clone(), self.driver).map(NodeReport::File)
    }

    /// What `info` shows where it is no child of another node.
    pub(crate) fn image_report(&self) -> io::Result<ImageReport> {
        let len_bytes = sectors(self.storage.len_bytes()?);
        let mut info = match &self.info {
            Some(info) => info.clone(),
            None => {
                let format = self.driver;
                ImageInfo { format, virtual_size_bytes: len_bytes, ..ImageInfo::default() }
            }
        };
        let mut children = Vec::new();
        for (name, below) in &self.below {
            children.push((name.clone(), below.report()?));
        }
        let is_file = is_local(self.driver);
        let is_quorum = self.driver == "quorum";
        let stands_alone = self.info.is_some() || self.below.is_empty() || is_quorum;
        let mut report = ImageReport {
            filename: self.name.clone(),
            disk_bytes: if stands_alone { self.storage.allocated_bytes()? } else { None },
            tells_state: is_file || (!self.below.is_empty() && !is_quorum),
            info: ImageInfo::default(),
            full_backing_filename: None,
            children,
            is_file,
        };
        report.inherit(&mut info);
        report.info = info;
        Ok(report)
    }
}

/// What `info` shows of a file.
pub(crate) fn report_file(
    file: &dyn Storage,
    filename: String,
    protocol: &'static str,
) -> io::Result<FileReport> {
    let len_bytes = sectors(file.len_bytes()?);
    Ok(FileReport { filename, protocol, len_bytes, disk_bytes: file.allocated_bytes()? })
}

/// Files are counted in sectors, too.
fn sectors(len_bytes: u64) -> u64 {
    len_bytes.checked_next_multiple_of(512).unwrap_or(len_bytes)
}

/// Whether a driver is of local files.
fn is_local(driver: &str) -> bool {
    matches!(driver, "file" | "host_device" | "host_cdrom")
}

/// The driver of a local file.
pub(crate) fn driver_of_file(path: &Path) -> &'static str {
    let regular = fs::metadata(path).map_or(true, |metadata| metadata.is_file());
    if regular { "file" } else { "host_device" }
}
