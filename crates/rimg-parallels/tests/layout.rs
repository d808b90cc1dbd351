//! What becomes of a Format Extension when the disk is changed.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{FormatDriver, RawOptions, Storage};
use rimg_testkit::{MemoryDir, MemoryStorage};
use std::sync::Arc;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_parallels::DRIVER];

const CLOSED: u32 = 0x312e_3276;
const DIRTY_BITMAP: u64 = 0x2038_5fae_252c_b34a;
const NECESSARY: u64 = 1;
const TRANSIT: u64 = 2;

/// An image with clusters of 4 KiB, a Format Extension in its second one, and nothing else.
fn image_with(features: &[(u64, u64)]) -> (MemoryDir, Arc<MemoryStorage>) {
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new().with("cluster_size", "4096");
    dir.create("made", "parallels", 1 << 16, &options).unwrap();
    let mut bytes = vec![0; 4096];
    dir.file("made").read_exact_at(&mut bytes, 0).unwrap();
    bytes[44..48].copy_from_slice(&CLOSED.to_le_bytes());
    bytes[56..64].copy_from_slice(&8_u64.to_le_bytes());
    bytes.extend_from_slice(&0xab23_4cef_23dc_ea87_u64.to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    for (magic, flags) in features {
        bytes.extend_from_slice(&magic.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
    }
    bytes.resize(8192, 0);
    let file = Arc::new(MemoryStorage::from(bytes));
    dir.put("disk", file.clone());
    (dir, file)
}

/// in_use and ext_off.
fn marks(file: &MemoryStorage) -> (u32, u64) {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).unwrap();
    let in_use = u32::from_le_bytes(header[44..48].try_into().unwrap());
    (in_use, u64::from_le_bytes(header[56..].try_into().unwrap()))
}

fn write_a_little(dir: &MemoryDir) {
    let image = dir.open("disk", "parallels", true).unwrap();
    image.writer().unwrap().write_at(b"hello", 100).unwrap();
    image.close().unwrap();
}

#[test]
fn reading_changes_nothing() {
    let (dir, file) = image_with(&[(DIRTY_BITMAP, 0)]);
    dir.open("disk", "parallels", false).unwrap().close().unwrap();
    dir.open("disk", "parallels", true).unwrap().close().unwrap();
    assert_eq!(marks(&file), (CLOSED, 8));
    assert_eq!(file.len_bytes().unwrap(), 8192);
}

#[test]
fn bitmaps_that_are_not_kept_up_go() {
    let (dir, file) = image_with(&[(DIRTY_BITMAP, 0), (77, 0)]);
    write_a_little(&dir);
    assert_eq!(marks(&file), (0, 0));
    // Its place is free now.
    assert_eq!(file.len_bytes().unwrap(), 8192);
}

#[test]
fn what_is_in_transit_stays_with_all_that_it_may_need() {
    let (dir, file) = image_with(&[(77, TRANSIT)]);
    write_a_little(&dir);
    assert_eq!(marks(&file), (CLOSED, 8));
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 4096).unwrap();
    assert_eq!(u64::from_le_bytes(magic), 0xab23_4cef_23dc_ea87);
    assert_eq!(file.len_bytes().unwrap(), 12288);
}

#[test]
fn what_is_necessary_keeps_the_disk_from_being_changed() {
    let (dir, file) = image_with(&[(77, NECESSARY)]);
    let error = dir.open("disk", "parallels", true).unwrap_err().to_string();
    assert_eq!(error, "unsupported parallels feature: writing with necessary extension 0x4d");
    assert!(dir.open("disk", "parallels", false).is_ok());
    assert_eq!(marks(&file), (CLOSED, 8));
}
