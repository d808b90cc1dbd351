//! What qemu-img and rimg say of the same damaged image, line by line.

use crate::damage::{BASES, damages};
use rimg_core::{
    BlockImage, CheckSummary, Dependency, DependencyGate, FindingKind, FormatDriver as _, Limits,
    OpenOptions, Repair, Result, Storage,
};
use rimg_testkit::MemoryStorage;
use rimg_testkit::peer::Peer;
use std::fs;
use std::sync::Arc;

#[test]
fn findings_are_those_of_qemu_img() {
    let (Some(img), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (img, io) = (img.in_dir(&dir), io.in_dir(&dir));
    let (mut compared, mut differences) = (0, Vec::new());
    for base in BASES {
        let image = base.make(&img, &io, dir.path());
        for (what, damaged) in damages(&image) {
            fs::write(dir.path().join("t.qcow2"), &damaged).unwrap();
            let theirs = qemu_img_check(&img, Repair::Nothing);
            let ours = rimg_check(&Arc::new(MemoryStorage::from(damaged)), Repair::Nothing);
            if ours != theirs {
                differences.push(format!("{}, {what}: {}", base.name, ours.unlike(&theirs)));
            }
            compared += 1;
        }
    }
    assert!(compared > 500, "only {compared} images");
    let list = differences.join("\n");
    assert!(differences.is_empty(), "{} of {compared} differ:\n{list}", differences.len());
}

/// What is wrong with an image, or that it cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Refused,
    Checked { lines: Vec<String>, summary: CheckSummary },
}

impl Verdict {
    /// Where a verdict first differs from that of qemu-img.
    pub(crate) fn unlike(&self, theirs: &Self) -> String {
        let (Self::Checked { lines: a, summary: x }, Self::Checked { lines: b, summary: y }) =
            (self, theirs)
        else {
            return format!("rimg {self:?}, qemu-img {theirs:?}");
        };
        match (0..a.len().max(b.len())).find(|i| a.get(*i) != b.get(*i)) {
            Some(i) => format!("rimg {:?}, qemu-img {:?}", a.get(i), b.get(i)),
            None => format!("rimg {x:?}, qemu-img {y:?}"),
        }
    }
}

/// What rimg finds, and repairs; as the command does, it looks again at what it repaired.
pub(crate) fn rimg_check(file: &Arc<MemoryStorage>, repair: Repair) -> Verdict {
    let Ok(image) = open(file, repair != Repair::Nothing) else { return Verdict::Refused };
    let mut lines = Vec::new();
    let Some(mut summary) = check(image.as_ref(), repair, &mut lines) else {
        return Verdict::Refused;
    };
    let CheckSummary { corruptions_fixed, leaks_fixed, .. } = summary;
    if corruptions_fixed > 0 || leaks_fixed > 0 {
        match check(image.as_ref(), Repair::Nothing, &mut lines) {
            Some(second) => summary = CheckSummary { corruptions_fixed, leaks_fixed, ..second },
            None => return Verdict::Refused,
        }
    }
    Verdict::Checked { lines, summary }
}

fn check(image: &dyn BlockImage, repair: Repair, lines: &mut Vec<String>) -> Option<CheckSummary> {
    let mut sums = [0_u64; 3];
    let summary = image.checker().unwrap().check(repair, &mut |finding| {
        let index = match finding.kind {
            FindingKind::Leak => 0,
            FindingKind::Corruption => 1,
            FindingKind::CheckError => 2,
            FindingKind::Note => {
                lines.push(finding.message.clone());
                return;
            }
        };
        sums[index] += 1;
        assert!(repair != Repair::Nothing || !finding.repaired);
        lines.push(finding.message.clone());
    });
    let summary = summary.ok()?;
    if repair == Repair::Nothing {
        assert_eq!(sums, [summary.leaks, summary.corruptions, summary.check_errors]);
        assert_eq!((summary.leaks_fixed, summary.corruptions_fixed), (0, 0));
    }
    Some(summary)
}

/// Opens an image for its metadata alone.
pub(crate) fn open(file: &Arc<MemoryStorage>, writable: bool) -> Result<Box<dyn BlockImage>> {
    let file: Arc<dyn Storage> = file.clone();
    open_as(file, writable, true)
}

pub(crate) fn open_as(
    file: Arc<dyn Storage>,
    writable: bool,
    inspect_only: bool,
) -> Result<Box<dyn BlockImage>> {
    let how = OpenOptions {
        writable,
        inspect_only,
        limits: Limits::default(),
        gate: &DataFile,
        options: rimg_core::RawOptions::NONE,
    };
    rimg_qcow2::DRIVER.open(file, &how)
}

/// The only other file of these images is a data file.
struct DataFile;

impl DependencyGate for DataFile {
    fn open_file(&self, _: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(MemoryStorage::with_len(4 << 20)))
    }

    fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        panic!("nothing lies below: {wanted:?}")
    }
}

/// What qemu-img finds, and repairs, in `t.qcow2`.
pub(crate) fn qemu_img_check(img: &Peer, repair: Repair) -> Verdict {
    let mut args = vec!["check", "-f", "qcow2", "--output=json", "t.qcow2"];
    match repair {
        Repair::Nothing => {}
        Repair::Leaks => args.extend(["-r", "leaks"]),
        Repair::All => args.extend(["-r", "all"]),
    }
    let outcome = img.run(args);
    if outcome.stdout.trim().is_empty() {
        return Verdict::Refused;
    }
    // What concerns the run of the program, not the image, is no finding; nor is advice.
    const NO_FINDINGS: &[&str] =
        &["qemu-img: ", "qcow2: Image is ", "qcow2: Marking image ", "Use qemu-img amend"];
    let is_finding = |line: &&str| !NO_FINDINGS.iter().any(|start| line.starts_with(start));
    let lines = outcome.stderr.lines().filter(is_finding).map(str::to_owned).collect();
    let number = |key: &str| -> u64 {
        let key = format!("\"{key}\": ");
        let Some((_, rest)) = outcome.stdout.split_once(&key) else { return 0 };
        rest.split([',', '\n']).next().unwrap().parse().unwrap()
    };
    let summary = CheckSummary {
        check_errors: number("check-errors"),
        corruptions: number("corruptions"),
        leaks: number("leaks"),
        corruptions_fixed: number("corruptions-fixed"),
        leaks_fixed: number("leaks-fixed"),
        total_clusters: number("total-clusters"),
        allocated_clusters: number("allocated-clusters"),
        fragmented_clusters: number("fragmented-clusters"),
        compressed_clusters: number("compressed-clusters"),
        image_end_offset: number("image-end-offset"),
    };
    Verdict::Checked { lines, summary }
}
