//! Replays the seed corpus of the fuzz target, within bounds of time and memory.

use rimg_testkit::{bounds, fuzz};

#[test]
fn any_answers_of_an_nbd_server() {
    bounds::under_memory_limit(fuzz::MAX_BYTES, || fuzz::replay("nbd_client", fuzz::nbd));
}
