//! Wrong bytes and missing ends.

mod common;

use common::{DRIVERS, kinds};
use rimg_testkit::drill::Drill;

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
