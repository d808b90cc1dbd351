//! Both directions with qemu-img and qemu-io.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::{BlockImage, Preallocation, RawOptions, Storage};
use rimg_storage::{FileOptions, FileStorage};
use rimg_testkit::MemoryDir;
use rimg_testkit::peer::Peer;
use std::path::Path;
use std::sync::Arc;

const FORMAT: &str = "vdi";
const OPTIONS: &[&[(&str, &str)]] = &[&[], &[("static", "on")]];
const SIZES: &[u64] = &[0, 1, 511, 512, 513, 1 << 20, (1 << 20) + 1, 100_000_000];
const LARGE: u64 = 3 << 30;

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
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let their_name = theirs.to_str().unwrap();
    for options in OPTIONS {
        for size in SIZES {
            let _ = (std::fs::remove_file(&ours), std::fs::remove_file(&theirs));
            create(&ours, *size, options);
            let mut args =
                vec!["create".to_owned(), "-q".to_owned(), "-f".to_owned(), FORMAT.to_owned()];
            for (name, value) in *options {
                args.extend(["-o".to_owned(), format!("{name}={value}")]);
            }
            args.extend([their_name.to_owned(), size.to_string()]);
            qemu_img.ok(args.iter().map(String::as_str));
            let masked = |path: &Path| {
                let mut bytes = std::fs::read(path).unwrap();
                mask(&mut bytes);
                bytes
            };
            assert!(masked(&ours) == masked(&theirs), "{size} {options:?}");
        }
    }
}

#[test]
fn qemu_io_goes_on_with_images_that_were_written_and_resized() {
    let Some(qemu_io) = Peer::qemu_io() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (nth, options) in OPTIONS.iter().enumerate() {
        let path = dir.path().join(nth.to_string());
        let name = path.to_str().unwrap();
        create(&path, 10 << 20, options);
        let image = open(&path);
        image.writer().unwrap().write_at(&[1; 70_000], 3 << 20).unwrap();
        image.writer().unwrap().write_at(&[2; 512], (9 << 20) + 512).unwrap();
        image.writer().unwrap().write_zeroes_at((3 << 20)..(3 << 20) + 5000).unwrap();
        // Much more: tables have to move.
        image.resizer().unwrap().resize(LARGE, Preallocation::Off).unwrap();
        image.writer().unwrap().write_at(&[3; 4096], LARGE - 4096).unwrap();
        image.close().unwrap();
        let at_end = format!("read -P 3 {} 4096", LARGE - 4096);
        let write = format!("write -P 4 {} 100k", LARGE / 2);
        let out = qemu_io.ok([
            "-f",
            FORMAT,
            "-c",
            "read -P 0 3M 5000",
            "-c",
            "read -P 1 3150728 65000",
            "-c",
            "read -P 2 9437696 512",
            "-c",
            &at_end,
            "-c",
            &write,
            name,
        ]);
        assert!(!out.contains("verification failed"), "{options:?}: {out}");

        let image = open(&path);
        let mut seen = vec![0; 100 << 10];
        image.read_at(&mut seen, LARGE / 2).unwrap();
        assert!(seen.iter().all(|byte| *byte == 4), "{options:?}");
        image.resizer().unwrap().resize(4 << 20, Preallocation::Off).unwrap();
        image.close().unwrap();
        let out = qemu_io.ok([
            "-f",
            FORMAT,
            "-c",
            "read -P 1 3150728 65000",
            "-c",
            "write -P 5 0 1M",
            "-c",
            "read -P 5 0 1M",
            "-c",
            "read -P 0 3M 5000",
            name,
        ]);
        assert!(!out.contains("verification failed"), "{options:?}: {out}");
        let image = open(&path);
        let checker = image.checker().unwrap();
        let summary = checker.check(rimg_core::Repair::Nothing, &mut |_| {}).unwrap();
        assert_eq!((summary.corruptions, summary.leaks), (0, 0));
        image.close().unwrap();
        if let Some(qemu_img) = Peer::qemu_img() {
            qemu_img.ok(["check", "-q", "-f", FORMAT, name]);
        }
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
