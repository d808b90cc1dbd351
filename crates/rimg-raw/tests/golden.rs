//! Every raw image of `testdata/` reads as its manifest says.

use rimg_core::{
    BlockImage, Dependency, DependencyGate, Error, FormatDriver as _, Limits, OpenOptions,
    RawOptions, Result, Storage,
};
use rimg_raw::DRIVER;
use rimg_storage::{FileOptions, FileStorage};
use rimg_testkit::{digest, golden};
use std::sync::Arc;

#[test]
fn images_read_as_the_manifest_says() {
    golden::for_each("raw", |golden| {
        let file = FileStorage::open(golden.path(), FileOptions::read()).unwrap();
        let how = OpenOptions {
            writable: false,
            inspect_only: false,
            limits: Limits::default(),
            gate: &Nothing,
            options: RawOptions::NONE,
        };
        let image = DRIVER.open(Arc::new(file), &how).unwrap();
        assert_eq!(Some(image.size_bytes()), golden.virtual_size_bytes, "{}", golden.file);
        let guest = digest::of_guest(image.as_ref()).unwrap();
        assert_eq!(Some(guest), golden.guest_sha256, "{}", golden.file);
    });
}

/// A raw image names no other file.
struct Nothing;

impl DependencyGate for Nothing {
    fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        Err(Error::Denied(wanted.name.to_owned()))
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        Err(Error::Denied(wanted.name.to_owned()))
    }
}
