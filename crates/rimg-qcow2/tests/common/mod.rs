//! What the tests of this crate share: images in memory, and random changes to them.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

pub(crate) mod crash;

use proptest::prelude::*;
use rimg_core::{
    BlockImage, Error, FormatDriver, NewSnapshot, Preallocation, RawOptions, SnapshotEdit,
    SnapshotSelector,
};
use rimg_testkit::{MemoryDir, ModelDisk, Rng};

/// The format under test, for [`MemoryDir`].
pub(crate) static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow2::DRIVER];

/// The kind of image that a test runs on.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) cluster_bits: u32,
    pub(crate) extended_l2: bool,
    pub(crate) version_2: bool,
    pub(crate) refcount_bits: u32,
    pub(crate) zstd: bool,
    pub(crate) data_file: bool,
    /// The data file reads as the guest does.
    pub(crate) data_file_raw: bool,
    /// Refcounts are postponed, under the dirty bit.
    pub(crate) lazy_refcounts: bool,
    /// The length of a raw image below, in bytes; 0 for none.
    pub(crate) backing_bytes: u64,
    /// The size of the disk in bytes.
    pub(crate) size_bytes: u64,
}

/// A change to an image.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Write { at: u64, len: u64, seed: u64 },
    Zero { at: u64, len: u64 },
    Discard { at: u64, len: u64 },
    Compressed { cluster: u64, seed: u64 },
    Grow { by_sectors: u64 },
    Shrink { to_sectors: u64 },
    Take { date_seconds: u32 },
    Apply { nth: usize },
    Delete { nth: usize },
    Flush,
    Reopen,
}

/// All kinds that the format allows, with disks of a few megabytes.
pub(crate) fn kinds() -> impl Strategy<Value = Kind> {
    let cluster_bits = prop_oneof![
        2 => Just(9_u32), 2 => Just(10), 2 => Just(12), 2 => Just(14), 2 => Just(16), 2 => Just(18),
        1 => Just(21),
    ];
    (cluster_bits, 0_u32..7, any::<[bool; 6]>(), 1_u64..4096, 0_u64..3000).prop_map(
        |(cluster_bits, refcount_order, [a, b, c, d, e, f], sectors, backing_sectors)| {
            let version_2 = a && b;
            let extended_l2 = !version_2 && cluster_bits >= 14 && c;
            let data_file = !version_2 && d && a;
            let backing_bytes = if c { backing_sectors * 512 } else { 0 };
            Kind {
                cluster_bits,
                extended_l2,
                version_2,
                refcount_bits: if version_2 { 16 } else { 1 << refcount_order },
                zstd: !version_2 && b,
                data_file,
                data_file_raw: data_file && backing_bytes == 0 && f,
                lazy_refcounts: !version_2 && e,
                backing_bytes,
                size_bytes: sectors * 512,
            }
        },
    )
}

/// The kinds of which guest data is in a file of its own.
pub(crate) fn kinds_with_data_file() -> impl Strategy<Value = Kind> {
    (kinds(), any::<bool>()).prop_map(|(kind, raw)| Kind {
        version_2: false,
        data_file: true,
        data_file_raw: kind.backing_bytes == 0 && raw,
        ..kind
    })
}

/// How many random workloads a test tries: `RIMG_TEST_CASES`, or else `default`.
pub(crate) fn cases(default: u32) -> u32 {
    std::env::var("RIMG_TEST_CASES").map_or(default, |number| number.parse().unwrap())
}

