//! What a crash leaves of images of a small format.

mod common;

use common::DRIVERS;
use rimg_testkit::drill::Drill;

#[test]
fn a_crash_loses_only_what_was_not_synced() {
    let small = Drill::new(DRIVERS, 64 << 10);
    small.crash(30, 20);
    small.clone().with("block_size", "512").over(80 << 10).crash(30, 20);
    small.with("block_size", "16384").over(40 << 10).crash(30, 20);
}
