//! Snapshots, taken turns at by both programs.

use crate::folder::{Folder, folder, options};
use rimg_core::{
    BlockImage, FormatDriver as _, NewSnapshot, OpenOptions, Preallocation, RawOptions,
    SnapshotSelector,
};
use rimg_qcow2::DRIVER;
use rimg_storage::FileOptions;
use rimg_testkit::guest::GuestContents;
use rimg_testkit::peer::Peer;

const MIB: u64 = 1 << 20;

/// Options, and the size of the disk.
const IMAGES: &[(&str, u64)] = &[
    ("", 5 * MIB + 512),
    ("compat=0.10", 5 * MIB),
    ("cluster_size=512", 3 * MIB),
    ("cluster_size=512,refcount_bits=64", 3 * MIB),
    ("cluster_size=4096,refcount_bits=4", 5 * MIB),
    ("cluster_size=2097152", 9 * MIB),
    ("extended_l2=on", 5 * MIB),
    ("extended_l2=on,cluster_size=16384,refcount_bits=32", 5 * MIB),
    ("preallocation=metadata", 5 * MIB),
];

/// Whoever does it, the disks are the same and every check is clean.
#[test]
fn snapshots_are_taken_turns_at() {
    let (Some(qemu), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let (dir, folder) = folder();
    let (qemu, io) = (qemu.in_dir(&dir), io.in_dir(&dir));
    for ((line, size), seed) in IMAGES.iter().zip(0..) {
        let states: Vec<GuestContents> = (0..4)
            .map(|n| GuestContents::with_segments_up_to(seed * 10 + n, *size, 100 << 10))
            .collect();
        folder.create("r", *size, &options(line)).unwrap();
        for (n, state) in states.iter().enumerate() {
            write(&folder, |image| {
                // Holes are not written, and not to show the state before.
                image.writer().unwrap().write_zeroes_at(0..*size).unwrap();
                state.write_to(image.writer().unwrap()).unwrap();
            });
            state.write_file(folder.path(&format!("wanted{n}"))).unwrap();
            if n % 2 == 0 {
                write(&folder, |image| take(image, &format!("s{n}")));
            } else {
                qemu.ok(["snapshot", "-c", &format!("s{n}"), "r"]);
            }
            assert_clean(&qemu, line);
        }
        for n in 0..states.len() {
            let (name, wanted) = (format!("snapshot.name=s{n}"), format!("wanted{n}"));
            qemu.ok(["convert", "-O", "raw", "-l", &name, "r", "out"]);
            assert_same(&qemu, "raw", "out", &wanted, line);
        }
        for (n, with_qemu) in [(1, false), (0, true), (3, false), (2, true)] {
            if with_qemu {
                qemu.ok(["snapshot", "-a", &format!("s{n}"), "r"]);
            } else {
                write(&folder, |image| apply(image, &format!("s{n}")));
            }
            assert_clean(&qemu, line);
            assert_same(&qemu, "qcow2", "r", &format!("wanted{n}"), line);
            // Somebody goes on writing: no snapshot may notice.
            io.ok(["-c", "write -P 7 64k 100k", "-c", "write -P 8 1M 70k", "r"]);
            assert_clean(&qemu, line);
        }
        for (n, with_qemu) in [(2, false), (0, true), (1, false)] {
            if with_qemu {
                qemu.ok(["snapshot", "-d", &format!("s{n}"), "r"]);
            } else {
                write(&folder, |image| delete(image, &format!("s{n}")));
            }
            assert_clean(&qemu, line);
            qemu.ok(["convert", "-O", "raw", "-l", "snapshot.name=s3", "r", "out"]);
            assert_same(&qemu, "raw", "out", "wanted3", line);
            io.ok(["-c", "write -P 9 128k 100k", "-c", "read -P 9 128k 100k", "r"]);
        }
        write(&folder, |image| delete(image, "s3"));
        assert_clean(&qemu, line);
        assert_eq!(qemu.ok(["snapshot", "-l", "r"]), "", "{line}");
    }
}

/// The flags have to be right while the image stays open, not only when it is opened again.
#[test]
fn writing_goes_on_in_the_same_session() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let (dir, folder) = folder();
    let qemu = qemu.in_dir(&dir);
    for (line, size) in IMAGES {
        folder.create("r", *size, &options(line)).unwrap();
        write(&folder, |image| {
            let put = |byte: u8, at: u64| {
                image.writer().unwrap().write_at(&[byte; 70_000], at).unwrap();
            };
            put(1, 0);
            put(1, MIB);
            take(image, "one");
            put(2, 0);
            take(image, "two");
            put(3, 0);
            put(3, 2 * MIB);
            apply(image, "one");
            put(4, MIB);
            delete(image, "two");
            put(5, 2 * MIB);
            delete(image, "one");
            put(6, 0);
        });
        assert_clean(&qemu, line);
        let Some(io) = Peer::qemu_io() else { return };
        let read = io.in_dir(&dir).ok([
            "-c",
            "read -P 6 0 70000",
            "-c",
            "read -P 4 1M 70000",
            "-c",
            "read -P 5 2M 70000",
            "r",
        ]);
        assert!(!read.contains("verification failed"), "{line}: {read}");
    }
}

