//! Every LUKS image of `testdata/` reads as its manifest says, and only with its passphrase.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::{InfoValue, RawOptions};
use rimg_testkit::{MemoryDir, MemoryStorage, digest, golden};
use std::fs;
use std::sync::Arc;

#[test]
fn images_read_as_the_manifest_says() {
    golden::for_each("luks", |golden| {
        let dir = MemoryDir::new(DRIVERS);
        dir.put("disk", Arc::new(MemoryStorage::from(fs::read(golden.path()).unwrap())));
        let passphrase = golden.passphrase.as_deref().unwrap();
        let key = RawOptions::new().with("key-secret", "s").with_secret("s", passphrase.into());
        let image = dir.open_with("disk", "luks", false, &key).unwrap();
        assert_eq!(Some(image.size_bytes()), golden.virtual_size_bytes, "{}", golden.file);
        let guest = digest::of_guest(image.as_ref()).unwrap();
        assert_eq!(Some(guest), golden.guest_sha256, "{}", golden.file);
        let info = image.info().unwrap();
        assert!(info.encrypted && info.format == "luks");
        let detached = ("detached-header", InfoValue::Bool(false));
        assert!(info.specific.contains(&detached), "{:?}", info.specific);
        let wrong = key.with_secret("s", "wrong".into());
        let error = dir.open_with("disk", "luks", false, &wrong).unwrap_err();
        assert_eq!(error.to_string(), "Invalid password, cannot unlock any keyslot");
    });
}
