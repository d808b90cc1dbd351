//! Both directions with qemu-img and qemu-io.

mod common;

use common::DRIVERS;
use rimg_core::RawOptions;
use rimg_storage::{FileOptions, FileStorage};
use rimg_testkit::MemoryDir;
use rimg_testkit::drill::{Drill, Qemu};
use rimg_testkit::peer::Peer;
use std::sync::Arc;

const FORMAT: &str = "vpc";
const OPTIONS: &[&[(&str, &str)]] = &[
    &[],
    &[("force_size", "on")],
    &[("subformat", "fixed")],
    &[("subformat", "fixed"), ("force_size", "on")],
];
const SIZES: &[u64] = &[0, 1, 512, 34_816, 34_817, 1_000_001, 3 << 20, 100_000_000];

/// Times and UUIDs are what they are, and so are checksums.
fn mask(bytes: &mut [u8]) {
    for start in [0, bytes.len() - 512] {
        if bytes[start..].starts_with(b"conectix") {
            bytes[start + 24..start + 28].fill(0);
            bytes[start + 64..start + 84].fill(0);
        }
    }
}

#[test]
fn new_images_have_the_bytes_of_qemu_img() {
    for options in OPTIONS {
        for size in SIZES {
            Drill::new(DRIVERS, *size).with_all(options).made_as_by_qemu(mask);
        }
    }
}

#[test]
fn qemu_io_goes_on_with_images_that_were_written_and_resized() {
    let qemu = Qemu { checks: false, zeroes: true };
    for options in OPTIONS {
        Drill::new(DRIVERS, 10 << 20).with_all(options).qemu_goes_on_when_tables_moved(qemu);
    }
}

/// It reads differencing images, which QEMU does not.
#[test]
fn seven_zip_reads_what_was_written() {
    let Some(seven_zip) = Peer::require("7zz") else { return };
    let folder = tempfile::tempdir().unwrap();
    let extract = |name: &str| {
        let path = folder.path().join(name);
        let args = ["e", "-so", "-tVHD", path.to_str().unwrap()];
        let outcome = seven_zip.command(args).output().unwrap();
        assert!(outcome.status.success(), "{name}: {outcome:?}");
        outcome.stdout
    };
    let dir = MemoryDir::new(DRIVERS);
    let file = |name: &str| {
        let path = folder.path().join(name);
        let file = FileStorage::open(&path, FileOptions::create()).unwrap();
        dir.put(name, Arc::new(file));
    };
    let mut disk = vec![0; 5 << 20];
    let plain = RawOptions::new().with("force_size", "on");
    let over = |name| RawOptions::new().with("backing_file", name).with("backing_fmt", FORMAT);
    for (name, options) in [
        ("small-blocks.vhd", plain.clone().with("block_size", "4096")),
        ("fixed.vhd", plain.clone().with("subformat", "fixed")),
        ("dynamic.vhd", plain),
        ("child.vhd", over("dynamic.vhd")),
        ("grandchild.vhd", over("child.vhd")),
    ] {
        file(name);
        dir.create(name, FORMAT, 5 << 20, &options).unwrap();
        let image = dir.open(name, FORMAT, true).unwrap();
        if options.value("backing_file").is_none() {
            disk.fill(0);
        }
        let writes: &[(usize, usize, u8)] = match name {
            "child.vhd" => &[(100, 5000, 4)],
            "grandchild.vhd" => &[((4 << 20) + 7, 60_000, 5)],
            _ => &[(0, 70_000, 1), ((2 << 20) - 512, 1024, 2), ((5 << 20) - 1, 1, 3)],
        };
        for &(at, len, byte) in writes {
            disk[at..at + len].fill(byte);
            let at = u64::try_from(at).unwrap();
            image.writer().unwrap().write_at(&vec![byte; len], at).unwrap();
        }
        image.close().unwrap();
        assert!(extract(name) == disk, "{name}");
    }
}
