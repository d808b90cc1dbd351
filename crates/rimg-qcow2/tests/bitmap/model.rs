//! Random changes to an image and its bitmaps, compared with a list of truth values each.

use crate::common::{self, DRIVERS, Kind, Op, apply, create, kinds, open};
use crate::{findings, runs};
use proptest::prelude::*;
use rimg_core::{BlockImage, FindingKind, Preallocation, RawOptions, SnapshotSelector, Storage};
use rimg_testkit::storages::{Fault, FaultyStorage};
use rimg_testkit::{MemoryDir, MemoryStorage, RecordingStorage};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

/// A change to an image or to one of its bitmaps.
#[derive(Debug, Clone)]
enum Change {
    Disk(Op),
    Add { name: u8, granularity_bits: Option<u32> },
    Remove { name: u8 },
    Clear { name: u8 },
    Enable { name: u8, enabled: bool },
    Mark { name: u8, at: u64, len: u64 },
    Grow { by_sectors: u64, preallocate: bool },
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let name = 0_u8..4;
    let change = prop_oneof![
        8 => common::ops(2).prop_map(|mut ops| Change::Disk(ops.remove(0))),
        2 => (name.clone(), proptest::option::of(9_u32..22))
            .prop_map(|(name, granularity_bits)| Change::Add { name, granularity_bits }),
        1 => name.clone().prop_map(|name| Change::Remove { name }),
        1 => name.clone().prop_map(|name| Change::Clear { name }),
        1 => (name.clone(), any::<bool>())
            .prop_map(|(name, enabled)| Change::Enable { name, enabled }),
        1 => (name, 0_u64..(2 << 20), 0_u64..200_000)
            .prop_map(|(name, at, len)| Change::Mark { name, at, len }),
        1 => (1_u64..4096, any::<bool>())
            .prop_map(|(by_sectors, preallocate)| Change::Grow { by_sectors, preallocate }),
    ];
    proptest::collection::vec(change, 1..60)
}

/// A bitmap as it should be.
#[derive(Debug, Clone)]
struct Truth {
    granularity: u64,
    enabled: bool,
    bits: Vec<bool>,
}

impl Truth {
    fn set(&mut self, range: &Range<u64>) {
        if !range.is_empty() {
            let first = usize::try_from(range.start / self.granularity).unwrap();
            let last = usize::try_from((range.end - 1) / self.granularity).unwrap();
            self.bits[first..=last].fill(true);
        }
    }

