//! Wrong bytes and missing ends.

use rimg_core::FormatDriver;
use rimg_testkit::bounds;
use rimg_testkit::drill::{Drill, MEMORY_BYTES};

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_vhdx::DRIVER];

fn sample() -> Drill {
    Drill::new(DRIVERS, (2 << 20) + 512).with("block_size", "1048576")
}

#[test]
fn any_byte_of_the_metadata_may_be_wrong() {
    bounds::under_memory_limit(MEMORY_BYTES, || {
        assert!(sample().any_wrong_byte(100_000) > 0);
    });
}

#[test]
fn the_file_may_end_anywhere() {
    bounds::under_memory_limit(MEMORY_BYTES, || sample().any_missing_end());
}

#[test]
fn any_field_may_be_extreme() {
    bounds::under_memory_limit(MEMORY_BYTES, || sample().any_extreme_field());
}
