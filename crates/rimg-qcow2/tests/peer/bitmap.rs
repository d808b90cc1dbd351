//! Bitmaps that one writes and the other reads: bit by bit, as an NBD server shows them.

use crate::folder::{Folder, folder, options};
use rimg_core::{BlockImage, FormatDriver as _, OpenOptions, Preallocation};
use rimg_qcow2::DRIVER;
use rimg_storage::FileOptions;
use rimg_testkit::peer::Peer;
use std::ops::Range;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Options of the image, the size of its disk, and what a bit stands for.
const IMAGES: &[(&str, u64, u64)] = &[
    ("", 5 * MIB + 512, 65_536),
    ("", 300 * MIB, 512),
    ("cluster_size=512", 9 * MIB + 1536, 512),
    ("cluster_size=512,refcount_bits=1", 3 * MIB, 4096),
    ("cluster_size=4096,refcount_bits=64", 40 * MIB, 1024),
    ("cluster_size=2097152", 40 * MIB, 65_536),
    ("extended_l2=on", 5 * MIB, 65_536),
    ("lazy_refcounts=on", 5 * MIB, 65_536),
    ("data_file=d", 5 * MIB, 65_536),
    ("backing_file=base,backing_fmt=raw", 5 * MIB, 2 * MIB),
];

/// Bytes of the disk that change, and how.
#[derive(Clone, Copy)]
enum Change {
    Write,
    Zero,
    Discard,
}

fn changes(size: u64) -> Vec<(Change, Range<u64>)> {
    vec![
        (Change::Write, 0..512),
        (Change::Write, 70_000 / 512 * 512..200_192),
        (Change::Zero, MIB..MIB + 512 * 1024),
        (Change::Discard, 2 * MIB..2 * MIB + 131_072),
        (Change::Write, size / 2 / 512 * 512..size / 2 / 512 * 512 + 4096),
        (Change::Zero, size / 3 * 2 / 4096 * 4096..size / 3 * 2 / 4096 * 4096 + 4096),
        (Change::Write, size - 512..size),
    ]
}

struct Peers {
    img: Peer,
    io: Peer,
    nbd: Peer,
}

fn peers(dir: &tempfile::TempDir) -> Option<Peers> {
    let (img, io) = (Peer::qemu_img()?, Peer::qemu_io()?);
    let nbd = Peer::qemu_nbd()?;
    Some(Peers { img: img.in_dir(dir), io: io.in_dir(dir), nbd: nbd.in_dir(dir) })
}

#[test]
fn bits_are_those_that_qemu_sets_and_sees() {
    let (dir, folder) = folder();
    let Some(peers) = peers(&dir) else { return };
    std::fs::File::create(folder.path("base")).unwrap().set_len(3 * MIB).unwrap();
    for (line, size, granularity) in IMAGES {
        let what = format!("{line} {size} {granularity}");
        folder.create("r", *size, &options(line)).unwrap();
        peers.img.ok(["bitmap", "--add", "-g", &granularity.to_string(), "r", "qemu"]);
        write(&folder, |image| {
            let editor = image.bitmaps().unwrap().editor().unwrap();
            editor.add("rimg", Some(*granularity)).unwrap();
            editor.add("still", Some(*granularity)).unwrap();
            editor.set_enabled("still", false).unwrap();
        });
        let mut wanted = Bits::new(*size, *granularity);
        for (round, (change, range)) in changes(*size).into_iter().enumerate() {
            wanted.set(&range);
            if round % 2 == 0 {
                write(&folder, |image| make(image, change, &range));
            } else {
                io(&peers.io, change, &range);
            }
        }
        for name in ["qemu", "rimg"] {
            assert_eq!(seen_by_qemu(&peers, &folder, name), wanted.runs(), "{what}: {name}");
            assert_eq!(seen_by_rimg(&folder, name), wanted.runs(), "{what}: {name}");
        }
        assert_eq!(seen_by_qemu(&peers, &folder, "still"), [], "{what}");
        assert_clean(&peers.img, &what);

        // Larger, and on.
        let grown = size + 3 * MIB;
        write(&folder, |image| {
            image.resizer().unwrap().resize(grown, Preallocation::Off).unwrap();
        });
        let mut wanted = wanted.grown(grown);
        io(&peers.io, Change::Write, &(grown - 4096..grown));
        wanted.set(&(grown - 4096..grown));
        assert_eq!(seen_by_qemu(&peers, &folder, "rimg"), wanted.runs(), "{what}, grown");
        assert_eq!(seen_by_rimg(&folder, "qemu"), wanted.runs(), "{what}, grown");
        assert_clean(&peers.img, &what);
    }
}