#[test]
fn shrunk_images_are_clean_and_grow_back_as_zeroes() {
    let (Some(qemu), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let (dir, folder) = folder();
    let (qemu, io) = (qemu.in_dir(&dir), io.in_dir(&dir));
    for (line, size) in IMAGES {
        folder.create("r", *size, &options(line)).unwrap();
        write(&folder, |image| {
            let whole = vec![7; usize::try_from(*size).unwrap()];
            image.writer().unwrap().write_at(&whole, 0).unwrap();
            image.resizer().unwrap().resize(MIB + 512, Preallocation::Off).unwrap();
        });
        assert_clean(&qemu, line);
        write(&folder, |image| {
            image.resizer().unwrap().resize(*size, Preallocation::Off).unwrap();
        });
        assert_clean(&qemu, line);
        let rest = format!("read -P 0 1049088 {}", size - MIB - 512);
        let read = io.ok(["-c", "read -P 7 0 1049088", "-c", &rest, "r"]);
        assert!(!read.contains("verification failed"), "{line}: {read}");
    }
}

#[test]
fn amended_images_are_clean_and_identical() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let (dir, folder) = folder();
    let qemu = qemu.in_dir(&dir);
    for (line, changes) in [
        ("", &["compat=0.10", "compat=1.1", "refcount_bits=1", "refcount_bits=64"][..]),
        (
            "cluster_size=512",
            &["refcount_bits=64", "refcount_bits=8", "compat=0.10,refcount_bits=16"],
        ),
        (
            "cluster_size=4096,refcount_bits=1",
            &["refcount_bits=16,lazy_refcounts=on", "compat=0.10"],
        ),
        ("compat=0.10", &["compat=1.1,refcount_bits=32,size=6291456", "lazy_refcounts=on"]),
        ("backing_file=base,backing_fmt=raw", &["compat=0.10", "compat=1.1"]),
    ] {
        std::fs::write(folder.path("base"), vec![9; 3 << 20]).unwrap();
        let guest = GuestContents::with_segments_up_to(77, 5 * MIB, 200 << 10);
        folder.create("r", 5 * MIB, &options(line)).unwrap();
        write(&folder, |image| {
            let writer = image.writer().unwrap();
            writer.write_zeroes_at(0..5 * MIB).unwrap();
            guest.write_to(writer).unwrap();
            writer.write_zeroes_at(MIB..2 * MIB).unwrap();
        });
        qemu.ok(["convert", "-O", "raw", "r", "wanted"]);
        for change in changes {
            write(&folder, |image| {
                let options: RawOptions = options(change);
                image.amender().unwrap().amend(&options, false, &mut |_, _| {}).unwrap();
            });
            assert_clean(&qemu, &format!("{line} {change}"));
            let identical = qemu.run(["compare", "-F", "raw", "r", "wanted"]);
            assert_eq!(identical.status, Some(0), "{line} {change}: {identical:?}");
        }
    }
}

fn write(folder: &Folder, change: impl FnOnce(&dyn BlockImage)) {
    let file = folder.storage("r", FileOptions::write());
    let how = OpenOptions { writable: true, ..folder.how() };
    let image = DRIVER.open(file, &how).unwrap();
    change(image.as_ref());
    image.close().unwrap();
}

fn take(image: &dyn BlockImage, name: &str) {
    let new = NewSnapshot { name, date_seconds: 1, date_nanoseconds: 2 };
    image.snapshots().unwrap().editor().unwrap().create(&new).unwrap();
}

fn apply(image: &dyn BlockImage, name: &str) {
    let wanted = SnapshotSelector::IdOrName(name);
    assert!(image.snapshots().unwrap().editor().unwrap().apply(&wanted).unwrap());
}

fn delete(image: &dyn BlockImage, name: &str) {
    let wanted = SnapshotSelector::IdOrName(name);
    assert!(image.snapshots().unwrap().editor().unwrap().delete(&wanted).unwrap());
}

fn assert_clean(qemu: &Peer, what: &str) {
    let report = qemu.ok(["check", "r"]);
    assert!(report.starts_with("No errors were found on the image.\n"), "{what}: {report}");
}

fn assert_same(qemu: &Peer, format: &str, image: &str, wanted: &str, what: &str) {
    let identical = "Images are identical.\n";
    let report = qemu.run(["compare", "-f", format, "-F", "raw", image, wanted]);
    assert_eq!(report.stdout, identical, "{what}: {image} and {wanted}: {report:?}");
}
