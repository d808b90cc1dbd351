//! Undamaged images of every kind, and damaged copies of them.

use rimg_core::num;
use rimg_testkit::Rng;
use rimg_testkit::peer::Peer;
use std::fs;
use std::path::Path;

/// How an undamaged image is made: `qemu-img create` options, then `qemu-io` commands.
pub(crate) struct Base {
    pub(crate) name: &'static str,
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

pub(crate) const BASES: &[Base] = &[
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

impl Base {
    pub(crate) fn make(&self, img: &Peer, io: &Peer, dir: &Path) -> Vec<u8> {
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
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Damaged copies of an image, and what was done to each.
pub(crate) fn damages(image: &[u8]) -> Vec<(String, Vec<u8>)> {
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
    patch("refcount table's length", 56, word(image, 56) & 0xffff_ffff);
    patch("refcount table offset", 48, l1);
    patch("refcount table offset", 48, end + 3 * cluster);
    patch("L1 table offset", 40, refcount_table);
    patch("L1 table offset", 40, end);
    patch("L1 table offset", 40, end + 2 * cluster);
    patch("size", 24, word(image, 24) - 4000);
    if image[7] == 3 {
        for features in [1, 2, 3] {
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
        let count = word(image, 60);
        for snapshots in [0, 1, 3] {
            patch("number of snapshots", 60, snapshots << 32 | count & 0xffff_ffff);
        }
        let sizes = word(image, snapshots + 32);
        for extra in [0, 8, 15, 16, 1025, 1 << 30] {
            patch("snapshot's extra data", snapshots + 32, sizes & !0xffff_ffff | extra);
        }
        let l1_size = word(image, snapshots + 8);
        for entries in [4, 1 << 24] {
            let value = entries << 32 | l1_size & 0xffff_ffff;
            patch("snapshot's L1 length", snapshots + 8, value);
        }
    }
    for at in [end / 2 + cluster, end - cluster, end - 1].map(|at| at.max(l1 + cluster)) {
        // QEMU does not open images whose bitmap directory is cut off.
        if image[95] & 1 == 0 {
            let kept = image[..num::to_usize(at).unwrap()].to_vec();
            found.push((format!("cut off at {at:#x}"), kept));
        }
    }
    found.extend(several_at_once(image, [l1, l2, block, refcount_table], cluster));
    let mut longer = image.to_vec();
    longer.resize(image.len() + num::to_usize(3 * cluster + 100).unwrap(), 0);
    found.push(("three clusters more".to_owned(), longer));
    found
}

pub(crate) fn word(image: &[u8], at: u64) -> u64 {
    let at = num::to_usize(at).unwrap();
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
}

/// Copies with two or three words wrong, here and there.
fn several_at_once(image: &[u8], tables: [u64; 4], cluster: u64) -> Vec<(String, Vec<u8>)> {
    let [_, l2, block, _] = tables;
    let end = num::align_down(num::to_u64(image.len()), cluster);
    let mut rng = Rng::new(11);
    let mut pick = |of: usize| usize::try_from(rng.below(num::to_u64(of))).unwrap();
    let copies = (0..24).map(|_| {
        let mut damaged = image.to_vec();
        let mut what = "several:".to_owned();
        for _ in 0..2 + pick(2) {
            let table = tables[pick(tables.len())];
            let at = table + 8 * num::to_u64(pick(8));
            let values = [
                0,
                COPIED | l2,
                COPIED | (end - cluster),
                block,
                1 << 26,
                word(image, table) ^ COPIED,
                word(image, table) | 2,
                0x0001_0001_0001_0002,
                word(image, l2 + 8),
            ];
            let value = values[pick(values.len())];
            let place = num::to_usize(at).unwrap();
            damaged[place..place + 8].copy_from_slice(&value.to_be_bytes());
            what = format!("{what} {at:#x} is {value:#x}");
        }
        (what, damaged)
    });
    copies.collect()
}