    fn runs(&self, size: u64) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (start, _) in (0..)
            .step_by(usize::try_from(self.granularity).unwrap())
            .zip(&self.bits)
            .filter(|(_, bit)| **bit)
        {
            let end = (start + self.granularity).min(size);
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        runs
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn bitmaps_are_what_was_written(
        kind in kinds().prop_filter("has bitmaps", |kind| !kind.version_2),
        changes in changes(),
    ) {
        let dir = MemoryDir::new(DRIVERS);
        let mut disk = create(&dir, &kind);
        let mut image = open(&dir);
        let mut truth: BTreeMap<u8, Truth> = BTreeMap::new();
        for change in &changes {
            make(change, &kind, image.as_ref(), &mut disk, &mut truth);
            if matches!(change, Change::Disk(Op::Reopen)) {
                image.close().unwrap();
                image = open(&dir);
            }
            if matches!(change, Change::Disk(Op::Reopen | Op::Flush)) {
                prop_assert_eq!(findings(image.as_ref()), []);
            }
        }
        assert_same(image.as_ref(), &truth);
        image.close().unwrap();
        let image = dir.open("disk", "qcow2", false).unwrap();
        prop_assert_eq!(findings(image.as_ref()), []);
        assert_same(image.as_ref(), &truth);
        disk.assert_same(image.as_ref(), "opened again");
    }
}

/// Many write, flush and edit at the same time; in the end every bit is there, and no other.
#[test]
fn concurrent_writers_lose_no_bit() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 60;
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new().with("cluster_size", "4096");
    dir.create("disk", "qcow2", 4 << 20, &options).unwrap();
    let image = open(&dir);
    let editor = image.bitmaps().unwrap().editor().unwrap();
    editor.add("all", Some(512)).unwrap();
    let places = |thread: u64| (0..ROUNDS).map(move |round| (round * THREADS + thread) * 16_384);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let image = image.as_ref();
            scope.spawn(move || {
                let writer = image.writer().unwrap();
                for (round, at) in places(thread).enumerate() {
                    writer.write_at(&[7; 700], at).unwrap();
                    match (round + usize::try_from(thread).unwrap()) % 5 {
                        0 => writer.flush().unwrap(),
                        1 => {
                            let name = format!("{thread} {round}");
                            editor.add(&name, None).unwrap();
                            editor.remove(&name).unwrap();
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    let wanted: Vec<Range<u64>> =
        (0..ROUNDS * THREADS).map(|place| place * 16_384..place * 16_384 + 1024).collect();
    assert_eq!(runs(image.as_ref(), "all"), wanted);
    image.close().unwrap();
    let image = dir.open("disk", "qcow2", false).unwrap();
    assert_eq!(runs(image.as_ref(), "all"), wanted);
    assert_eq!(findings(image.as_ref()), []);
}

/// Wherever storing fails, trying again leads to sound bitmaps that have every bit.
#[test]
fn storing_can_be_tried_again_after_a_failure() {
    let mut failures = 0;
    for nth in 0..30 {
        let dir = MemoryDir::new(DRIVERS);
        let faulty = Arc::new(FaultyStorage::new(Arc::new(MemoryStorage::new())));
        let disk: Arc<dyn Storage> = faulty.clone();
        dir.put("disk", disk);
        let options = RawOptions::new().with("cluster_size", "512");
        dir.create("disk", "qcow2", 1 << 20, &options).unwrap();
        let image = open(&dir);
        let editor = image.bitmaps().unwrap().editor().unwrap();
        let writer = image.writer().unwrap();
        editor.add("first", Some(512)).unwrap();
        writer.write_at(&[7; 5000], 70_000).unwrap();
        writer.flush().unwrap();
        writer.write_at(&[7; 5000], 90_000).unwrap();
        editor.add("second", None).unwrap();
        faulty.fail(Fault::all_after(nth, ErrorKind::StorageFull));
        let failed = writer.flush().is_err();
        failures += usize::from(failed);
        let failed_write = writer.write_at(&[7; 5000], 300_000).is_err();
        assert!(failed_write || !failed);
        faulty.heal();
        writer.write_at(&[7; 5000], 300_000).unwrap();
        image.close().unwrap();
        let image = dir.open("disk", "qcow2", false).unwrap();
        let touched = |at: u64| at / 512 * 512..(at + 5000).next_multiple_of(512);
        assert_eq!(
            runs(image.as_ref(), "first"),
            [touched(70_000), touched(90_000), touched(300_000)],
            "failure after {nth}"
        );
        assert_eq!(runs(image.as_ref(), "second"), [299_008..307_200], "failure after {nth}");
        for (kind, message) in findings(image.as_ref()) {
            assert_eq!(kind, FindingKind::Leak, "{message}: {nth}");
        }
    }
    assert!(failures > 5, "{failures} failures");
}

/// A write costs more than its data only when it is the first since a flush that sets a bit.
#[test]
fn writes_to_followed_disks_are_plain_writes() {
    let dir = MemoryDir::new(DRIVERS);
    let recording = Arc::new(RecordingStorage::new());
    let disk: Arc<dyn Storage> = recording.clone();
    dir.put("disk", disk);
    let options = RawOptions::new().with("preallocation", "full");
    dir.create("disk", "qcow2", 1 << 20, &options).unwrap();
    let image = open(&dir);
    image.bitmaps().unwrap().editor().unwrap().add("one", Some(4096)).unwrap();
    let writer = image.writer().unwrap();
    writer.write_at(&[7; 512], 0).unwrap();
    writer.flush().unwrap();
    let cost = |at: u64| {
        let before = recording.position();
        writer.write_at(&[8; 512], at).unwrap();
        recording.position() - before
    };
    assert_eq!(cost(1024), 1, "set on disk already");
    assert_eq!(cost(8192), 3, "the mark, a sync, the data");
    assert_eq!(cost(16_384), 1, "in use already");
    writer.flush().unwrap();
    assert_eq!(cost(16_384), 1, "set on disk again");
}

/// What is emptied was committed: the guest sees no change, and so do bitmaps.
#[test]
fn emptying_a_layer_sets_no_bits() {
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new().with("backing_file", "base").with("backing_fmt", "raw");
    dir.put("base", Arc::new(MemoryStorage::from(vec![0; 1 << 20])));
    dir.create("disk", "qcow2", 1 << 20, &options).unwrap();
    let image = open(&dir);
    image.bitmaps().unwrap().editor().unwrap().add("one", None).unwrap();
    image.writer().unwrap().write_at(&[7; 512], 70_000).unwrap();
    image.overlay().unwrap().make_empty().unwrap();
    assert_eq!(runs(image.as_ref(), "one"), [65_536..131_072]);
    image.close().unwrap();
    let image = dir.open("disk", "qcow2", false).unwrap();
    assert_eq!(runs(image.as_ref(), "one"), [65_536..131_072]);
    assert_eq!(findings(image.as_ref()), []);
}

fn assert_same(image: &dyn BlockImage, truth: &BTreeMap<u8, Truth>) {
    let mut list: Vec<_> = image.bitmaps().unwrap().list().unwrap();
    list.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(list.len(), truth.len(), "{list:?}");
    for (info, (name, truth)) in list.iter().zip(truth) {
        assert_eq!(info.name, name_of(*name));
        assert_eq!(info.granularity_bytes, truth.granularity);
        assert_eq!((info.enabled, info.in_use), (truth.enabled, false));
        assert_eq!(runs(image, &info.name), truth.runs(image.size_bytes()), "{}", info.name);
    }
}

fn name_of(name: u8) -> String {
    format!("bitmap {name}")
}

fn make(
    change: &Change,
    kind: &Kind,
    image: &dyn BlockImage,
    disk: &mut rimg_testkit::ModelDisk,
    truth: &mut BTreeMap<u8, Truth>,
) {
    let size = disk.size_bytes();
    let cut = |at: u64, len: u64| at % size..(at % size + len).min(size);
    let editor = image.bitmaps().unwrap().editor().unwrap();
    match change {
        Change::Disk(Op::Grow { by_sectors }) => grow(image, disk, truth, *by_sectors, false),
        Change::Grow { by_sectors, preallocate } => {
            grow(image, disk, truth, *by_sectors, *preallocate);
        }
        Change::Disk(Op::Apply { .. }) if !truth.is_empty() => {
            let Some(name) = disk.snapshot_names().first().cloned() else { return };
            let wanted = SnapshotSelector::IdOrName(name);
            let error = image.snapshots().unwrap().editor().unwrap().apply(&wanted).unwrap_err();
            assert_eq!(error.to_string(), "Device has active dirty bitmaps");
        }
        Change::Disk(op) => {
            apply(op, image, disk);
            let size = disk.size_bytes();
            for bitmap in truth.values_mut() {
                let bits = usize::try_from(size.div_ceil(bitmap.granularity)).unwrap();
                bitmap.bits.resize(bits, false);
            }
            let changed = match op {
                Op::Write { at, len, .. } | Op::Zero { at, len } | Op::Discard { at, len } => {
                    cut(*at, *len)
                }
                Op::Compressed { cluster, .. } if !kind.data_file => {
                    let bytes = 1_u64 << kind.cluster_bits;
                    cut(cluster % size.div_ceil(bytes) * bytes, bytes)
                }
                _ => 0..0,
            };
            for bitmap in truth.values_mut().filter(|bitmap| bitmap.enabled) {
                bitmap.set(&changed);
            }
        }
        Change::Add { name, granularity_bits } => {
            let granularity = granularity_bits.map(|bits| 1 << bits);
            let added = editor.add(&name_of(*name), granularity);
            assert_eq!(added.is_ok(), !truth.contains_key(name), "{added:?}");
            let granularity =
                granularity.unwrap_or_else(|| (1 << kind.cluster_bits).clamp(4096, 65536));
            let bits = vec![false; usize::try_from(size.div_ceil(granularity)).unwrap()];
            truth.entry(*name).or_insert(Truth { granularity, enabled: true, bits });
        }
        Change::Remove { name } => {
            let removed = editor.remove(&name_of(*name));
            assert_eq!(removed.is_ok(), truth.remove(name).is_some(), "{removed:?}");
        }
        Change::Clear { name } => {
            let cleared = editor.clear(&name_of(*name));
            assert_eq!(cleared.is_ok(), truth.contains_key(name), "{cleared:?}");
            truth.entry(*name).and_modify(|bitmap| bitmap.bits.fill(false));
        }
        Change::Enable { name, enabled } => {
            let done = editor.set_enabled(&name_of(*name), *enabled);
            assert_eq!(done.is_ok(), truth.contains_key(name), "{done:?}");
            truth.entry(*name).and_modify(|bitmap| bitmap.enabled = *enabled);
        }
        Change::Mark { name, at, len } => {
            let range = cut(*at, *len);
            let marked = editor.mark(&name_of(*name), range.clone());
            assert_eq!(marked.is_ok(), truth.contains_key(name), "{marked:?}");
            truth.entry(*name).and_modify(|bitmap| bitmap.set(&range));
        }
    }
}

fn grow(
    image: &dyn BlockImage,
    disk: &mut rimg_testkit::ModelDisk,
    truth: &mut BTreeMap<u8, Truth>,
    by_sectors: u64,
    preallocate: bool,
) {
    let old = disk.size_bytes();
    let size = old + by_sectors * 512;
    let how = if preallocate { Preallocation::Metadata } else { Preallocation::Off };
    image.resizer().unwrap().resize(size, how).unwrap();
    disk.resize(size);
    for bitmap in truth.values_mut() {
        bitmap.bits.resize(usize::try_from(size.div_ceil(bitmap.granularity)).unwrap(), false);
    }
}
