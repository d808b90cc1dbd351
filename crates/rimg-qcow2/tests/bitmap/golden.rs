//! The bitmaps of the golden images, as their recipes made them.

use crate::common::DRIVERS;
use crate::{findings, runs};
use rimg_core::BlockImage;
use rimg_storage::MemoryStorage;
use rimg_testkit::{MemoryDir, golden};
use std::ops::Range;
use std::sync::Arc;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn bitmaps_are_those_of_the_recipes() {
    let image = open("qcow2/bitmap.qcow2");
    assert_eq!(list(image.as_ref()), ["changed 65536 enabled"]);
    assert_eq!(runs(image.as_ref(), "changed"), [0..64 * KIB, 2 * MIB..2 * MIB + 64 * KIB]);

    let image = open("qcow2/bitmaps.qcow2");
    let wanted = [
        "left 4096 enabled, in use",
        "stopped 2097152",
        "sectors 512 enabled",
        "full 4096 enabled",
        "empty 4096 enabled",
    ];
    assert_eq!(list(image.as_ref()), wanted);
    assert_eq!(runs(image.as_ref(), "stopped"), [4 * MIB..6 * MIB, 62 * MIB..64 * MIB]);
    assert_eq!(runs(image.as_ref(), "sectors"), [1537 * KIB..1537 * KIB + 512]);
    let all: Range<u64> = 0..64 * MIB;
    assert_eq!(runs(image.as_ref(), "full"), [all]);
    assert_eq!(runs(image.as_ref(), "empty"), []);
    assert_eq!(findings(image.as_ref()), []);
}

/// Runs are cut to what was asked for.
#[test]
fn runs_are_cut_to_the_range() {
    let image = open("qcow2/bitmaps.qcow2");
    let bitmaps = image.bitmaps().unwrap();
    let run = |range| bitmaps.dirty_run("stopped", range).unwrap();
    assert_eq!(run(0..4 * MIB), None);
    assert_eq!(run(0..4 * MIB + 1), Some(4 * MIB..4 * MIB + 1));
    assert_eq!(run(5 * MIB + 7..64 * MIB), Some(5 * MIB + 7..6 * MIB));
    assert_eq!(run(5 * MIB..5 * MIB), None);
    let error = bitmaps.dirty_run("stopped", 0..64 * MIB + 1).unwrap_err();
    assert_eq!(error.to_string(), "misuse: range past the end of the disk");
    let error = bitmaps.dirty_run("none", 0..0).unwrap_err();
    assert_eq!(error.to_string(), "Dirty bitmap 'none' not found");
    assert!(bitmaps.editor().is_none(), "it was opened for reading");
}

fn open(name: &str) -> Box<dyn BlockImage> {
    let dir = MemoryDir::new(DRIVERS);
    let bytes = std::fs::read(golden::testdata().join(name)).unwrap();
    dir.put("disk", Arc::new(MemoryStorage::from(bytes)));
    dir.open("disk", "qcow2", false).unwrap()
}

fn list(image: &dyn BlockImage) -> Vec<String> {
    let list = image.bitmaps().unwrap().list().unwrap();
    let line = |info: &rimg_core::BitmapInfo| {
        let enabled = if info.enabled { " enabled" } else { "" };
        let in_use = if info.in_use { ", in use" } else { "" };
        format!("{} {}{enabled}{in_use}", info.name, info.granularity_bytes)
    };
    list.iter().map(line).collect()
}
