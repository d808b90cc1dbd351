//! What is repaired, and how it is said: `-r leaks` and `-r all` of qemu-img and rimg on copies of
//! the same damaged image.

use crate::damage::{BASES, damages};
use crate::findings::{Verdict, open_as, qemu_img_check, rimg_check};
use rimg_core::{Repair, Storage as _};
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
/// - snapshots of which the file has nothing are dropped, not filled with zeroes.
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
