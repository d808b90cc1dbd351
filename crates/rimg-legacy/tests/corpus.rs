//! Replays the seed corpora of the fuzz targets, within bounds of time and memory.

use rimg_testkit::{bounds, fuzz};

#[test]
fn any_bytes_as_a_bochs_image() {
    bounds::under_memory_limit(fuzz::MAX_BYTES, || {
        fuzz::replay("open_bochs", |input| fuzz::open(&rimg_legacy::BOCHS, input));
    });
}

#[test]
fn any_bytes_as_a_cloop_image() {
    bounds::under_memory_limit(fuzz::MAX_BYTES, || {
        fuzz::replay("open_cloop", |input| fuzz::open(&rimg_legacy::CLOOP, input));
    });
}

#[test]
fn any_bytes_as_a_dmg_image() {
    bounds::under_memory_limit(fuzz::MAX_BYTES, || {
        fuzz::replay("open_dmg", |input| fuzz::open(&rimg_legacy::DMG, input));
    });
}
