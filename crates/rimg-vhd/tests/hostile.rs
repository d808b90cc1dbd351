//! Images with wrong bytes: an error that says what is wrong, or a result.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::{Error, RawOptions, Repair, StorageWrite as _};
use rimg_testkit::drill::{Drill, MEMORY_BYTES};
use rimg_testkit::{MemoryDir, MemoryStorage, bounds};
use std::error::Error as _;
use std::sync::Arc;

fn kinds() -> [Drill; 3] {
    let small = Drill::new(DRIVERS, 64 << 10);
    [
        small.clone().with("block_size", "4096"),
        small.clone().with("subformat", "fixed"),
        small.with("block_size", "4096").over_own_format(40 << 10),
    ]
}

#[test]
fn any_byte_may_be_wrong() {
    bounds::under_memory_limit(MEMORY_BYTES, || {
        let [dynamic, fixed, differencing] = kinds();
        assert!(dynamic.any_wrong_byte(85_000) > 1000);
        // Nobody lets such an image have its parent.
        assert_eq!(differencing.any_wrong_byte(10_000), 0);
        // The checksum guards all that there is.
        assert_eq!(fixed.any_wrong_byte(5_000), 0);
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

/// A disk of 10 MiB with blocks 1 and 3 of 2 MiB written.
fn image() -> MemoryDir {
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new().with("force_size", "on");
    dir.create("disk", "vpc", 10 << 20, &options).unwrap();
    let image = dir.open("disk", "vpc", true).unwrap();
    for block in [1, 3] {
        image.writer().unwrap().write_at(&[7; 1000], block << 21).unwrap();
    }
    image.close().unwrap();
    dir
}

fn patch(dir: &MemoryDir, at: u64, bytes: &[u8]) {
    dir.file("disk").writer().unwrap().write_all_at(bytes, at).unwrap();
}

/// Makes the checksums of both headers right again.
fn sign(dir: &MemoryDir) {
    for (start, len, checksum) in [(0, 512, 64), (512, 1024, 36)] {
        let mut bytes = vec![0; len];
        dir.file("disk").read_exact_at(&mut bytes, start).unwrap();
        bytes[checksum..checksum + 4].fill(0);
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        patch(dir, start + u64::try_from(checksum).unwrap(), &(!sum).to_be_bytes());
    }
}

fn said(error: &Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn errors_name_structure_field_and_offset() {
    for (at, bytes, expected) in [
        (12, &[9][..], "footer, version at offset 0xc: version 0x9010000 is unknown"),
        (63, &[9], "footer, disk_type at offset 0x3c: disk type 9 is unknown"),
        (22, &[0], "footer, data_offset at offset 0x10: offset 0x0 is inside the image's header"),
        (
            512,
            b"x",
            "dynamic disk header, cookie at offset 0x200: it does not start with its \
          cookie",
        ),
        (536, &[9], "dynamic disk header, version at offset 0x218: version 0x9010000 is unknown"),
        (
            543,
            &[1],
            "dynamic disk header, max_table_entries at offset 0x21c: 1 entries are too \
          few: 5 are needed",
        ),
        (
            547,
            &[1],
            "dynamic disk header, block_size at offset 0x220: block size 2097153 is not a \
          power of two from 512 bytes to 1 GiB",
        ),
        (
            534,
            &[0],
            "dynamic disk header, table_offset at offset 0x210: offset 0x0 is inside the \
          image's header",
        ),
        (
            528,
            &[9],
            "block allocation table, entries at offset 0x900000000000600: the file ends \
          within it",
        ),
    ] {
        let dir = image();
        patch(&dir, at, bytes);
        sign(&dir);
        // The other footer must not help.
        let len = dir.file("disk").len_bytes().unwrap();
        patch(&dir, len - 512, &[0; 512]);
        let error = dir.open("disk", "vpc", false).unwrap_err();
        assert_eq!(said(&error).trim_start_matches("vpc image is corrupt: "), expected);
    }
}

#[test]
fn checksums_are_verified() {
    let dir = image();
    patch(&dir, 700, &[1]);
    let error = dir.open("disk", "vpc", false).unwrap_err();
    assert!(said(&error).contains("dynamic disk header, checksum at offset 0x224"), "{error}");
}

#[test]
fn each_footer_stands_in_for_the_other() {
    for at_start in [true, false] {
        let dir = image();
        let len = dir.file("disk").len_bytes().unwrap();
        patch(&dir, if at_start { 0 } else { len - 512 }, &[0; 512]);
        let image = dir.open("disk", "vpc", true).unwrap();
        let mut seen = [0; 1000];
        image.read_at(&mut seen, 2 << 20).unwrap();
        assert_eq!(seen, [7; 1000]);
        let mut findings = Vec::new();
        let checker = image.checker().unwrap();
        let mut note = |finding: &rimg_core::Finding| findings.push(finding.message.clone());
        let summary = checker.check(Repair::Leaks, &mut note).unwrap();
        assert_eq!((summary.leaks, summary.leaks_fixed), (0, 1));
        let side = if at_start { "start" } else { "end" };
        assert_eq!(findings, [format!("Footer at the {side} of the file is missing or another")]);
        image.close().unwrap();
        let image = dir.open("disk", "vpc", false).unwrap();
        let summary = image.checker().unwrap().check(Repair::Nothing, &mut |_| {}).unwrap();
        assert_eq!(summary.leaks, 0);
    }
}

#[test]
fn what_cannot_be_written_safely_is_not_opened_for_writing_but_repaired() {
    for (entry, what) in [
        (4_u32, "the block at sector 0x4 overlaps another or a table"),
        (5, "the block at sector 0x5 overlaps another or a table"),
        (0, "the block at sector 0x0 overlaps another or a table"),
        (0x4000, "the block at sector 0x4000 lies behind the end of the file"),
    ] {
        let dir = image();
        patch(&dir, 1536, &entry.to_be_bytes());
        let error = dir.open("disk", "vpc", true).unwrap_err();
        assert!(said(&error).ends_with(what), "{}", said(&error));
        let how = rimg_core::OpenOptions {
            writable: true,
            inspect_only: true,
            limits: rimg_core::Limits::default(),
            gate: &dir,
            options: RawOptions::NONE,
        };
        let image = DRIVERS[0].open(dir.file("disk"), &how).unwrap();
        let summary = image.checker().unwrap().check(Repair::All, &mut |_| {}).unwrap();
        assert!(summary.corruptions_fixed > 0 && summary.corruptions == 0);
        image.close().unwrap();
        let image = dir.open("disk", "vpc", true).unwrap();
        let mut seen = [0; 1000];
        image.read_at(&mut seen, 6 << 20).unwrap();
        assert_eq!(seen, [7; 1000]);
        image.close().unwrap();
        let image = dir.open("disk", "vpc", false).unwrap();
        let summary = image.checker().unwrap().check(Repair::Nothing, &mut |_| {}).unwrap();
        assert_eq!((summary.corruptions, summary.leaks), (0, 0), "{what}");
    }
}

#[test]
fn blocks_behind_the_end_are_an_error_and_not_zeroes() {
    let dir = image();
    patch(&dir, 1536, &0x4000_u32.to_be_bytes());
    let image = dir.open("disk", "vpc", false).unwrap();
    let mut buf = [0; 512];
    image.read_at(&mut buf, 2 << 20).unwrap();
    assert!(matches!(image.read_at(&mut buf, 0), Err(Error::Corrupt { .. })));
}

#[test]
fn a_table_that_is_too_large_is_refused_before_memory_is_taken() {
    bounds::under_memory_limit(MEMORY_BYTES, || {
        let dir = image();
        patch(&dir, 540, &0x1fff_0000_u32.to_be_bytes());
        sign(&dir);
        let large = Arc::new(MemoryStorage::with_len(1 << 33));
        let mut headers = [0; 1536];
        dir.file("disk").read_exact_at(&mut headers, 0).unwrap();
        large.write_all_at(&headers, 0).unwrap();
        dir.put("disk", large);
        let error = dir.open("disk", "vpc", false).unwrap_err();
        assert!(matches!(error, Error::Limit { what: "block allocation table", .. }), "{error}");
        // More than any table has, whatever there is of memory.
        patch(&dir, 540, &0x3fff_0000_u32.to_be_bytes());
        sign(&dir);
        let error = dir.open("disk", "vpc", false).unwrap_err();
        let Error::Corrupt { at, .. } = error else { panic!("{error}") };
        assert_eq!((at.field, at.offset.0), ("max_table_entries", 540));
    });
}
