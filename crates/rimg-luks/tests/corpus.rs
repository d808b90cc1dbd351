//! Replays the seed corpora of the fuzz targets, within bounds of time and memory.

use rimg_core::FormatDriver;
use rimg_testkit::{bounds, fuzz};

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_luks::DRIVER];

#[test]
fn any_bytes_as_an_image() {
    bounds::under_memory_limit(fuzz::MAX_BYTES, || {
        fuzz::replay("open_luks", |input| fuzz::open(DRIVERS[0], input));
    });
}

#[test]
fn any_operations_on_a_new_volume() {
    bounds::under_memory_limit(fuzz::MAX_BYTES, || {
        fuzz::replay("ops_luks", |input| fuzz::ops(DRIVERS, input));
    });
}
