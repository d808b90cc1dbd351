//! What the tests share.
#![expect(dead_code, reason = "each test uses some of it")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{
    BlockImage, Dependency, DependencyGate, Error, FormatDriver, ImageInfo, Limits, OpenOptions,
    RawOptions, Result, Storage, TargetFiles, op,
};
use rimg_storage::{Creation, FileOptions, FileStorage};
use rimg_testkit::drill::Drill;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) static DRIVERS: &[&dyn FormatDriver] = &[&rimg_vmdk::DRIVER];

/// Kinds of images in one file that lead through every path.
pub(crate) fn kinds() -> Vec<Drill> {
    let small = Drill::new(DRIVERS, 500 << 10);
    vec![
        small.clone(),
        small.clone().with("zeroed_grain", "on"),
        small.clone().over_own_format(300 << 10),
        small.clone().with("zeroed_grain", "on").over_own_format(700 << 10),
        streams(500 << 10),
    ]
}

/// Stream-optimised images.
pub(crate) fn streams(size_bytes: u64) -> Drill {
    Drill::new(DRIVERS, size_bytes).with("subformat", "streamOptimized")
}

/// A folder of images on disk.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn create(&self, name: &str, size: u64, options: &RawOptions) {
        let backing = options
            .value("backing_file")
            .map(|below| self.open(below, false).unwrap().info().unwrap());
        let main = new_file(&self.path(name)).unwrap();
        let target = FolderTarget { folder: self.0.path(), name: name.to_owned(), main, backing };
        rimg_vmdk::DRIVER.create(&target, size, options).unwrap();
    }

    pub(crate) fn open(&self, name: &str, writable: bool) -> Result<Box<dyn BlockImage>> {
        open_in(self.0.path(), name, writable)
    }
}

/// Opens an image with all that it names in its folder.
pub(crate) fn open_in(folder: &Path, name: &str, writable: bool) -> Result<Box<dyn BlockImage>> {
    let gate = FolderGate(folder);
    let how = OpenOptions {
        writable,
        inspect_only: false,
        limits: Limits::default(),
        gate: &gate,
        options: RawOptions::NONE,
    };
    rimg_vmdk::DRIVER.open(file(&folder.join(name), writable)?, &how)
}

pub(crate) fn read_all(image: &dyn BlockImage) -> Vec<u8> {
    let mut disk = vec![0; usize::try_from(image.size_bytes()).unwrap()];
    image.read_at(&mut disk, 0).unwrap();
    disk
}

fn file(path: &Path, writable: bool) -> Result<Arc<dyn Storage>> {
    let options = if writable { FileOptions::write() } else { FileOptions::read() };
    Ok(Arc::new(FileStorage::open(path, options).map_err(Error::io(op::OPEN, 0))?))
}

fn new_file(path: &Path) -> Result<Arc<dyn Storage>> {
    let options = FileOptions { creation: Creation::CreateNew, ..FileOptions::write() };
    Ok(Arc::new(FileStorage::open(path, options).map_err(Error::io(op::CREATE, 0))?))
}

struct FolderGate<'a>(&'a Path);

impl DependencyGate for FolderGate<'_> {
    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        file(&self.0.join(wanted.name), wanted.writable)
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        Ok(Some(Arc::from(open_in(self.0, wanted.name, wanted.writable)?)))
    }
}

struct FolderTarget<'a> {
    folder: &'a Path,
    name: String,
    main: Arc<dyn Storage>,
    backing: Option<ImageInfo>,
}

impl TargetFiles for FolderTarget<'_> {
    fn main(&self) -> &Arc<dyn Storage> {
        &self.main
    }

    fn sibling(&self, name: &str) -> Result<Arc<dyn Storage>> {
        new_file(&self.folder.join(name))
    }

    fn main_name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn backing_info(&self) -> Option<&ImageInfo> {
        self.backing.as_ref()
    }
}
