//! What creation and ordinary writes lay out is laid out as qemu-img and qemu-io do, byte for byte.
//!
//! Where refcount tables have to move (small clusters and files of megabytes, and QEMU's way of
//! preallocating with falloc and full), the new table lies elsewhere; `peer.rs` has these checked
//! by qemu-img instead.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::RawOptions;
use rimg_testkit::MemoryDir;
use rimg_testkit::peer::Peer;
use std::fmt::Write as _;

/// A command of qemu-io, which both sides carry out.
#[derive(Clone, Copy, Debug)]
enum Io {
    Write(u64, u64),
    Zero(u64, u64),
    Discard(u64, u64),
}
use Io::{Discard, Write, Zero};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const CREATIONS: &[(&str, u64)] = &[
    ("", 0),
    ("", 512),
    ("", 1000),
    ("", 1 << 30),
    ("", 1 << 40),
    ("compat=0.10", 1 << 30),
    ("compat=1.1,lazy_refcounts=on", 1 << 30),
    ("cluster_size=512", 64 * MIB),
    ("cluster_size=512,refcount_bits=64", 64 * MIB),
    ("cluster_size=512,refcount_bits=1", 1 << 30),
    ("cluster_size=512,refcount_bits=64", 4 << 30),
    ("cluster_size=1024,refcount_bits=2", 64 * MIB),
    ("cluster_size=4096,refcount_bits=4", 1 << 36),
    ("cluster_size=2097152,refcount_bits=8", 1 << 44),
    ("cluster_size=2097152", 1 << 30),
    ("refcount_bits=32", 3 << 30),
    ("extended_l2=on", 1 << 30),
    ("extended_l2=on,cluster_size=16384", 5 << 30),
    ("compression_type=zstd", 1 << 30),
    ("backing_file=base,backing_fmt=raw", MIB),
    ("compat=0.10,backing_file=base,backing_fmt=raw", MIB),
    ("data_file=data", MIB),
    ("data_file=data,data_file_raw=on", MIB),
    ("preallocation=metadata", 64 * MIB),
    ("preallocation=metadata", 1300 * MIB),
    ("preallocation=metadata,cluster_size=4096", 64 * MIB),
    ("preallocation=metadata,cluster_size=512", 3 * MIB),
    // Up to where the refcount table has to move: the new one is laid out otherwise.
    ("preallocation=metadata,cluster_size=512,refcount_bits=64", 1900 * KIB),
    ("preallocation=metadata,extended_l2=on", 64 * MIB),
    ("preallocation=metadata,compat=0.10", 65 * MIB),
    ("preallocation=metadata,data_file=data", 64 * MIB),
];

#[test]
fn creation_lays_out_as_qemu_img_does() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let folder = tempfile::tempdir().unwrap();
    let qemu_img = qemu_img.in_dir(folder.path());
    for (options, size) in CREATIONS {
        let theirs = create_theirs(&qemu_img, folder.path(), options, *size);
        let dir = MemoryDir::new(DRIVERS);
        create_ours(&dir, options, *size);
        assert_same_file(&contents(&dir), &theirs, &format!("create -o {options} {size}"));
    }
}

const WRITES: &[(&str, u64, &[Io])] = &[
    ("", 64 * MIB, &[Write(0, 4 * KIB), Write(MIB, 100 * KIB), Write(130 * KIB, 10)]),
    ("", 4 << 30, &[Write(1 << 29, 64 * KIB), Write((1 << 29) - 100, 200), Write(0, MIB)]),
    ("cluster_size=4096", 64 * MIB, &[Write(8190 * KIB, 8 * KIB), Write(MIB, 3 * MIB)]),
    ("cluster_size=4096", 64 * MIB, &[Write(2 * MIB, 6 * MIB), Write(0, 3 * MIB)]),
    ("cluster_size=512,refcount_bits=64", MIB, &[Write(0, 100 * KIB), Write(200 * KIB, 300)]),
    (
        "cluster_size=512,refcount_bits=64",
        MIB,
        &[
            Write(0, 30 * KIB),
            Write(30 * KIB, 512),
            Write(31 * KIB, 512),
            Write(40 * KIB, 512),
            Write(50 * KIB, 9 * KIB),
        ],
    ),
    ("cluster_size=512", 16 * MIB, &[Write(0, 2 * MIB), Write(3 * MIB, 5)]),
    ("cluster_size=65536,refcount_bits=1", 64 * MIB, &[Write(5, 10 * MIB)]),
    ("cluster_size=2097152", 64 * MIB, &[Write(5, 10 * MIB), Write(20 * MIB, 1)]),
    ("compat=0.10", 64 * MIB, &[Write(0, 100), Write(64 * KIB, 64 * KIB), Zero(0, 64 * KIB)]),
    ("", 64 * MIB, &[Write(0, 256 * KIB), Zero(64 * KIB, 64 * KIB), Write(64 * KIB, 1)]),
    ("", 64 * MIB, &[Zero(0, MIB), Write(64 * KIB, 4 * KIB), Zero(3 * MIB, 100)]),
    ("", 64 * MIB, &[Write(0, 256 * KIB), Zero(70 * KIB, 10 * KIB), Zero(190 * KIB, 2 * KIB)]),
    (
        "cluster_size=4096",
        64 * MIB,
        &[
            Write(0, 64 * KIB),
            Discard(8 * KIB, 8 * KIB),
            Write(MIB, 4 * KIB),
            Write(1028 * KIB, 16 * KIB),
            Write(2 * MIB, 4 * KIB),
        ],
    ),
    (
        "cluster_size=4096",
        64 * MIB,
        &[
            Write(0, 64 * KIB),
            Zero(9 * KIB, 8 * KIB),
            Write(MIB, 12 * KIB),
            Write(8 * KIB, 4 * KIB),
        ],
    ),
    ("cluster_size=4096", 64 * MIB, &[Discard(0, 64 * KIB), Write(8 * KIB, 4 * KIB)]),
    (
        "extended_l2=on",
        64 * MIB,
        &[Write(0, 2 * KIB), Write(6 * KIB, 100), Write(60 * KIB, 10 * KIB)],
    ),
    (
        "extended_l2=on",
        64 * MIB,
        &[Write(0, 128 * KIB), Zero(4 * KIB, 4 * KIB), Write(5 * KIB, 10)],
    ),
    ("extended_l2=on", 64 * MIB, &[Write(0, 128 * KIB), Discard(0, 64 * KIB), Write(5 * KIB, 10)]),
    ("data_file=data", 64 * MIB, &[Write(MIB, 100 * KIB), Zero(MIB, 64 * KIB), Write(5 * MIB, 1)]),
];

