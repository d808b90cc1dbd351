//! Images with wrong bytes: an error that says what is wrong, or a result.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::{Error, RawOptions, StorageWrite as _};
use rimg_testkit::drill::{Drill, MEMORY_BYTES};
use rimg_testkit::{MemoryDir, MemoryStorage, bounds};
use std::error::Error as _;
use std::sync::Arc;

fn kinds() -> [Drill; 2] {
    let small = Drill::new(DRIVERS, 64 << 10);
    [small.clone().with("block_size", "4096"), small.with("block_size", "512").with("static", "on")]
}

#[test]
fn any_byte_may_be_wrong() {
    bounds::under_memory_limit(MEMORY_BYTES, || {
        for kind in kinds() {
            assert!(kind.any_wrong_byte(50_000) > 1000);
        }
    });
}

#[test]
fn the_file_may_end_anywhere() {
    bounds::under_memory_limit(MEMORY_BYTES, || kinds().iter().for_each(Drill::any_missing_end));
}

#[test]
fn any_field_may_be_extreme() {
    bounds::under_memory_limit(MEMORY_BYTES, || kinds().iter().for_each(Drill::any_extreme_field));
}

/// A disk of 10 MiB with blocks 3, 5 and 9 written.
fn image() -> MemoryDir {
    let dir = MemoryDir::new(DRIVERS);
    dir.create("disk", "vdi", 10 << 20, RawOptions::NONE).unwrap();
    let image = dir.open("disk", "vdi", true).unwrap();
    for block in [3, 5, 9] {
        image.writer().unwrap().write_at(&[7; 1000], block << 20).unwrap();
    }
    image.close().unwrap();
    dir
}

fn patch(dir: &MemoryDir, at: u64, bytes: &[u8]) {
    dir.file("disk").writer().unwrap().write_all_at(bytes, at).unwrap();
}

fn refused(at: u64, bytes: &[u8], writable: bool) -> String {
    let dir = image();
    patch(&dir, at, bytes);
    let error = dir.open("disk", "vdi", writable).unwrap_err();
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn errors_name_structure_field_and_offset() {
    for (at, bytes, expected) in [
        (0x40, &b"x"[..], "image is not in vdi format"),
        (0x46, &[2], "unsupported vdi feature: version 2.1"),
        (0x48, &[8], "header, header_size at offset 0x48: header length 264 is not possible"),
        (0x4c, &[9], "header, image_type at offset 0x4c: image type 9 is unknown"),
        (
            0x154,
            &[0, 1],
            "header, offset_bmap at offset 0x154: block map at 0x100, with 0x28 \
          bytes, overlaps the header or the data at 0x400",
        ),
        (0x169, &[1], "header, sector_size at offset 0x168: sector size 256 is not 512"),
        (
            0x170,
            &[1],
            "header, disk_size at offset 0x170: disk size 10485761, block map has room \
          for 10485760",
        ),
        (
            0x178,
            &[1],
            "header, block_size at offset 0x178: block size 1048577 is not a power of \
          two from 512 bytes to 1 GiB",
        ),
        (
            0x17c,
            &[1],
            "header, block_extra at offset 0x17c: 1 bytes of extra data with each block \
          are not possible",
        ),
        (
            0x4c,
            &[4],
            "unsupported vdi feature: differencing image: it does not name its parent, \
          00000000-0000-0000-0000-000000000000; open it with the option 'parent'",
        ),
    ] {
        let said = refused(at, bytes, false);
        assert_eq!(said.trim_start_matches("vdi image is corrupt: "), expected);
    }
}

#[test]
fn what_cannot_be_written_safely_is_not_opened_for_writing() {
    assert_eq!(
        refused(0x200, &[1, 0, 0, 0], true),
        "vdi image is corrupt: block map, entry at offset 0x214: block 1 of the file is used twice"
    );
    assert_eq!(
        refused(0x224, &[9], true),
        "vdi image is corrupt: block map, entry at offset 0x224: block 9 of the file lies behind \
         its end"
    );
}

#[test]
fn blocks_behind_the_end_are_an_error_and_not_zeroes() {
    let dir = image();
    patch(&dir, 0x224, &[9]);
    let image = dir.open("disk", "vdi", false).unwrap();
    let mut buf = [0; 512];
    image.read_at(&mut buf, 5 << 20).unwrap();
    assert_eq!(buf, [7; 512]);
    assert!(matches!(image.read_at(&mut buf, 9 << 20), Err(Error::Corrupt { .. })));
}

#[test]
fn other_programs_are_never_led_to_write_over_a_block() {
    // The number of blocks in use is too small: the next one would be put on the last.
    let dir = image();
    patch(&dir, 0x184, &[1]);
    let image = dir.open("disk", "vdi", true).unwrap();
    image.writer().unwrap().write_at(&[8; 512], 0).unwrap();
    image.close().unwrap();
    let mut count = [0; 4];
    dir.file("disk").read_exact_at(&mut count, 0x184).unwrap();
    assert_eq!(count, [4, 0, 0, 0]);
}

#[test]
fn a_map_that_is_too_large_is_refused_before_memory_is_taken() {
    bounds::under_memory_limit(MEMORY_BYTES, || {
        let dir = image();
        patch(&dir, 0x158, &0xffff_fe00_u32.to_le_bytes());
        patch(&dir, 0x180, &0x3fff_0000_u32.to_le_bytes());
        let large = Arc::new(MemoryStorage::with_len(1 << 33));
        let mut header = [0; 512];
        dir.file("disk").read_exact_at(&mut header, 0).unwrap();
        large.write_all_at(&header, 0).unwrap();
        dir.put("disk", large);
        let error = dir.open("disk", "vdi", false).unwrap_err();
        assert!(matches!(error, Error::Limit { what: "block map", .. }), "{error}");
    });
}
