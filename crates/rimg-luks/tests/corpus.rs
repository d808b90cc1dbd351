//! Replays the seed corpus of the fuzz target, within bounds of time and memory.

use rimg_testkit::{bounds, fuzz};

#[test]
fn any_bytes_as_an_image() {
    bounds::under_memory_limit(fuzz::MAX_BYTES, || {
        fuzz::replay("open_luks", |input| fuzz::open(&rimg_luks::DRIVER, input));
    });
}
