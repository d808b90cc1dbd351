//! A folder with images in it, for the tests of this crate.
#![allow(dead_code, reason = "each test program uses part of it")]

use rimg_core::{
    BlockImage, Dependency, DependencyGate, FormatDriver as _, Limits, OpenOptions, RawOptions,
    Result, Storage, TargetFiles,
};
use rimg_qcow2::DRIVER;
use rimg_storage::{FileOptions, FileStorage};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens files that images in one folder refer to: raw files and other qcow2 images.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn storage(&self, name: &str, options: FileOptions) -> Arc<dyn Storage> {
        Arc::new(FileStorage::open(self.path(name), options).unwrap())
    }

    /// Opens a qcow2 image for reading.
    pub(crate) fn open(&self, name: &str) -> Result<Box<dyn BlockImage>> {
        DRIVER.open(self.storage(name, FileOptions::read()), &self.how())
    }

    pub(crate) fn how(&self) -> OpenOptions<'_> {
        OpenOptions {
            writable: false,
            inspect_only: false,
            limits: Limits::default(),
            gate: self,
            options: RawOptions::NONE,
        }
    }

    /// Creates a qcow2 image.
    pub(crate) fn create(&self, name: &str, size_bytes: u64, options: &RawOptions) -> Result<()> {
        let main = self.storage(name, FileOptions::create());
        DRIVER.create(&Target { folder: self, main }, size_bytes, options)
    }
}

impl DependencyGate for Folder {
    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        let options = if wanted.writable { FileOptions::write() } else { FileOptions::read() };
        Ok(self.storage(wanted.name, options))
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        if wanted.format == Some("qcow2") {
            return Ok(Some(Arc::from(self.open(wanted.name)?)));
        }
        Ok(Some(Arc::new(RawImage(self.storage(wanted.name, FileOptions::read())))))
    }
}

struct Target<'a> {
    folder: &'a Folder,
    main: Arc<dyn Storage>,
}

impl TargetFiles for Target<'_> {
    fn main(&self) -> &Arc<dyn Storage> {
        &self.main
    }

    fn sibling(&self, name: &str) -> Result<Arc<dyn Storage>> {
        Ok(self.folder.storage(name, FileOptions::create()))
    }
}

/// Enough of a raw image to lie below another one.
#[derive(Debug)]
struct RawImage(Arc<dyn Storage>);

impl BlockImage for RawImage {
    fn size_bytes(&self) -> u64 {
        self.0.len_bytes().unwrap()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.0.read_exact_at(buf, at).unwrap();
        Ok(())
    }

    fn extent_at(&self, range: core::ops::Range<u64>) -> Result<rimg_core::Extent> {
        let at = rimg_core::FileOffset { file: 0, host: rimg_core::HostOffset(range.start) };
        let kind = rimg_core::ExtentKind::Data(at);
        Ok(rimg_core::Extent { len_bytes: range.end - range.start, kind })
    }

    fn info(&self) -> Result<rimg_core::ImageInfo> {
        Ok(rimg_core::ImageInfo::default())
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then_some(&self.0)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// A folder that is gone when the test is over, and the images in it.
pub(crate) fn folder() -> (tempfile::TempDir, Folder) {
    let dir = match Path::new("/dev/shm").is_dir() {
        true => tempfile::tempdir_in("/dev/shm"),
        false => tempfile::tempdir(),
    }
    .unwrap();
    let folder = Folder(dir.path().to_owned());
    (dir, folder)
}

/// Creation options from `name=value,name=value`, sizes in bytes.
pub(crate) fn options(text: &str) -> RawOptions {
    let mut raw = RawOptions::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        raw.set(name, value);
    }
    raw
}
