//! Archives for Compute Engine, unpacked by GNU tar.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg::{BlockImage, MemoryStorage, OpenedImage, Opener, StorageWrite};
use rimg_platform::{ArchiveError, inspect_archive, write_archive};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const GIB: u64 = 1 << 30;

/// A raw disk with a few bytes at each of these offsets.
fn disk(size: u64, data: &[u64]) -> OpenedImage {
    let storage = MemoryStorage::with_len(size);
    for (number, at) in (1_u8..).zip(data) {
        storage.write_all_at(&[number; 700], *at).unwrap();
    }
    Opener::new().format("raw").open_storage(Arc::new(storage)).unwrap()
}

fn archive(disk: &dyn BlockImage, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut last = 0;
    let mut progress = |at| {
        assert!(at >= last, "{at} after {last}");
        last = at;
    };
    let cancel = AtomicBool::new(false);
    write_archive(disk, size, 1_700_000_000, &mut bytes, &mut progress, &cancel).unwrap();
    assert_eq!(last, size);
    bytes
}

/// What GNU tar makes of an archive, in a folder.
fn unpack(archive: &[u8], folder: &Path) -> String {
    let file = folder.join("disk.tar.gz");
    std::fs::write(&file, archive).unwrap();
    let tar = |flags: &str| {
        let tar = Command::new("tar").arg(flags).arg(&file).arg("-C").arg(folder).output().unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        assert_eq!(String::from_utf8_lossy(&tar.stderr), "");
        String::from_utf8(tar.stdout).unwrap()
    };
    tar("-xzf");
    tar("-tvzf")
}

#[test]
fn tar_unpacks_the_disk_with_its_holes() {
    // More runs than the header and one more block list.
    let many: Vec<u64> = (0..60).map(|n| 4096 + n * (1 << 20)).collect();
    for (size, data, wanted) in [
        (3 << 20, &[0_u64, 1 << 20, (3 << 20) - 700][..], GIB),
        (64 << 20, &many, GIB),
        (GIB, &[GIB - 700], GIB),
        (5000, &[4000], GIB),
        (GIB, &[], GIB),
        // Numbers that are too large for octal.
        (9 * GIB, &[8 * GIB + 512], 9 * GIB),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(size, data);
        let list = unpack(&archive(&*disk, wanted), folder.path());
        assert!(list.contains(&format!(" {wanted} ")) && list.ends_with(" disk.raw\n"), "{list}");
        let unpacked = Opener::new().format("raw").open(folder.path().join("disk.raw")).unwrap();
        assert_eq!(unpacked.size_bytes(), wanted);
        for at in data.iter().flat_map(|at| [at.saturating_sub(4096), *at, *at + 4096]) {
            let read = |image: &dyn BlockImage| {
                let mut bytes = vec![0; 4096];
                let len = usize::try_from(image.size_bytes().saturating_sub(at)).unwrap();
                if len > 0 {
                    image.read_at(&mut bytes[..len.min(4096)], at).unwrap();
                }
                bytes
            };
            assert_eq!(read(&*disk), read(&*unpacked), "at {at} of {size}");
        }
        let runs = rimg::ChainExtents::new(&*unpacked).map(Result::unwrap);
        let stored: u64 = runs.filter(|run| !run.is_zero()).map(|run| run.len_bytes).sum();
        assert!(stored < 16 << 20, "{stored} bytes of {size}");
    }
}

#[test]
fn the_same_disk_gives_the_same_bytes() {
    let disk = disk(4 << 20, &[0, 2 << 20]);
    assert_eq!(archive(&*disk, GIB), archive(&*disk, GIB));
}

#[test]
fn a_disk_does_not_fit_into_less() {
    let disk = disk(4 << 20, &[]);
    let mut out = Vec::new();
    for wanted in [2 << 20, (4 << 20) + 1] {
        let result =
            write_archive(&*disk, wanted, 0, &mut out, &mut |_| (), &AtomicBool::new(false));
        assert!(
            matches!(result, Err(ArchiveError::TooSmall { wanted_bytes, .. }) if wanted_bytes == wanted)
        );
    }
    assert!(out.is_empty());
}

#[test]
fn who_has_seen_enough_is_not_made_to_wait() {
    let disk = disk(1 << 20, &[0]);
    let result =
        write_archive(&*disk, 1 << 20, 0, &mut Vec::new(), &mut |_| (), &AtomicBool::new(true));
    assert!(matches!(result, Err(ArchiveError::Cancelled)));
}

/// The rules that an archive breaks.
fn broken(archive: &[u8]) -> Vec<(&'static str, String)> {
    let verdicts = inspect_archive(&mut &archive[..]).unwrap();
    verdicts.into_iter().filter_map(|v| Some((v.rule, v.broken?))).collect()
}

#[test]
fn each_rule_is_named_when_it_is_broken() {
    let good = archive(&*disk(1 << 20, &[0, 512 << 10]), GIB);
    assert_eq!(broken(&good), []);
    assert_eq!(inspect_archive(&mut &good[..]).unwrap().len(), 5);

    let rules =
        |archive: &[u8]| broken(archive).into_iter().map(|(rule, _)| rule).collect::<Vec<_>>();
    let whole = "The file is a tar archive, compressed with gzip, and whole";
    let size = "The size of the disk is a whole number of GiB";
    assert_eq!(rules(&good[..good.len() - 9]), [whole]);
    assert_eq!(rules(b"not gzip at all"), [whole]);
    assert_eq!(rules(&[&good[..], &good[..]].concat()), [whole]);
    assert_eq!(rules(&archive(&*disk(1 << 20, &[0]), 1 << 20)), [size]);

    // What other flags of tar make.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk.raw"), [1; 4096]).unwrap();
    std::fs::write(folder.path().join("other"), [1; 700]).unwrap();
    let tar = |arguments: &[&str]| {
        let path = folder.path().join("made.tar.gz");
        let mut made = Command::new("tar");
        made.arg("-C").arg(folder.path()).arg("-czf").arg(&path).args(arguments);
        assert!(made.status().unwrap().success());
        std::fs::read(path).unwrap()
    };
    let old = "The archive is of GNU tar's old format";
    let name = "The disk is a file named disk.raw";
    let alone = "Nothing else is in the archive";
    assert_eq!(rules(&tar(&["--format=oldgnu", "-S", "disk.raw"])), [size]);
    assert_eq!(rules(&tar(&["--format=ustar", "disk.raw"])), [old, size]);
    assert_eq!(rules(&tar(&["--format=oldgnu", "disk.raw", "other"])), [alone, size]);
    assert_eq!(rules(&tar(&["--format=oldgnu", "other"])), [name, size]);
}