/// All bits of many clusters set, cleared, and set again.
#[test]
fn full_and_empty_bitmaps_are_understood() {
    let (dir, folder) = folder();
    let Some(peers) = peers(&dir) else { return };
    folder.create("r", 9 * MIB + 512, &options("cluster_size=512")).unwrap();
    peers.img.ok(["bitmap", "--add", "-g", "512", "r", "b"]);
    let all = 0..9 * MIB + 512;
    write(&folder, |image| image.writer().unwrap().write_zeroes_at(all.clone()).unwrap());
    assert_eq!(seen_by_qemu(&peers, &folder, "b"), std::slice::from_ref(&all));
    assert_clean(&peers.img, "full");
    io(&peers.io, Change::Write, &(0..512));
    assert_eq!(seen_by_rimg(&folder, "b"), std::slice::from_ref(&all));
    write(&folder, |image| image.bitmaps().unwrap().editor().unwrap().clear("b").unwrap());
    assert_eq!(seen_by_qemu(&peers, &folder, "b"), []);
    assert_clean(&peers.img, "empty");
}

/// What is merged by walking runs is what qemu-img merges, whatever the granularities.
#[test]
fn merging_is_that_of_qemu_img() {
    let (dir, folder) = folder();
    let Some(peers) = peers(&dir) else { return };
    folder.create("r", 5 * MIB + 1024, &options("cluster_size=4096")).unwrap();
    for (from, to) in [(512, 65_536), (65_536, 512), (4096, 4096), (1024, 2048)] {
        for (name, granularity) in [("from", from), ("theirs", to), ("ours", to)] {
            peers.img.ok(["bitmap", "--add", "-g", &granularity.to_string(), "r", name]);
        }
        peers.img.ok(["bitmap", "--disable", "r", "theirs"]);
        peers.img.ok(["bitmap", "--disable", "r", "ours"]);
        for (change, range) in changes(5 * MIB + 1024) {
            io(&peers.io, change, &range);
        }
        peers.img.ok(["bitmap", "--merge", "from", "r", "theirs"]);
        write(&folder, |image| {
            let bitmaps = image.bitmaps().unwrap();
            let mut at = 0;
            while let Some(run) = bitmaps.dirty_run("from", at..image.size_bytes()).unwrap() {
                at = run.end;
                bitmaps.editor().unwrap().mark("ours", run).unwrap();
            }
        });
        let theirs = seen_by_qemu(&peers, &folder, "theirs");
        assert_eq!(seen_by_qemu(&peers, &folder, "ours"), theirs, "{from} into {to}");
        assert!(!theirs.is_empty());
        for name in ["from", "theirs", "ours"] {
            write(&folder, |image| {
                image.bitmaps().unwrap().editor().unwrap().remove(name).unwrap()
            });
        }
        assert_clean(&peers.img, "removed");
    }
}

