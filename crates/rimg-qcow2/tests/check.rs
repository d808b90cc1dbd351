//! What a check finds in damaged images, and in which words, against `qemu-img check`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use rimg_core::{CheckSummary, FindingKind, FormatDriver, Repair, num};
use rimg_testkit::peer::Peer;
use rimg_testkit::{MemoryDir, MemoryStorage};
use std::fs;
use std::path::Path;
use std::sync::Arc;

const DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow2::DRIVER];

/// How an undamaged image is made: `qemu-img create` options, then `qemu-io` commands.
struct Base {
    name: &'static str,
    options: &'static str,
    writes: &'static [&'static str],
    finish: Finish,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    Plain,
    Compressed,
    Snapshots,
    Bitmap,
}

const BASES: &[Base] = &[
    Base {
        name: "plain",
        options: "cluster_size=4k",
        writes: &["write -P 1 0 40k", "write -P 2 2M 12k", "write -z 100k 8k"],
        finish: Finish::Plain,
    },
    Base {
        name: "version 2",
        options: "cluster_size=4k,compat=0.10",
        writes: &["write -P 1 0 40k"],
        finish: Finish::Plain,
    },
    Base {
        name: "compressed",
        options: "cluster_size=4k",
        writes: &["write -P 1 0 24k"],
        finish: Finish::Compressed,
    },
    Base {
        name: "snapshots",
        options: "cluster_size=4k",
        writes: &["write -P 1 0 40k"],
        finish: Finish::Snapshots,
    },
    Base {
        name: "bitmap",
        options: "cluster_size=4k",
        writes: &["write -P 1 0 40k"],
        finish: Finish::Bitmap,
    },
    Base {
        name: "extended L2",
        options: "cluster_size=16k,extended_l2=on",
        writes: &["write -P 1 0 40k", "write -P 2 2M 1k"],
        finish: Finish::Plain,
    },
    Base {
        name: "data file",
        options: "cluster_size=4k,data_file=data.raw",
        writes: &["write -P 1 0 40k"],
        finish: Finish::Plain,
    },
    Base {
        name: "refcounts of 1 bit",
        options: "cluster_size=512,refcount_bits=1",
        writes: &["write -P 1 0 40k"],
        finish: Finish::Plain,
    },
    Base {
        name: "refcounts of 64 bits",
        options: "cluster_size=512,refcount_bits=64",
        writes: &["write -P 1 0 40k"],
        finish: Finish::Plain,
    },
];

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
            let theirs = qemu_img_check(&img);
            let ours = rimg_check(&damaged);
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
enum Verdict {
    Refused,
    Checked { lines: Vec<String>, summary: CheckSummary },
}