/// Changes anywhere on a disk of any size: positions are cut to what is there when they are made.
pub(crate) fn ops(max: usize) -> impl Strategy<Value = Vec<Op>> {
    let at = 0_u64..(2 << 20);
    let len = prop_oneof![1_u64..2048, 1_u64..200_000];
    let op = prop_oneof![
        6 => (at.clone(), len.clone(), any::<u64>())
            .prop_map(|(at, len, seed)| Op::Write { at, len, seed }),
        2 => (at.clone(), len.clone()).prop_map(|(at, len)| Op::Zero { at, len }),
        2 => (at, len).prop_map(|(at, len)| Op::Discard { at, len }),
        2 => (0_u64..4096, any::<u64>())
            .prop_map(|(cluster, seed)| Op::Compressed { cluster, seed }),
        1 => (1_u64..512).prop_map(|by_sectors| Op::Grow { by_sectors }),
        1 => (1_u64..4096).prop_map(|to_sectors| Op::Shrink { to_sectors }),
        1 => any::<u32>().prop_map(|date_seconds| Op::Take { date_seconds }),
        1 => (0_usize..8).prop_map(|nth| Op::Apply { nth }),
        1 => (0_usize..8).prop_map(|nth| Op::Delete { nth }),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
    ];
    proptest::collection::vec(op, 1..max)
}

/// Creates an image of this kind as `disk`, and the disk that it should be.
pub(crate) fn create(dir: &MemoryDir, kind: &Kind) -> ModelDisk {
    create_with(dir, kind, RawOptions::new())
}

/// As [`create`], with options that the kind does not tell.
pub(crate) fn create_with(dir: &MemoryDir, kind: &Kind, options: RawOptions) -> ModelDisk {
    let mut model = ModelDisk::new(kind.size_bytes);
    let mut options = options
        .with("cluster_size", (1_u64 << kind.cluster_bits).to_string())
        .with("refcount_bits", kind.refcount_bits.to_string())
        .with("compat", if kind.version_2 { "0.10" } else { "1.1" });
    if kind.extended_l2 {
        options.set("extended_l2", "on");
    }
    if kind.zstd && !kind.data_file {
        options.set("compression_type", "zstd");
    }
    if kind.data_file {
        options.set("data_file", "data");
        if kind.data_file_raw {
            options.set("data_file_raw", "on");
        }
    }
    if kind.lazy_refcounts {
        options.set("lazy_refcounts", "on");
    }
    if kind.backing_bytes > 0 {
        let below = rimg_testkit::guest::GuestContents::new(7, kind.backing_bytes).to_vec();
        let seen = below.len().min(usize::try_from(kind.size_bytes).unwrap());
        model.write(&below[..seen], 0);
        dir.put("base", std::sync::Arc::new(rimg_testkit::MemoryStorage::from(below)));
        options.set("backing_file", "base");
        options.set("backing_fmt", "raw");
    }
    dir.create("disk", "qcow2", kind.size_bytes, &options).unwrap();
    model
}

/// Opens `disk` for writing.
pub(crate) fn open(dir: &MemoryDir) -> Box<dyn BlockImage> {
    dir.open("disk", "qcow2", true).unwrap()
}

/// Makes a change to both an image and the disk that it should be. `Reopen` is the caller's.
pub(crate) fn apply(op: &Op, image: &dyn BlockImage, model: &mut ModelDisk) {
    let size = model.size_bytes();
    let cut = |at: u64, len: u64| {
        let at = at % size;
        at..(at + len).min(size)
    };
    let writer = image.writer().unwrap();
    match op {
        Op::Write { at, len, seed } => {
            let range = cut(*at, *len);
            let bytes = random_bytes(*seed, range.end - range.start);
            writer.write_at(&bytes, range.start).unwrap();
            model.write(&bytes, range.start);
        }
        Op::Zero { at, len } => {
            let range = cut(*at, *len);
            writer.write_zeroes_at(range.clone()).unwrap();
            model.zero(range);
        }
        Op::Discard { at, len } => {
            let range = cut(*at, *len);
            writer.discard_at(range.clone()).unwrap();
            adopt_discard(image, model, range);
        }
        Op::Compressed { cluster, seed } => {
            let Some(compressor) = image.compressor() else { return };
            let cluster_bytes = u64::from(compressor.cluster_bytes());
            let at = cluster % size.div_ceil(cluster_bytes) * cluster_bytes;
            let range = cut(at, cluster_bytes);
            let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
            // Mostly zeroes: compresses, but is not the same everywhere.
            for place in bytes.iter_mut().step_by(17) {
                *place = seed.to_le_bytes()[0];
            }
            compressor.write_compressed_at(&bytes, at).unwrap();
            model.write(&bytes, at);
        }
        Op::Grow { by_sectors } => resize(image, model, size + by_sectors * 512),
        Op::Shrink { to_sectors } => resize(image, model, size.min(to_sectors * 512)),
        Op::Take { date_seconds } => take(image, model, *date_seconds),
        Op::Apply { nth } => {
            let Some(place) = nth.checked_rem(model.snapshot_names().len()) else { return };
            if changed(editor(image).apply(&nth_name(model, place).selector())) {
                model.apply_snapshot(place);
            }
        }
        Op::Delete { nth } => {
            let Some(place) = nth.checked_rem(model.snapshot_names().len()) else { return };
            assert!(changed(editor(image).delete(&nth_name(model, place).selector())));
            model.delete_snapshot(place);
        }
        Op::Flush => writer.flush().unwrap(),
        Op::Reopen => {}
    }
}

