//! Wrong bytes and missing ends.

mod common;

use common::{DRIVERS, kinds};
use rimg_core::{RawOptions, StorageWrite as _};
use rimg_testkit::drill::{Drill, survive};
use rimg_testkit::vmdk::{Grain, cowd};
use rimg_testkit::{MemoryStorage, Rng};
use std::collections::BTreeMap;

#[test]
fn no_wrong_byte_does_harm() {
    for kind in kinds() {
        let opened = kind.any_wrong_byte(20_000);
        assert!(opened > 1000, "{opened} of 20000 images opened: {kind:?}");
    }
}

#[test]
fn no_missing_end_does_harm() {
    for kind in kinds() {
        kind.any_missing_end();
    }
}

#[test]
fn no_extreme_number_does_harm() {
    for kind in kinds() {
        kind.any_extreme_field();
    }
}

#[test]
fn no_wrong_byte_of_a_descriptor_does_harm() {
    let flat = Drill::new(DRIVERS, 64 << 10).with("subformat", "monolithicFlat");
    let opened = flat.any_wrong_byte(20_000);
    assert!(opened > 1000, "{opened} of 20000 images opened");
}

#[test]
fn no_wrong_byte_of_a_cowd_extent_does_harm() {
    let grains: BTreeMap<u32, Grain> =
        [0, 1, 5, 4096].map(|grain| (grain, Grain::Data(vec![1; 512]))).into();
    let file = cowd(5000, 1, &grains);
    let mut rng = Rng::new(1);
    let mut opened = 0;
    for _ in 0..5_000 {
        // Header, directory, and the beginnings of both tables.
        let at = match rng.below(4) {
            0 | 1 => rng.below(64),
            2 => 2048 + rng.below(16),
            _ => 2560 + rng.below(32),
        };
        let storage = MemoryStorage::from(file.clone());
        let byte = u8::try_from(rng.below(256)).unwrap();
        storage.write_all_at(&[byte], at).unwrap();
        let what = format!("{byte:#04x} at {at:#x}");
        opened += u64::from(survive(&what, DRIVERS[0], &storage, RawOptions::NONE, true));
    }
    assert!(opened > 500, "{opened} of 5000 images opened");
}
