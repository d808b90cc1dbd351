//! Images with wrong bytes.

use rimg_core::FormatDriver;
use rimg_testkit::bounds;
use rimg_testkit::drill::{Drill, MEMORY_BYTES};

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow::DRIVER];

fn drill() -> Drill {
    Drill::new(DRIVERS, 200 << 10)
}

#[test]
fn any_wrong_byte() {
    bounds::under_memory_limit(MEMORY_BYTES, || {
        let opened = drill().any_wrong_byte(100_000);
        assert!(opened > 10_000, "{opened} opened");
    });
}

#[test]
fn any_missing_end() {
    bounds::under_memory_limit(MEMORY_BYTES, || drill().any_missing_end());
}

#[test]
fn any_extreme_field() {
    bounds::under_memory_limit(MEMORY_BYTES, || drill().any_extreme_field());
}