/// Snapshots of version 2 stand in the way.
fn resize(image: &dyn BlockImage, model: &mut ModelDisk, size: u64) {
    let grows = size > image.size_bytes();
    let how = match size / 512 % 4 {
        0 if grows => Preallocation::Metadata,
        1 if grows => Preallocation::Full,
        _ => Preallocation::Off,
    };
    match image.resizer().unwrap().resize(size, how) {
        Ok(()) => model.resize(size),
        Err(error) => {
            assert_eq!(error.to_string(), "Can't resize a v2 image which has snapshots");
            assert!(!model.snapshot_names().is_empty());
        }
    }
}

fn take(image: &dyn BlockImage, model: &mut ModelDisk, date_seconds: u32) {
    // No name comes twice, so that it says which snapshot is meant.
    let known = model.snapshot_names();
    let name = (0..).map(|n| format!("s{n}")).find(|name| !known.contains(&name.as_str()));
    let name = name.unwrap();
    let new = NewSnapshot { name: &name, date_seconds, date_nanoseconds: 0 };
    match editor(image).create(&new) {
        Ok(info) => {
            assert_eq!((info.name.as_str(), info.disk_size_bytes), (&*name, model.size_bytes()));
            model.take_snapshot(name);
        }
        Err(error) => assert_too_narrow(&error),
    }
}

/// Whether there was one. Narrow refcounts may not count one more.
fn changed(result: rimg_core::Result<bool>) -> bool {
    match result {
        Ok(found) => {
            assert!(found, "no such snapshot");
            true
        }
        Err(error) => {
            assert_too_narrow(&error);
            false
        }
    }
}

fn assert_too_narrow(error: &Error) {
    let narrow = matches!(error, Error::Limit { what: "refcount", .. });
    let no_snapshots = matches!(error, Error::Unsupported { feature, .. }
        if feature == "snapshots of an image with an external data file");
    assert!(narrow || no_snapshots, "{error:?}");
}

fn editor(image: &dyn BlockImage) -> &dyn SnapshotEdit {
    image.snapshots().unwrap().editor().unwrap()
}

struct Name(String);

impl Name {
    fn selector(&self) -> SnapshotSelector<'_> {
        SnapshotSelector::Fields { id: None, name: Some(&self.0) }
    }
}

fn nth_name(model: &ModelDisk, place: usize) -> Name {
    Name(model.snapshot_names()[place].to_owned())
}

/// Discarded bytes are zeroes or as before, and stay what they are.
fn adopt_discard(image: &dyn BlockImage, model: &mut ModelDisk, range: std::ops::Range<u64>) {
    let before = model.read(range.clone());
    let mut after = vec![0; before.len()];
    image.read_at(&mut after, range.start).unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert!(*after == 0 || after == before, "a discard brought up other bytes");
    }
    model.write(&after, range.start);
}

pub(crate) fn random_bytes(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    Rng::new(seed).fill(&mut bytes);
    bytes
}