#[test]
fn writes_lay_out_as_those_of_qemu_io_do() {
    let (Some(qemu_img), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (qemu_img, qemu_io) = (qemu_img.in_dir(folder.path()), qemu_io.in_dir(folder.path()));
    for (options, size, ops) in WRITES {
        let what = format!("-o {options} {size}: {ops:?}");
        create_theirs(&qemu_img, folder.path(), options, *size);
        let commands: Vec<String> = ops.iter().map(command).collect();
        let args = commands.iter().flat_map(|command| ["-c", command.as_str()]);
        qemu_io.ok(["-f", "qcow2"].into_iter().chain(args).chain(["disk"]));
        let theirs = std::fs::read(folder.path().join("disk")).unwrap();
        let dir = MemoryDir::new(DRIVERS);
        create_ours(&dir, options, *size);
        let image = dir.open("disk", "qcow2", true).unwrap();
        for op in *ops {
            carry_out(image.as_ref(), op);
        }
        image.close().unwrap();
        assert_same_file(&contents(&dir), &theirs, &what);
    }
}

fn command(io: &Io) -> String {
    match io {
        Write(at, len) => format!("write -P 205 {at} {len}"),
        Zero(at, len) => format!("write -z -u {at} {len}"),
        Discard(at, len) => format!("discard {at} {len}"),
    }
}

fn carry_out(image: &dyn rimg_core::BlockImage, io: &Io) {
    let writer = image.writer().unwrap();
    match *io {
        Write(at, len) => writer.write_at(&vec![205; usize::try_from(len).unwrap()], at),
        Zero(at, len) => writer.write_zeroes_at(at..at + len),
        Discard(at, len) => writer.discard_at(at..at + len),
    }
    .unwrap();
}

fn create_theirs(qemu_img: &Peer, dir: &std::path::Path, options: &str, size: u64) -> Vec<u8> {
    std::fs::write(dir.join("base"), vec![1; 1 << 20]).unwrap();
    let size = size.to_string();
    let mut args = vec!["create", "-q", "-u", "-f", "qcow2"];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    args.extend(["disk", &size]);
    qemu_img.ok(args);
    std::fs::read(dir.join("disk")).unwrap()
}

fn create_ours(dir: &MemoryDir, options: &str, size: u64) {
    let options = options
        .split_terminator(',')
        .map(|option| option.split_once('=').unwrap())
        .fold(RawOptions::new(), |options, (name, value)| options.with(name, value));
    dir.create("disk", "qcow2", size, &options).unwrap();
}

fn contents(dir: &MemoryDir) -> Vec<u8> {
    let disk = dir.file("disk");
    let mut bytes = vec![0; usize::try_from(disk.len_bytes().unwrap()).unwrap()];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[track_caller]
fn assert_same_file(ours: &[u8], theirs: &[u8], what: &str) {
    if ours == theirs {
        return;
    }
    let mut report = String::new();
    writeln!(report, "{what}: {} bytes, {} of the peer", ours.len(), theirs.len()).unwrap();
    let ours = ours.chunks(8);
    let theirs = theirs.chunks(8);
    let different = ours.zip(theirs).enumerate().filter(|(_, (ours, theirs))| ours != theirs);
    for (word, (ours, theirs)) in different.take(12) {
        writeln!(report, "{:#10x}: {ours:02x?} {theirs:02x?} of the peer", word * 8).unwrap();
    }
    panic!("{report}");
}
