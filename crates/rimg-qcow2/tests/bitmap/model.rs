//! Random changes to an image and its bitmaps, compared with a list of truth values each.

use crate::changes::{Change, Truth, changes, make, name_of};
use crate::common::{DRIVERS, Op, create, kinds, open};
use crate::{findings, runs};
use proptest::prelude::*;
use rimg_core::{BlockImage, FindingKind, RawOptions, Storage};
use rimg_testkit::storages::{Fault, FaultyStorage};
use rimg_testkit::{MemoryDir, MemoryStorage, RecordingStorage};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn bitmaps_are_what_was_written(
        kind in kinds().prop_filter("has bitmaps", |kind| !kind.version_2),
        changes in changes(60),
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
