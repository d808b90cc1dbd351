//! Block devices: a loop device, where one can be had (that takes root).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing};
use rimg_storage::{CacheMode, FileOptions, FileStorage};
use std::path::Path;
use std::process::Command;

const DEVICE_BYTES: u64 = 8 << 20;

#[test]
fn a_block_device_is_a_disk_of_fixed_length() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = LoopDevice::new(&dir.path().join("disk")) else {
        rimg_testkit::peer::report_skip("no loop device to be had");
        return;
    };
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let storage = FileStorage::open(&device.0, FileOptions::create().cache(cache)).unwrap();
        assert!(storage.is_device());
        assert_eq!(storage.len_bytes().unwrap(), DEVICE_BYTES);
        assert_eq!(storage.run_at(512).unwrap(), StorageRun::data(DEVICE_BYTES - 512));
        assert_eq!(storage.align_bytes() > 1, cache.is_direct());

        let mut model = vec![7; usize::try_from(DEVICE_BYTES).unwrap()];
        storage.write_all_at(&model, 0).unwrap();
        for (range, how) in [
            (0..1 << 20, Zeroing::MayPunch),
            ((1 << 20) + 100..(2 << 20) + 1, Zeroing::MayPunch),
            (3 << 20..4 << 20, Zeroing::KeepAllocated),
            ((5 << 20) - 9..(5 << 20) + 9, Zeroing::KeepAllocated),
        ] {
            storage.write_zeroes_at(range.clone(), how).unwrap();
            let place = |at| usize::try_from(at).unwrap();
            model[place(range.start)..place(range.end)].fill(0);
        }
        storage.write_all_at(b"not a sector", 1_234_567).unwrap();
        model[1_234_567..][..12].copy_from_slice(b"not a sector");
        storage.sync().unwrap();
        let mut found = vec![1; model.len()];
        storage.read_exact_at(&mut found, 0).unwrap();
        assert!(found == model, "{cache:?}");

        storage.set_len_bytes(100).unwrap();
        assert_eq!(storage.len_bytes().unwrap(), DEVICE_BYTES);
        assert!(storage.set_len_bytes(DEVICE_BYTES + 1).is_err());
        assert!(storage.write_all_at(b"xx", DEVICE_BYTES - 1).is_err());
        let past_the_end = DEVICE_BYTES - 512..DEVICE_BYTES + 512;
        assert!(storage.write_zeroes_at(past_the_end, Zeroing::MayPunch).is_err());
    }
}

struct LoopDevice(String);

impl LoopDevice {
    fn new(file: &Path) -> Option<Self> {
        std::fs::File::create(file).unwrap().set_len(DEVICE_BYTES).unwrap();
        let output = Command::new("losetup").args(["-f", "--show"]).arg(file).output().ok()?;
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(Self(name))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}
