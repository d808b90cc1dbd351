//! The images of `testdata/`, and what its manifest says of them.

mod read;

pub use read::{open, open_with, read_all};

use crate::digest;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A file of `testdata/`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GoldenFile {
    /// Its path below `testdata/`.
    pub file: String,
    /// Its format.
    pub format: String,
    /// What is special about it.
    pub about: String,
    /// SHA-256 of the file.
    pub file_sha256: String,
    /// The size of the guest's disk in bytes; `None` where it must not open.
    pub virtual_size_bytes: Option<u64>,
    /// SHA-256 of the guest's disk, backing files included; `None` where it must not open.
    pub guest_sha256: Option<String>,
    /// SHA-256 of the guest's disk in internal snapshots, by name.
    #[serde(default)]
    pub snapshots: BTreeMap<String, String>,
    /// What opens an encrypted image, as `encrypt.key-secret`.
    pub passphrase: Option<String>,
    /// How opening it fails, where it must.
    pub refused: Option<Refused>,
    /// The folder that the manifest was found in.
    #[serde(skip)]
    testdata: PathBuf,
}

/// How opening an image fails that must not open.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refused {
    /// The variant of `rimg_core::Error`.
    pub error: String,
    /// Words of its chain of messages.
    pub says: String,
}

impl GoldenFile {
    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.testdata.join(&self.file)
    }

    /// Whether it is an image: not a file that belongs to another image.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.guest_sha256.is_some() || self.refused.is_some()
    }
}

#[derive(Deserialize)]
struct Manifest {
    files: Vec<GoldenFile>,
}

/// The folder of golden images.
#[must_use]
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

/// The images of a format, in the manifest's order; every file is as the manifest says.
///
/// # Panics
/// When there are none, or the manifest cannot be read, or a file differs from it.
#[must_use]
pub fn images(format: &str) -> Vec<GoldenFile> {
    images_in(&testdata(), format)
}

/// Runs `test` on every image of a format, also after failures.
///
/// # Panics
/// When `test` does for any, naming all of them; as [`images`].
pub fn for_each(format: &str, test: impl FnMut(&GoldenFile)) {
    each_of(&images(format), test);
}

fn each_of(images: &[GoldenFile], mut test: impl FnMut(&GoldenFile)) {
    let failed: Vec<&str> = images
        .iter()
        .filter(|image| catch_unwind(AssertUnwindSafe(|| test(image))).is_err())
        .map(|image| image.file.as_str())
        .collect();
    assert!(failed.is_empty(), "failed for {} of {}: {failed:?}", failed.len(), images.len());
}

fn images_in(testdata: &Path, format: &str) -> Vec<GoldenFile> {
    let path = testdata.join("manifest.json");
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let manifest: Manifest =
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut found = Vec::new();
    for mut file in manifest.files {
        file.testdata = testdata.to_owned();
        if file.format == format && file.is_image() {
            let sha256 =
                digest::of_file(file.path()).unwrap_or_else(|e| panic!("{}: {e}", file.file));
            assert_eq!(sha256, file.file_sha256, "{} is not what the manifest says", file.file);
            found.push(file);
        }
    }
    assert!(!found.is_empty(), "{} has no {format} images", path.display());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn testdata_with(sha256: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let manifest = format!(
            r#"{{"tools": {{}}, "files": [
                {{"file": "a.raw", "format": "raw", "about": "x", "commands": [],
                  "file_sha256": "{sha256}", "virtual_size_bytes": 3, "guest_sha256": "{sha256}"}},
                {{"file": "b.dat", "format": "raw", "about": "x", "commands": [],
                  "file_sha256": ""}}
            ]}}"#
        );
        std::fs::write(dir.path().join("manifest.json"), manifest).unwrap();
        std::fs::write(dir.path().join("a.raw"), "abc").unwrap();
        dir
    }

    #[test]
    fn images_are_found_and_checked() {
        let dir = testdata_with(&digest::of_bytes(b"abc"));
        let images = images_in(dir.path(), "raw");
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].path(), dir.path().join("a.raw"));
        assert_eq!(images[0].virtual_size_bytes, Some(3));
    }

    #[test]
    #[should_panic(expected = "a.raw is not what the manifest says")]
    fn a_changed_file_is_a_failure() {
        images_in(testdata_with("00").path(), "raw");
    }

    #[test]
    #[should_panic(expected = "has no qcow2 images")]
    fn no_images_are_a_failure() {
        images_in(testdata_with(&digest::of_bytes(b"abc")).path(), "qcow2");
    }

    #[test]
    #[should_panic(expected = "failed for 1 of 1: [\"a.raw\"]")]
    fn failures_are_named() {
        let dir = testdata_with(&digest::of_bytes(b"abc"));
        each_of(&images_in(dir.path(), "raw"), |image| assert_eq!(image.format, "qcow2"));
    }
}
