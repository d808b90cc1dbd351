//! Every qcow2 image of `testdata/` reads as its manifest says, or is refused as it says.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{
    BlockImage, Dependency, DependencyGate, Error, FormatDriver as _, Limits, OpenOptions,
    RawOptions, Result, SnapshotSelector, Storage,
};
use rimg_qcow2::DRIVER;
use rimg_storage::{FileOptions, FileStorage};
use rimg_testkit::golden::GoldenFile;
use rimg_testkit::{PlainImage, digest, golden};
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[test]
fn images_read_as_the_manifest_says() {
    golden::for_each("qcow2", |golden| {
        let opened = open(golden);
        match (&golden.refused, opened) {
            (Some(refused), Err(error)) => {
                let variant = format!("{error:?}");
                assert!(variant.starts_with(&refused.error), "{}: {variant}", golden.file);
                let chain = chain_of(&error);
                assert!(chain.contains(&refused.says), "{}: {chain}", golden.file);
            }
            (None, Ok(image)) => same(golden, image.as_ref()),
            (Some(_), Ok(_)) => panic!("{}: opened", golden.file),
            (None, Err(error)) => panic!("{}: {}", golden.file, chain_of(&error)),
        }
    });
}

#[test]
fn encrypted_images_need_their_passphrase() {
    let mut found = 0;
    golden::for_each("qcow2", |golden| {
        if golden.passphrase.is_some() {
            found += 1;
            let error = open_with(&golden.path(), RawOptions::NONE).unwrap_err();
            let expected = "Parameter 'encrypt.key-secret' is required for cipher";
            assert_eq!(error.to_string(), expected, "{}", golden.file);
        }
    });
    assert!(found > 1, "{found} images");
}

/// All of them can be looked at, whatever may be read of them.
#[test]
fn images_describe_themselves() {
    golden::for_each("qcow2", |golden| {
        if golden.refused.is_some() {
            return;
        }
        let image = open(golden).unwrap();
        let info = image.info().unwrap();
        assert_eq!(info.format, "qcow2");
        assert_eq!(Some(info.virtual_size_bytes), golden.virtual_size_bytes);
        let names: Vec<&str> = info.snapshots.iter().map(|s| s.name.as_str()).collect();
        let wanted: Vec<&str> = golden.snapshots.keys().map(String::as_str).collect();
        assert_eq!(names.len(), wanted.len(), "{}", golden.file);
        assert!(wanted.iter().all(|name| names.contains(name)), "{}: {names:?}", golden.file);
    });
}

fn same(golden: &GoldenFile, image: &dyn BlockImage) {
    assert_eq!(Some(image.size_bytes()), golden.virtual_size_bytes, "{}", golden.file);
    let found = digest::of_guest(image).unwrap();
    assert_eq!(Some(&found), golden.guest_sha256.as_ref(), "{}", golden.file);
    for (name, sha256) in &golden.snapshots {
        let selector = SnapshotSelector::IdOrName(name);
        let snapshot = image.snapshots().unwrap().open(&selector).unwrap().unwrap();
        assert_eq!(&digest::of_guest(snapshot.as_ref()).unwrap(), sha256, "{} {name}", golden.file);
    }
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

fn open(golden: &GoldenFile) -> Result<Box<dyn BlockImage>> {
    let mut options = RawOptions::new();
    if let Some(passphrase) = &golden.passphrase {
        options.set("encrypt.key-secret", "s");
        options.add_secret("s", passphrase.as_str().into());
    }
    open_with(&golden.path(), &options)
}

fn open_with(path: &Path, options: &RawOptions) -> Result<Box<dyn BlockImage>> {
    let gate = Beside(path.parent().unwrap().to_owned());
    let how = OpenOptions {
        writable: false,
        inspect_only: false,
        limits: Limits::default(),
        gate: &gate,
        options,
    };
    DRIVER.open(gate.storage(path)?, &how)
}

/// Opens what lies in the same folder.
struct Beside(PathBuf);

impl Beside {
    fn storage(&self, path: &Path) -> Result<Arc<dyn Storage>> {
        let file = FileStorage::open(path, FileOptions::read()).map_err(Error::io("open", 0))?;
        Ok(Arc::new(file))
    }
}

impl DependencyGate for Beside {
    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        self.storage(&self.0.join(wanted.name))
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        if wanted.name.starts_with("json:") {
            return Err(Error::Dependency {
                role: wanted.role,
                name: wanted.name.to_owned(),
                source: Box::new(Error::Denied("it is not a path".into())),
            });
        }
        let path = self.0.join(wanted.name);
        let is_qcow2 = match wanted.format {
            Some(format) => format == "qcow2",
            None => std::fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"QFI\xfb")),
        };
        if is_qcow2 {
            return Ok(Some(Arc::from(open_with(&path, RawOptions::NONE)?)));
        }
        Ok(Some(Arc::new(PlainImage::new(self.open_file(wanted)?)?)))
    }
}
