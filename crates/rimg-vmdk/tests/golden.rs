//! Every VMDK image of `testdata/` reads as its manifest says, or is refused as it says.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::open_in;
use rimg_core::{BlockImage, Result};
use rimg_testkit::golden::GoldenFile;
use rimg_testkit::{digest, golden};
use std::error::Error as _;

#[test]
fn images_read_as_the_manifest_says() {
    golden::for_each("vmdk", |golden| match (&golden.refused, open(golden)) {
        (None, Ok(image)) => {
            assert_eq!(Some(image.size_bytes()), golden.virtual_size_bytes, "{}", golden.file);
            let found = digest::of_guest(image.as_ref()).unwrap();
            assert_eq!(Some(found), golden.guest_sha256, "{}", golden.file);
        }
        (Some(refused), Err(error)) => {
            let source = error.source().map(ToString::to_string).unwrap_or_default();
            let text = format!("{error:?}: {error}: {source}");
            assert!(text.starts_with(&refused.error), "{}: {text}", golden.file);
            assert!(text.contains(&refused.says), "{}: {text}", golden.file);
        }
        (Some(_), Ok(_)) => panic!("{}: opened", golden.file),
        (None, Err(error)) => panic!("{}: {error:?}", golden.file),
    });
}

fn open(golden: &GoldenFile) -> Result<Box<dyn BlockImage>> {
    let path = golden.path();
    open_in(path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap(), false)
}