impl Verdict {
    /// Where a verdict first differs from that of qemu-img.
    fn unlike(&self, theirs: &Self) -> String {
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

fn rimg_check(image: &[u8]) -> Verdict {
    let dir = MemoryDir::new(DRIVERS);
    dir.put("t.qcow2", Arc::new(MemoryStorage::from(image.to_vec())));
    dir.put("data.raw", Arc::new(MemoryStorage::new()));
    let Ok(image) = dir.open("t.qcow2", "qcow2", false) else { return Verdict::Refused };
    let mut lines = Vec::new();
    let mut sums = [0_u64; 3];
    let summary = image.checker().unwrap().check(Repair::Nothing, &mut |finding| {
        let index = match finding.kind {
            FindingKind::Leak => 0,
            FindingKind::Corruption => 1,
            FindingKind::CheckError => 2,
        };
        sums[index] += 1;
        assert!(!finding.repaired);
        lines.extend(finding.message.lines().map(str::to_owned));
    });
    let Ok(summary) = summary else { return Verdict::Refused };
    assert_eq!(sums, [summary.leaks, summary.corruptions, summary.check_errors]);
    Verdict::Checked { lines, summary }
}

fn qemu_img_check(img: &Peer) -> Verdict {
    let outcome = img.run(["check", "-f", "qcow2", "--output=json", "t.qcow2"]);
    if outcome.stdout.is_empty() {
        return Verdict::Refused;
    }
    // What concerns the run of the program, not the image, is no finding.
    let is_finding =
        |line: &&str| !line.starts_with("qemu-img: ") && !line.starts_with("qcow2: Image is ");
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
        corruptions_fixed: 0,
        leaks_fixed: 0,
        total_clusters: number("total-clusters"),
        allocated_clusters: number("allocated-clusters"),
        fragmented_clusters: number("fragmented-clusters"),
        compressed_clusters: number("compressed-clusters"),
        image_end_offset: number("image-end-offset"),
    };
    Verdict::Checked { lines, summary }
}

impl Base {
    fn make(&self, img: &Peer, io: &Peer, dir: &Path) -> Vec<u8> {
        let write = |writes: &[&str]| {
            let args = writes.iter().flat_map(|write| ["-c", write]);
            io.ok(args.chain(["-f", "qcow2", "base.qcow2"]));
        };
        for file in ["base.qcow2", "data.raw"] {
            let _ = fs::remove_file(dir.join(file));
        }
        img.ok(["create", "-q", "-f", "qcow2", "-o", self.options, "base.qcow2", "4M"]);
        write(self.writes);
        match self.finish {
            Finish::Plain => {}
            Finish::Compressed => {
                img.ok(["convert", "-c", "-O", "qcow2", "-o", self.options, "base.qcow2", "c"]);
                fs::rename(dir.join("c"), dir.join("base.qcow2")).unwrap();
                write(&["write -P 3 48k 8k"]);
            }
            Finish::Snapshots => {
                img.ok(["snapshot", "-c", "one", "base.qcow2"]);
                write(&["write -P 3 4k 8k"]);
                img.ok(["snapshot", "-c", "two", "base.qcow2"]);
            }
            Finish::Bitmap => {
                img.ok(["bitmap", "--add", "-g", "4k", "base.qcow2", "map"]);
                write(&["write -P 3 64k 8k"]);
            }
        }
        fs::read(dir.join("base.qcow2")).unwrap()
    }
}

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Damaged copies of an image, and what was done to each.
fn damages(image: &[u8]) -> Vec<(String, Vec<u8>)> {
    let cluster = 1_u64 << u32::from_be_bytes(image[20..24].try_into().unwrap());
    let is_extended = image[7] == 3 && image[79] & 16 != 0;
    let entry_bytes = if is_extended { 16 } else { 8 };
    let (l1, refcount_table) = (word(image, 40), word(image, 48));
    let l2 = word(image, l1) & OFFSET;
    let block = word(image, refcount_table);
    let end = num::align_down(num::to_u64(image.len()), cluster);
    let mut found = vec![("nothing".to_owned(), image.to_vec())];
    let mut patch = |what: &str, at: u64, value: u64| {
        let mut damaged = image.to_vec();
        let at_index = num::to_usize(at).unwrap();
        damaged[at_index..at_index + 8].copy_from_slice(&value.to_be_bytes());
        found.push((format!("{what} at {at:#x} is {value:#x}"), damaged));
    };
    let old = word(image, l1);
    let misplaced = [
        0,
        COPIED,
        COPIED | l1,
        COPIED | refcount_table,
        COPIED | block,
        COPIED | l2,
        COPIED | end,
        end,
        COPIED | (end + cluster),
        COPIED | (end + 2 * cluster),
        COPIED | 1 << 40,
        1 << 40,
        OFFSET,
        u64::MAX,
    ];
    let flagged = [1, 2, 256, 512, 513, 1 << 56, 1 << 60, 1 << 61, COPIED, COPIED | 512];
    for value in misplaced.into_iter().chain(flagged.map(|flags| old ^ flags)) {
        patch("L1 entry", l1, value);
    }
    for index in [0, 1, 5] {
        let at = l2 + index * entry_bytes;
        let old = word(image, at);
        let compressed =
            [0, l1, l1 | 0x123 | 3 << 58, 1 << 40, end - 1, end].map(|to| COMPRESSED | to);
        let values = misplaced
            .into_iter()
            .chain(flagged.map(|flags| old ^ flags))
            .chain(compressed)
            .chain(compressed.map(|entry| entry | COPIED))
            .chain([5, COPIED | 1, COPIED | 9, 1 | 1 << 40, word(image, l2 + 2 * entry_bytes)]);
        for value in values {
            patch("L2 entry", at, value);
        }
        if is_extended {
            for bitmap in [0, 0xffff, 0x1_0000_0001, 0xffff_ffff_0000_0000, u64::MAX] {
                patch("subcluster bitmap", at + 8, bitmap);
            }
        }
    }
    for at in [0, 8, 24, 40] {
        for value in [0, 1, 0x0001_0002_0003_0004, 0x5555_5555_5555_5555, u64::MAX] {
            patch("refcounts", block + at, value);
        }
    }
    let blocks = [0, l2, block | 1, block | 256, block | 512, 1 << 40, end, end + cluster, COPIED];
    for value in blocks.into_iter().chain([u64::MAX, block, refcount_table]) {
        patch("refcount table entry", refcount_table, value);
        patch("refcount table entry", refcount_table + 8, value);
    }
    patch("refcount table offset", 48, l1);
    patch("refcount table offset", 48, end + 3 * cluster);
    patch("L1 table offset", 40, refcount_table);
    patch("size", 24, word(image, 24) - 4000);
    if image[7] == 3 {
        for features in [1, 2] {
            patch("incompatible features", 72, word(image, 72) | features);
        }
    }
    let snapshots = word(image, 64);
    if snapshots != 0 {
        let snapshot_l1 = word(image, snapshots);
        for value in [snapshot_l1 | 512, l1, end] {
            patch("snapshot's L1 offset", snapshots, value);
        }
        let old = word(image, snapshot_l1);
        for value in [0, old ^ COPIED, old | 2, old | 512, 1 << 40] {
            patch("snapshot's L1 entry", snapshot_l1, value);
        }
    }
    for at in [end / 2 + cluster, end - cluster, end - 1].map(|at| at.max(l1 + cluster)) {
        // A snapshot table or bitmap directory that is cut off is refused by one or the other.
        if snapshots == 0 && image[95] & 1 == 0 {
            let kept = image[..num::to_usize(at).unwrap()].to_vec();
            found.push((format!("cut off at {at:#x}"), kept));
        }
    }
    let mut longer = image.to_vec();
    longer.resize(image.len() + num::to_usize(3 * cluster + 100).unwrap(), 0);
    found.push(("three clusters more".to_owned(), longer));
    found
}

fn word(image: &[u8], at: u64) -> u64 {
    let at = num::to_usize(at).unwrap();
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
}
