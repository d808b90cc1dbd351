//! Every VDI image of `testdata/` reads as its manifest says; and images that no program at hand
//! makes.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::{ExtentKind, RawOptions, StorageWrite as _};
use rimg_testkit::{MemoryDir, MemoryStorage, golden};
use std::error::Error as _;
use std::sync::Arc;

#[test]
fn images_read_as_the_manifest_says() {
    golden::read_all(&rimg_vdi::DRIVER);
}

/// A disk of four blocks of 4 KiB: 1s, 2s, nothing, nothing.
fn dir_with_base() -> MemoryDir {
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new().with("block_size", "4096");
    dir.create("base", "vdi", 16384, &options).unwrap();
    let image = dir.open("base", "vdi", true).unwrap();
    image.writer().unwrap().write_at(&[1; 4096], 0).unwrap();
    image.writer().unwrap().write_at(&[2; 4096], 4096).unwrap();
    image.close().unwrap();
    dir
}

/// An image over `base` that has nothing of its own, but its second block discarded.
fn add_child(dir: &MemoryDir, image_type: u8) {
    let options = RawOptions::new().with("block_size", "4096");
    dir.create("child", "vdi", 16384, &options).unwrap();
    let (base, child) = (dir.file("base"), dir.file("child"));
    let mut uuids = [0; 32];
    base.read_exact_at(&mut uuids, 0x188).unwrap();
    let child = child.writer().unwrap();
    child.write_all_at(&[image_type], 0x4c).unwrap();
    child.write_all_at(&uuids, 0x1a8).unwrap();
    child.write_all_at(&0xffff_fffe_u32.to_le_bytes(), 0x204).unwrap();
}

#[test]
fn differencing_and_undo_images_show_their_parent() {
    for image_type in [3, 4] {
        let dir = dir_with_base();
        add_child(&dir, image_type);
        let parent = RawOptions::new().with("parent", "base");
        let image = dir.open_with("child", "vdi", true, &parent).unwrap();
        let mut seen = vec![9; 16384];
        image.read_at(&mut seen, 0).unwrap();
        assert!(seen[..4096].iter().all(|byte| *byte == 1), "from the parent");
        assert!(seen[4096..].iter().all(|byte| *byte == 0), "discarded");
        assert_eq!(
            image.extent_at(0..16384).unwrap().kind,
            ExtentKind::Backing { allocation: None }
        );
        let discarded = image.extent_at(4096..16384).unwrap();
        assert_eq!(discarded.kind, ExtentKind::Zero { allocation: None });
        assert_eq!(discarded.len_bytes, 4096);

        // A block that is written in part gets the rest from the parent, zeroes hide it.
        image.writer().unwrap().write_at(&[3; 512], 512).unwrap();
        image.writer().unwrap().write_zeroes_at(0..512).unwrap();
        image.close().unwrap();
        let image = dir.open_with("child", "vdi", true, &parent).unwrap();
        image.read_at(&mut seen, 0).unwrap();
        assert!(seen[..512].iter().all(|byte| *byte == 0));
        assert!(seen[512..1024].iter().all(|byte| *byte == 3));
        assert!(seen[1024..4096].iter().all(|byte| *byte == 1));
    }
}

#[test]
fn another_parent_is_refused_and_so_is_none() {
    let dir = dir_with_base();
    add_child(&dir, 4);
    let other = RawOptions::new()
        .with("block_size", "4096")
        .with("uuid", "00112233-4455-6677-8899-aabbccddeeff");
    dir.create("other", "vdi", 16384, &other).unwrap();
    let parent = RawOptions::new().with("parent", "other");
    let error = dir.open_with("child", "vdi", false, &parent).unwrap_err();
    assert_eq!(error.to_string(), "could not open backing file 'other'");
    let reason = error.source().and_then(|error| error.source()).unwrap().to_string();
    assert!(
        reason.starts_with("parent's UUID is 00112233-4455-6677-8899-aabbccddeeff"),
        "{reason}"
    );
    let error = dir.open("child", "vdi", false).unwrap_err();
    assert!(error.to_string().contains("it does not name its parent"), "{error}");
}

#[test]
fn extra_data_with_blocks_is_skipped_and_kept() {
    let dir = dir_with_base();
    let mut plain = vec![0; usize::try_from(dir.file("base").len_bytes().unwrap()).unwrap()];
    dir.file("base").read_exact_at(&mut plain, 0).unwrap();
    let (header, blocks) = plain.split_at(1024);
    let mut bytes = header.to_vec();
    bytes[0x17c..0x180].copy_from_slice(&512_u32.to_le_bytes());
    for block in blocks.chunks(4096) {
        bytes.extend_from_slice(&[0xee; 512]);
        bytes.extend_from_slice(block);
    }
    let storage = Arc::new(MemoryStorage::new());
    storage.write_all_at(&bytes, 0).unwrap();
    dir.put("disk", storage);
    let image = dir.open("disk", "vdi", true).unwrap();
    image.writer().unwrap().write_at(&[3; 4096], 12288).unwrap();
    image.writer().unwrap().write_at(&[4; 1], 4096).unwrap();
    image.close().unwrap();
    let image = dir.open("disk", "vdi", false).unwrap();
    let mut seen = vec![9; 16384];
    image.read_at(&mut seen, 0).unwrap();
    assert_eq!((seen[4095], seen[4096], seen[4097], seen[12288], seen[16383]), (1, 4, 2, 3, 3));
    let mut extra = [0; 512];
    dir.file("disk").read_exact_at(&mut extra, 1024 + 4608).unwrap();
    assert_eq!(extra, [0xee; 512]);
}
