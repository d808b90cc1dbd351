//! The engine over a small format, against plain bytes.

mod common;

use common::DRIVERS;
use rimg_testkit::drill::Drill;

/// Kinds of images that lead through every path.
fn kinds() -> Vec<Drill> {
    let small = Drill::new(DRIVERS, 300 << 10);
    vec![
        small.clone(),
        small.clone().with("block_size", "512").over(200 << 10),
        small.clone().with("block_size", "65536").over(400 << 10),
        // Larger than what is put together in memory.
        Drill::new(DRIVERS, 5 << 20).with("block_size", "2097152").over(3 << 20),
        small.clone().with("encrypted", "on").with("block_size", "16384"),
        small.with("encrypted", "on").over(100 << 10),
    ]
}

#[test]
fn an_image_is_the_disk_that_was_written() {
    for kind in kinds() {
        kind.model(20, 200);
    }
}

#[test]
fn threads_do_not_get_in_each_others_way() {
    for kind in kinds() {
        kind.concurrent(4, 8);
    }
}

#[test]
fn a_storage_that_fails_costs_no_more_than_the_change() {
    for kind in kinds() {
        kind.failing(60);
    }
}
