//! What is repaired, and how it is said: `-r leaks` and `-r all` of qemu-img and rimg on copies of
//! the same damaged image.

use crate::damage::{BASES, damages, word};
use crate::findings::{Verdict, open_as, qemu_img_check, rimg_check};
use rimg_core::{Repair, Storage, StorageWrite as _};
use rimg_testkit::peer::Peer;
use rimg_testkit::{MemoryStorage, qcow2};
use std::fs;
use std::path::Path;
use std::sync::Arc;

#[test]
fn repairs_are_those_of_qemu_img() {
    let (Some(img), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (img, io) = (img.in_dir(&dir), io.in_dir(&dir));
    let mut tally = Tally::default();
    for (number, base) in BASES.iter().enumerate() {
        let image = base.make(&img, &io, dir.path());
        for (turn, (what, damaged)) in damages(&image).into_iter().enumerate() {
            // A third of them, another one for each base; and none for which qemu-img makes a
            // file of a terabyte.
            let far = what.starts_with("refcount table entry") && what.ends_with("0x10000000000");
            if turn % 3 != number % 3 || far {
                continue;
            }
            // Repairing leaks is the smaller part of repairing everything.
            let repair = if turn % 4 == 0 { Repair::Leaks } else { Repair::All };
            let name = format!("{}, {what}, {repair:?}", base.name);
            compare(&name, &damaged, repair, &img, dir.path(), &mut tally);
        }
    }
    let Tally { same, better, wrong } = tally;
    assert!(same > 250, "only {same} repairs were the same");
    assert!(better < same / 8, "{better} of {} repairs differ from qemu-img's", same + better);
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_image_that_is_being_written_is_repaired() {
    let path = rimg_testkit::golden::testdata().join("qcow2/cluster-512.qcow2");
    let file = Arc::new(MemoryStorage::from(fs::read(path).unwrap()));
    let storage: Arc<dyn Storage> = file.clone();
    let image = open_as(storage, true, false).unwrap();
    let writer = image.writer().unwrap();
    writer.write_at(&[7; 3000], 1000).unwrap();
    writer.flush().unwrap();
    // A leak of clusters that are free.
    let bytes = file.to_vec().unwrap();
    let block = word(&bytes, word(&bytes, 48));
    let used = file.len_bytes().unwrap().div_ceil(512);
    file.set_len_bytes((used + 2) * 512).unwrap();
    file.write_all_at(&1_u16.to_be_bytes(), block + (used + 1) * 2).unwrap();

    writer.write_at(&[8; 3000], 9000).unwrap();
    let checker = image.checker().unwrap();
    let mut lines = Vec::new();
    let summary =
        checker.check(Repair::Leaks, &mut |finding| lines.push(finding.message.clone())).unwrap();
    assert_eq!((summary.leaks_fixed, summary.leaks), (1, 0), "{lines:?}");
    writer.write_at(&[9; 3000], 20_000).unwrap();
    for (at, byte) in [(1000, 7), (9000, 8), (20_000, 9)] {
        let mut read = [0; 3000];
        image.read_at(&mut read, at).unwrap();
        assert!(read.iter().all(|found| *found == byte), "at {at}");
    }
    image.close().unwrap();
    let Verdict::Checked { lines, .. } = rimg_check(&file, Repair::Nothing) else {
        panic!("cannot be checked")
    };
    assert_eq!(lines, [""; 0]);
}

#[derive(Default)]
struct Tally {
    same: usize,
    /// Differs where it may.
    better: usize,
    wrong: Vec<String>,
}

fn compare(name: &str, damaged: &[u8], repair: Repair, img: &Peer, dir: &Path, tally: &mut Tally) {
    let path = dir.join("t.qcow2");
    fs::write(&path, damaged).unwrap();
    let theirs = qemu_img_check(img, repair);
    let file = Arc::new(MemoryStorage::from(damaged.to_vec()));
    let ours = rimg_check(&file, repair);
    let mut wrong = |what: String| tally.wrong.push(format!("{name}: {what}"));
    if let Some(what) = guest_differs(damaged, &file) {
        wrong(what);
    }
    if ours == theirs {
        tally.same += 1;
    } else if may_differ(&ours, &theirs) {
        tally.better += 1;
    } else {
        wrong(ours.unlike(&theirs));
    }
    // qemu-img sees in the repaired image what rimg sees.
    if file.len_bytes().unwrap() < 1 << 30 {
        fs::write(&path, file.to_vec().unwrap()).unwrap();
        let theirs_now = qemu_img_check(img, Repair::Nothing);
        let ours_now = rimg_check(&file, Repair::Nothing);
        if ours_now != theirs_now {
            wrong(format!("afterwards {}", ours_now.unlike(&theirs_now)));
        }
    }
}

/// Where rimg need not do as qemu-img does, as it loses less:
///
/// - qemu-img gives up, often in the middle, where its own writes would overlap other metadata:
///   new refcount blocks over the old ones that it forgot, or COPIED flags in tables that are used
///   twice;
/// - where tables lead astray, rimg keeps what seems unused: new structures go behind the end of
///   the file, and behind everything that is referred to there, and so the image ends elsewhere;
/// - what seems to be a zero cluster in what only seems to be an L2 table is left alone;
/// - snapshots of which the file has nothing are dropped, not filled with zeroes;
/// - qemu-img gives away what a compressed cluster uses whose entry has a subcluster bitmap, which
///   both can read.
fn may_differ(ours: &Verdict, theirs: &Verdict) -> bool {
    let Verdict::Checked { lines, summary } = ours else { return false };
    let Verdict::Checked { lines: their_lines, summary: their_summary } = theirs else {
        return true;
    };
    let only_end =
        rimg_core::CheckSummary { image_end_offset: their_summary.image_end_offset, ..*summary };
    if lines == their_lines && only_end == *their_summary {
        return true;
    }
    let first = (0..lines.len()).find(|i| their_lines.get(*i) != lines.get(*i));
    if first.is_some_and(|i| {
        lines[i].contains("Preallocated cluster") && lines[i].starts_with("ERROR offset=")
    }) {
        return true;
    }
    if lines.iter().any(|line| line.contains("with non-zero subcluster allocation bitmap")) {
        return true;
    }
    let rebuilt = lines.iter().position(|line| line == "Rebuilding refcount structure");
    let snapshots = lines.iter().any(|line| line.contains("snapshot table entry"));
    match rebuilt {
        Some(at) => {
            their_lines.get(..at) == lines.get(..at)
                && summary.corruptions <= their_summary.corruptions
                && summary.check_errors <= their_summary.check_errors
        }
        None => snapshots && summary.corruptions <= their_summary.corruptions,
    }
}

/// Whether guest bytes that could be read read otherwise after a repair.
fn guest_differs(damaged: &[u8], repaired: &MemoryStorage) -> Option<String> {
    let before = open_as(Arc::new(MemoryStorage::from(damaged.to_vec())), false, false).ok()?;
    match open_as(Arc::new(repaired.clone()), false, false) {
        Ok(after) => qcow2::guest_differs(damaged, before.as_ref(), after.as_ref()),
        Err(error) => Some(format!("does not open any more: {error}")),
    }
}
