//! Both directions with qemu-img and qemu-io.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::{BlockImage, RawOptions, Storage};
use rimg_storage::{FileOptions, FileStorage};
use rimg_testkit::MemoryDir;
use rimg_testkit::drill::{Drill, Qemu};
use rimg_testkit::peer::Peer;
use std::path::Path;
use std::sync::Arc;

const FORMAT: &str = "vdi";
const OPTIONS: &[&[(&str, &str)]] = &[&[], &[("static", "on")]];
const SIZES: &[u64] = &[0, 1, 511, 512, 513, 1 << 20, (1 << 20) + 1, 100_000_000];

/// UUIDs are random.
fn mask(bytes: &mut [u8]) {
    bytes[392..424].fill(0);
}

/// Opens files of the file system under the names of a folder in memory.
fn with_file(path: &Path) -> MemoryDir {
    let dir = MemoryDir::new(DRIVERS);
    let options = if path.exists() { FileOptions::write() } else { FileOptions::create() };
    let file: Arc<dyn Storage> = Arc::new(FileStorage::open(path, options).unwrap());
    dir.put("disk", file);
    dir
}

fn open(path: &Path) -> Box<dyn BlockImage> {
    with_file(path).open("disk", FORMAT, true).unwrap()
}

fn create(path: &Path, size: u64, options: &[(&str, &str)]) {
    let options =
        options.iter().fold(RawOptions::new(), |all, (name, value)| all.with(*name, *value));
    with_file(path).create("disk", FORMAT, size, &options).unwrap();
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
    let qemu = Qemu { checks: true, zeroes: true };
    for options in OPTIONS {
        Drill::new(DRIVERS, 10 << 20).with_all(options).qemu_goes_on_when_tables_moved(qemu);
    }
}

/// It knows discarded blocks, and images of VirtualBox in general.
#[test]
fn seven_zip_reads_what_was_written() {
    let Some(seven_zip) = Peer::require("7zz") else { return };
    let folder = tempfile::tempdir().unwrap();
    for (nth, options) in OPTIONS.iter().enumerate() {
        let path = folder.path().join(format!("{nth}.vdi"));
        create(&path, 5 << 20, options);
        let mut disk = vec![0; 5 << 20];
        let image = open(&path);
        for (at, len, byte) in [(0, 70_000, 1), ((2 << 20) - 512, 1024, 2), ((5 << 20) - 1, 1, 3)] {
            disk[at..at + len].fill(byte);
            let at = u64::try_from(at).unwrap();
            image.writer().unwrap().write_at(&vec![byte; len], at).unwrap();
        }
        image.close().unwrap();
        let args = ["e", "-so", "-tVDI", path.to_str().unwrap()];
        let outcome = seven_zip.command(args).output().unwrap();
        assert!(outcome.status.success(), "{options:?}: {outcome:?}");
        assert!(outcome.stdout == disk, "{options:?}");
    }
}
