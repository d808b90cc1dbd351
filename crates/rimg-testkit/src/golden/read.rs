//! Reading golden images through a driver.

use super::{GoldenFile, for_each};
use crate::{PlainImage, digest};
use rimg_core::{
    BlockImage, Dependency, DependencyGate, Error, FormatDriver, Limits, Match, OpenOptions,
    ProbeWindow, RawOptions, Result, SnapshotSelector, Storage, op,
};
use rimg_storage::{FileOptions, FileStorage};
use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Every image of the driver's format reads as the manifest says, its snapshots, too, or is refused
/// as it says.
///
/// # Panics
/// When it does not, naming the images.
pub fn read_all(driver: &'static dyn FormatDriver) {
    for_each(driver.format().name, |golden| match (&golden.refused, open(driver, golden)) {
        (Some(refused), Err(error)) => {
            let variant = format!("{error:?}");
            assert!(variant.starts_with(&refused.error), "{}: {variant}", golden.file);
            let chain = chain_of(&error);
            assert!(chain.contains(&refused.says), "{}: {chain}", golden.file);
        }
        (None, Ok(image)) => assert_same(golden, image.as_ref()),
        (Some(_), Ok(_)) => panic!("{}: opened", golden.file),
        (None, Err(error)) => panic!("{}: {}", golden.file, chain_of(&error)),
    });
}

fn assert_same(golden: &GoldenFile, image: &dyn BlockImage) {
    let info = image.info().unwrap();
    assert_eq!(info.format, golden.format, "{}", golden.file);
    assert_eq!(Some(image.size_bytes()), golden.virtual_size_bytes, "{}", golden.file);
    let found = digest::of_guest(image).unwrap();
    assert_eq!(Some(&found), golden.guest_sha256.as_ref(), "{}", golden.file);
    assert_eq!(info.snapshots.len(), golden.snapshots.len(), "{}", golden.file);
    for (name, sha256) in &golden.snapshots {
        let selector = SnapshotSelector::IdOrName(name);
        let snapshot = image.snapshots().unwrap().open(&selector).unwrap().unwrap();
        assert_eq!(&digest::of_guest(snapshot.as_ref()).unwrap(), sha256, "{} {name}", golden.file);
    }
}

/// Opens an image for reading, with its passphrase; what it names lies in the same folder.
///
/// # Errors
/// What the driver says.
pub fn open(driver: &'static dyn FormatDriver, golden: &GoldenFile) -> Result<Box<dyn BlockImage>> {
    let mut options = RawOptions::new();
    if let Some(passphrase) = &golden.passphrase {
        let own = driver.format().create_option("key-secret").is_some();
        options.set(if own { "key-secret" } else { "encrypt.key-secret" }, "s");
        options.add_secret("s", passphrase.as_str().into());
    }
    open_with(driver, &golden.path(), &options)
}

/// As [`open`], with these options instead of a passphrase.
///
/// # Errors
/// What the driver says.
pub fn open_with(
    driver: &'static dyn FormatDriver,
    path: &Path,
    options: &RawOptions,
) -> Result<Box<dyn BlockImage>> {
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let gate = Beside { folder, driver };
    let how = OpenOptions {
        writable: false,
        inspect_only: false,
        limits: Limits::default(),
        gate: &gate,
        options,
    };
    driver.open(storage(path)?, &how)
}

fn storage(path: &Path) -> Result<Arc<dyn Storage>> {
    let file = FileStorage::open(path, FileOptions::read()).map_err(Error::io(op::OPEN, 0))?;
    Ok(Arc::new(file))
}

fn chain_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Opens what lies in the same folder: images of the same format, or raw ones.
struct Beside {
    folder: PathBuf,
    driver: &'static dyn FormatDriver,
}

impl Beside {
    fn is_own(&self, path: &Path, format: Option<&str>) -> bool {
        if let Some(format) = format {
            return format == self.driver.format().name;
        }
        let bytes = fs::read(path).unwrap_or_default();
        let head = bytes.get(..ProbeWindow::HEAD_BYTES).unwrap_or(&bytes);
        let len_bytes = rimg_core::num::to_u64(bytes.len());
        let name = path.to_string_lossy();
        let window = ProbeWindow { head, name: Some(&name), len_bytes };
        self.driver.probe(&window) == Match::Sure
    }
}

impl DependencyGate for Beside {
    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        storage(&self.folder.join(wanted.name))
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        if wanted.name.starts_with("json:") {
            return Err(Error::Dependency {
                role: wanted.role,
                name: wanted.name.to_owned(),
                source: Box::new(Error::Denied("it is not a path".into())),
            });
        }
        let path = self.folder.join(wanted.name);
        if self.is_own(&path, wanted.format) {
            return Ok(Some(Arc::from(open_with(self.driver, &path, RawOptions::NONE)?)));
        }
        Ok(Some(Arc::new(PlainImage::new(storage(&path)?)?)))
    }
}