/// The size that a copy needs is what `qemu-img measure` says.
#[test]
fn sizes_are_those_that_qemu_img_measures() {
    let (dir, folder) = folder();
    let Some(peers) = peers(&dir) else { return };
    folder.create("r", 300 * MIB, &options("")).unwrap();
    for (name, granularity) in [("a", "512"), ("another", "4096"), ("b", "1M")] {
        peers.img.ok(["bitmap", "--add", "-g", granularity, "r", name]);
    }
    for cluster_bytes in [512, 4096, 65_536, 2_097_152_u64] {
        let list = folder.open("r").unwrap().bitmaps().unwrap().list().unwrap();
        let option = format!("cluster_size={cluster_bytes}");
        let measure = DRIVER.measure(300 * MIB, &options(&option)).unwrap().unwrap();
        let bytes = measure.bitmaps_bytes(&list).unwrap();
        let report = peers.img.ok(["measure", "-O", "qcow2", "-o", &option, "r"]);
        assert!(report.contains(&format!("bitmaps size: {bytes}\n")), "{bytes}: {report}");
    }
}

fn make(image: &dyn BlockImage, change: Change, range: &Range<u64>) {
    let writer = image.writer().unwrap();
    match change {
        Change::Write => {
            let bytes = vec![7; usize::try_from(range.end - range.start).unwrap()];
            writer.write_at(&bytes, range.start).unwrap();
        }
        Change::Zero => writer.write_zeroes_at(range.clone()).unwrap(),
        Change::Discard => writer.discard_at(range.clone()).unwrap(),
    }
}

fn io(io: &Peer, change: Change, range: &Range<u64>) {
    let verb = match change {
        Change::Write => "write -P 7",
        Change::Zero => "write -z",
        Change::Discard => "discard",
    };
    let command = format!("{verb} {} {}", range.start, range.end - range.start);
    io.ok(["-f", "qcow2", "-d", "unmap", "-c", &command, "r"]);
}

/// The runs of set bits as a server of qemu's exports them.
fn seen_by_qemu(peers: &Peers, folder: &Folder, name: &str) -> Vec<Range<u64>> {
    let socket = folder.path("socket");
    let _ = std::fs::remove_file(&socket);
    let at = socket.display().to_string();
    let _server = peers.nbd.start(["-r", "-k", &at, "-f", "qcow2", "-B", name, "r"]);
    for _ in 0..500 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let image = format!(
        "driver=nbd,server.type=unix,server.path={at},x-dirty-bitmap=qemu:dirty-bitmap:{name}"
    );
    let map = peers.img.ok(["map", "--output=json", "--image-opts", &image]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let mut runs: Vec<Range<u64>> = Vec::new();
    for extent in map.as_array().unwrap() {
        let start = extent["start"].as_u64().unwrap();
        let end = start + extent["length"].as_u64().unwrap();
        // Dirty is what the server calls "no data".
        if extent["data"].as_bool().unwrap() {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

fn seen_by_rimg(folder: &Folder, name: &str) -> Vec<Range<u64>> {
    let image = folder.open("r").unwrap();
    let bitmaps = image.bitmaps().unwrap();
    let mut runs = Vec::new();
    let mut at = 0;
    while let Some(run) = bitmaps.dirty_run(name, at..image.size_bytes()).unwrap() {
        at = run.end;
        runs.push(run);
    }
    runs
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

/// Bits as they should be.
struct Bits {
    size: u64,
    granularity: u64,
    bits: Vec<bool>,
}

impl Bits {
    fn new(size: u64, granularity: u64) -> Self {
        let bits = vec![false; usize::try_from(size.div_ceil(granularity)).unwrap()];
        Self { size, granularity, bits }
    }

    fn set(&mut self, range: &Range<u64>) {
        let first = usize::try_from(range.start / self.granularity).unwrap();
        let end = usize::try_from(range.end.div_ceil(self.granularity)).unwrap();
        self.bits[first..end].fill(true);
    }

    fn grown(&self, size: u64) -> Self {
        let mut grown = Self::new(size, self.granularity);
        grown.bits[..self.bits.len()].copy_from_slice(&self.bits);
        grown
    }

    fn runs(&self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut start = 0;
        for bit in &self.bits {
            let end = (start + self.granularity).min(self.size);
            match runs.last_mut() {
                Some(last) if *bit && last.end == start => last.end = end,
                _ if *bit => runs.push(start..end),
                _ => {}
            }
            start = end;
        }
        runs
    }
}
