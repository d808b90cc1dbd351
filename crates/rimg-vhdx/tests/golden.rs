//! Every VHDX image of `testdata/` reads as its manifest says.

use rimg_core::FormatDriver;
use rimg_storage::{FileOptions, FileStorage};
use rimg_testkit::{MemoryDir, digest, golden};
use std::sync::Arc;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_vhdx::DRIVER];

#[test]
fn images_read_as_the_manifest_says() {
    golden::for_each("vhdx", |golden| {
        let file = FileStorage::open(golden.path(), FileOptions::read()).unwrap();
        let dir = MemoryDir::new(DRIVERS);
        dir.put("disk", Arc::new(file));
        let image = dir.open("disk", "vhdx", false).unwrap();
        assert_eq!(Some(image.size_bytes()), golden.virtual_size_bytes, "{}", golden.file);
        let guest = digest::of_guest(image.as_ref()).unwrap();
        assert_eq!(Some(guest), golden.guest_sha256, "{}", golden.file);
    });
}
