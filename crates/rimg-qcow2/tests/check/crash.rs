//! A repair that is interrupted leaves nothing worse than it was: everything that could be read can
//! be read, and repairing once more puts right what a repair can.

use crate::damage::{OFFSET, word};
use crate::findings::{Verdict, open_as, rimg_check};
use rimg_core::{Repair, Storage as _, num};
use rimg_testkit::peer::Peer;
use rimg_testkit::{MemoryStorage, RecordingStorage};
use std::fs;
use std::sync::Arc;

#[test]
fn an_interrupted_repair_loses_nothing() {
    let (Some(img), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (img, io) = (img.in_dir(&dir), io.in_dir(&dir));
    img.ok(["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "t.qcow2", "128k"]);
    let write = |what: &str| io.ok(["-f", "qcow2", "-c", what, "t.qcow2"]);
    write("write -P 1 0 20k");
    img.ok(["snapshot", "-c", "one", "t.qcow2"]);
    write("write -P 2 4k 9k");
    img.ok(["snapshot", "-c", "two", "t.qcow2"]);
    let image = fs::read(dir.path().join("t.qcow2")).unwrap();
    let guest = read(&MemoryStorage::from(image.clone()));

    let (l1, refcounts, snapshots) = (word(&image, 40), word(&image, 48), word(&image, 64));
    let (l2, block) = (word(&image, l1) & OFFSET, word(&image, refcounts));
    let copied = 1_u64 << 63;
    let damages: &[(&str, &[(u64, u64)])] = &[
        ("leaks", &[(block + 48, 0x0005_0005_0005_0005)]),
        ("refcounts of 0", &[(block + 16, 0), (block + 48, 0x0005_0005_0005_0005)]),
        ("no refcount block", &[(refcounts, 0)]),
        ("two refcount blocks in one", &[(refcounts + 8, block)]),
        (
            "a refcount block nowhere",
            &[(refcounts + 8, num::to_u64(image.len()) / 512 * 512 + 512)],
        ),
        ("a misaligned refcount block", &[(refcounts, block | 256)]),
        ("COPIED flags", &[(l1, word(&image, l1) ^ copied), (l2, word(&image, l2) ^ copied)]),
        ("dirty and corrupt", &[(72, 3), (block + 48, 0)]),
        ("a snapshot without extra data", &[(60, 3 << 32 | word(&image, 60) & 0xffff_ffff)]),
        (
            "a snapshot with too much extra data",
            &[(snapshots + 32, word(&image, snapshots + 32) & !0xffff_ffff | 1025)],
        ),
    ];
    let mut states = 0;
    for (what, words) in damages {
        let mut damaged = image.clone();
        for (at, value) in *words {
            let at = num::to_usize(*at).unwrap();
            damaged[at..at + 8].copy_from_slice(&value.to_be_bytes());
        }
        states += crash_states(what, &damaged, &guest);
    }
    assert!(states > 200, "{states} states");
}

/// Repairs a damaged image and looks at everything that a crash could leave of it.
fn crash_states(what: &str, damaged: &[u8], guest: &[u8]) -> usize {
    let recording = Arc::new(RecordingStorage::starting_with(MemoryStorage::from(damaged)));
    let image = open_as(recording.clone(), true, true).unwrap();
    let mut found = 0;
    image.checker().unwrap().check(Repair::All, &mut |_| found += 1).unwrap();
    assert!(found > 0, "{what}: nothing was wrong");
    let mut states = 0;
    for state in recording.crash_states(6, 3) {
        states += 1;
        let name = format!("{what}, after {} records: {:?}", state.prefix, state.fates);
        assert!(read(&state.storage) == guest, "{name}: guest data is lost");
        let again = rimg_check(&state.storage, Repair::All);
        let Verdict::Checked { summary, lines } = again else { panic!("{name}: {again:?}") };
        let left = (summary.leaks, summary.corruptions, summary.check_errors);
        assert_eq!(left, (0, 0, 0), "{name}: {lines:#?}");
        assert!(read(&state.storage) == guest, "{name}: guest data is lost by the second repair");
    }
    states
}

/// Guest data, however the image is marked.
fn read(file: &MemoryStorage) -> Vec<u8> {
    let image = open_as(Arc::new(file.clone()), false, false).unwrap();
    let mut bytes = vec![0; num::to_usize(image.size_bytes()).unwrap()];
    image.read_at(&mut bytes, 0).unwrap();
    assert_eq!(file.len_bytes().unwrap(), image.file(0).unwrap().len_bytes().unwrap());
    bytes
}
