//! What a check finds, and what of it is repaired.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{
    BlockImage, FormatDriver, Limits, OpenOptions, RawOptions, Repair, StorageWrite as _,
};
use rimg_testkit::{MemoryDir, MemoryStorage};
use std::sync::Arc;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow::DRIVER];

/// Four clusters: the L2 table at 4 KiB, data at 8, 12, 16 and 20 KiB.
fn image() -> (MemoryDir, Arc<MemoryStorage>) {
    let dir = MemoryDir::new(DRIVERS);
    let file = Arc::new(MemoryStorage::new());
    dir.put("disk", file.clone());
    dir.create("disk", "qcow", 1 << 20, RawOptions::NONE).unwrap();
    let image = dir.open("disk", "qcow", true).unwrap();
    image.writer().unwrap().write_at(&[7; 16384], 0).unwrap();
    image.close().unwrap();
    (dir, file)
}

/// The messages, and corruptions that are there and that were repaired.
fn check(dir: &MemoryDir, repair: Repair) -> (Vec<String>, u64, u64) {
    let how = OpenOptions {
        writable: repair != Repair::Nothing,
        inspect_only: true,
        limits: Limits::default(),
        gate: dir,
        options: RawOptions::NONE,
    };
    let image: Box<dyn BlockImage> = DRIVERS[0].open(dir.file("disk"), &how).unwrap();
    let mut messages = Vec::new();
    let summary = image.checker().unwrap();
    let summary = summary.check(repair, &mut |found| messages.push(found.message.clone())).unwrap();
    (messages, summary.corruptions, summary.corruptions_fixed)
}

fn set(file: &MemoryStorage, at: u64, entry: u64) {
    file.write_all_at(&entry.to_be_bytes(), at).unwrap();
}

#[test]
fn an_image_that_was_written_is_sound() {
    assert_eq!(check(&image().0, Repair::Nothing), (Vec::new(), 0, 0));
}

#[test]
fn entries_that_lead_nowhere_are_forgotten() {
    let (dir, file) = image();
    set(&file, 4096 + 8, 1 << 40);
    set(&file, 4096 + 16, 1 << 63 | 5 << 51);
    let found = ["cluster 1 lies outside the file", "cluster 2 lies outside the file"];
    let with = |verb: &str| found.map(|what| format!("{verb} {what}")).to_vec();
    assert_eq!(check(&dir, Repair::Nothing), (with("ERROR"), 2, 0));
    assert_eq!(check(&dir, Repair::Leaks), (with("ERROR"), 2, 0));
    assert_eq!(check(&dir, Repair::All), (with("Repairing"), 0, 2));
    assert_eq!(check(&dir, Repair::Nothing), (Vec::new(), 0, 0));
    let mut bytes = vec![1; 16384];
    dir.open("disk", "qcow", false).unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [vec![7; 4096], vec![0; 8192], vec![7; 4096]].concat());
}

#[test]
fn what_is_used_twice_is_found() {
    let (dir, file) = image();
    set(&file, 4096 + 8, 8192);
    set(&file, 4096 + 16, 4096);
    let messages = [1, 2].map(|n| format!("ERROR cluster {n} lies where something else does"));
    assert_eq!(check(&dir, Repair::All), (messages.to_vec(), 2, 0));
}

#[test]
fn a_lost_table_is_found() {
    let (dir, file) = image();
    set(&file, 48, 1 << 50);
    let message = "Repairing L2 table 0 lies outside the file".to_owned();
    assert_eq!(check(&dir, Repair::All), (vec![message], 0, 1));
}
