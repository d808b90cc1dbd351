//! What rimg writes is clean for `qemu-img check`, and reads as it was meant.

use crate::folder::{Folder, folder, options};
use rimg_core::{BlockImage, FormatDriver as _, OpenOptions, Preallocation};
use rimg_qcow2::DRIVER;
use rimg_storage::FileOptions;
use rimg_testkit::guest::{GuestContents, SegmentKind};
use rimg_testkit::peer::Peer;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

const MIB: u64 = 1 << 20;

/// Options, and the size of the disk.
const IMAGES: &[(&str, u64)] = &[
    ("", 5 * MIB + 512),
    ("compat=0.10", 5 * MIB),
    ("cluster_size=512", 2 * MIB),
    ("cluster_size=512,refcount_bits=64", 9 * MIB),
    ("cluster_size=1024,refcount_bits=64", 40 * MIB),
    ("cluster_size=4096,refcount_bits=1", 5 * MIB),
    ("cluster_size=2097152", 9 * MIB),
    ("lazy_refcounts=on,compression_type=zstd", 5 * MIB),
    ("extended_l2=on", 5 * MIB),
    ("extended_l2=on,cluster_size=16384,refcount_bits=32", 5 * MIB),
    ("data_file=d", 5 * MIB),
    ("data_file=d,data_file_raw=on", 5 * MIB + 512),
    ("backing_file=base,backing_fmt=raw", 5 * MIB),
    ("extended_l2=on,backing_file=base,backing_fmt=raw", 5 * MIB),
    ("preallocation=metadata", 5 * MIB),
    ("preallocation=falloc", 5 * MIB),
    ("preallocation=full,cluster_size=4096", 5 * MIB),
    ("preallocation=falloc,cluster_size=512,refcount_bits=64", 9 * MIB),
];

#[test]
fn written_images_are_clean_and_identical() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let (dir, folder) = folder();
    let qemu = qemu.in_dir(&dir);
    for ((line, size), seed) in IMAGES.iter().zip(0..) {
        let guest = GuestContents::with_segments_up_to(seed, *size, 200 << 10);
        guest.write_file(folder.path("wanted")).unwrap();
        // What is below shows only where nothing is written: in holes, which are zeroes.
        std::fs::File::create(folder.path("base")).unwrap().set_len(3 * MIB).unwrap();
        folder.create("r", *size, &options(line)).unwrap();
        write(&folder, |image| {
            // Twice, so that the second time clusters are written in place.
            for _ in 0..2 {
                guest.write_to(image.writer().unwrap()).unwrap();
            }
        });
        assert_clean(&qemu, line);
        let identical = "Images are identical.\n";
        assert_eq!(qemu.ok(["compare", "-F", "raw", "r", "wanted"]), identical, "{line}");
    }
}

#[test]
fn compressed_images_are_clean_and_identical() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let (dir, folder) = folder();
    let qemu = qemu.in_dir(&dir);
    for (line, seed) in [
        "",
        "compression_type=zstd",
        "cluster_size=512",
        "cluster_size=2097152",
        "compat=0.10,cluster_size=4096",
        "refcount_bits=64,cluster_size=16384",
        "extended_l2=on",
    ]
    .iter()
    .zip(100..)
    {
        let guest = GuestContents::new(seed, 4 * MIB + 1024);
        guest.write_file(folder.path("wanted")).unwrap();
        folder.create("r", guest.size_bytes(), &options(line)).unwrap();
        write(&folder, |image| {
            let compressor = image.compressor().unwrap();
            let cluster = u64::from(compressor.cluster_bytes());
            let mut at = 0;
            while at < guest.size_bytes() {
                let end = (at + cluster).min(guest.size_bytes());
                compressor.write_compressed_at(&guest.read(at..end), at).unwrap();
                at = end;
            }
            // Some are overwritten plainly.
            for segment in guest.segments().iter().filter(|s| s.kind == SegmentKind::Data).take(3) {
                let bytes = guest.read(segment.range.clone());
                image.writer().unwrap().write_at(&bytes, segment.range.start).unwrap();
            }
        });
        assert_clean(&qemu, line);
        let identical = "Images are identical.\n";
        assert_eq!(qemu.ok(["compare", "-F", "raw", "r", "wanted"]), identical, "{line}");
    }
}

#[test]
fn grown_images_are_clean() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let (dir, folder) = folder();
    let qemu = qemu.in_dir(&dir);
    let modes =
        [Preallocation::Off, Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full];
    for line in ["", "cluster_size=512", "cluster_size=1024,refcount_bits=64", "extended_l2=on"] {
        for mode in modes {
            folder.create("r", MIB + 512, &options(line)).unwrap();
            write(&folder, |image| {
                image.writer().unwrap().write_at(&[7; 5000], 1000).unwrap();
                image.resizer().unwrap().resize(6 * MIB, mode).unwrap();
                image.writer().unwrap().write_at(&[7; 5000], 5 * MIB).unwrap();
            });
            assert_clean(&qemu, &format!("{line} {mode:?}"));
            let pattern = "read -P 7 5242880 5000";
            let Some(io) = Peer::qemu_io() else { return };
            let read = io.in_dir(&dir).ok(["-c", "read -P 7 1000 5000", "-c", pattern, "r"]);
            assert!(!read.contains("verification failed"), "{line} {mode:?}: {read}");
        }
    }
}

#[test]
fn the_rest_of_a_cluster_that_was_cut_is_reserved_as_well() {
    let (dir, folder) = folder();
    let blocks = || fs::metadata(dir.path().join("r")).unwrap().blocks();
    // The last cluster has its place, and nothing there: a disk that is made to end within it would.
    folder.create("r", 128 << 10, &options("preallocation=metadata")).unwrap();
    write(&folder, |image| {
        image.resizer().unwrap().resize(100 << 10, Preallocation::Off).unwrap();
    });
    let unreserved = blocks();
    write(&folder, |image| {
        image.resizer().unwrap().resize(120 << 10, Preallocation::Falloc).unwrap();
    });
    let reserved = blocks();
    assert!(reserved >= unreserved + 40, "{unreserved} {reserved}");
    write(&folder, |image| {
        image.writer().unwrap().write_at(&[9; 20 << 10], 100 << 10).unwrap();
    });
    assert_eq!(blocks(), reserved);
}

fn write(folder: &Folder, change: impl FnOnce(&dyn BlockImage)) {
    let file = folder.storage("r", FileOptions::write());
    let how = OpenOptions { writable: true, ..folder.how() };
    let image = DRIVER.open(file, &how).unwrap();
    change(image.as_ref());
    image.close().unwrap();
}

fn assert_clean(qemu: &Peer, what: &str) {
    let report = qemu.ok(["check", "r"]);
    assert!(report.starts_with("No errors were found on the image.\n"), "{what}: {report}");
}
