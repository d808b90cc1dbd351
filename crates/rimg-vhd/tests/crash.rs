//! Between two syncs any of the writes may be lost.

mod common;

use common::DRIVERS;
use rimg_testkit::drill::Drill;

#[test]
fn a_crash_loses_only_what_was_not_synced() {
    let small = Drill::new(DRIVERS, 64 << 10).with("force_size", "on");
    small.clone().with("block_size", "4096").crash(25, 20);
    small.clone().with("block_size", "512").crash(25, 20);
    small.clone().with("block_size", "16384").crash(25, 20);
    small.with("block_size", "4096").over_own_format(40 << 10).crash(12, 20);
}
