//! The table of the README is true.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::RawOptions;
use rimg_testkit::capability::{self, Kind};
use rimg_testkit::{MemoryDir, MemoryStorage};
use std::sync::Arc;

const SIZE: u64 = 64 << 10;

#[test]
fn the_readme_tells_the_truth() {
    let kinds = [
        Kind::created("dynamic", DRIVERS).with("block_size", "4096"),
        Kind::created("static", DRIVERS).with("static", "on").with("block_size", "4096"),
        differencing(),
    ];
    capability::hold_to_truth(include_str!("../README.md"), &kinds);
}

/// An image with two blocks over one that is full.
fn differencing() -> Kind {
    let dir = MemoryDir::new(DRIVERS);
    for name in ["base", "child"] {
        let options = RawOptions::new().with("block_size", "4096");
        dir.create(name, "vdi", SIZE, &options).unwrap();
    }
    let parent = RawOptions::new().with("parent", "base");
    let write = |name: &str, byte: u8, len: usize, options: &RawOptions| {
        let image = dir.open_with(name, "vdi", true, options).unwrap();
        image.writer().unwrap().write_at(&vec![byte; len], 0).unwrap();
        image.close().unwrap();
    };
    let bytes = |name: &str| {
        let file = dir.file(name);
        let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    write("base", 7, 64 << 10, RawOptions::NONE);
    let mut child = bytes("child");
    // Image type, and the parent's two UUIDs.
    child[0x4c] = 4;
    child[0x1a8..0x1c8].copy_from_slice(&bytes("base")[0x188..0x1a8]);
    dir.put("child", Arc::new(MemoryStorage::from(child)));
    write("child", 8, 8192, &parent);
    let mut disk = vec![7; 64 << 10];
    disk[..8192].fill(8);
    let files = [("child", bytes("child")), ("base", bytes("base"))];
    Kind::given("differencing", "vdi", DRIVERS, &files, disk).opened_with(parent)
}
