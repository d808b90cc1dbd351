//! Random operations against a disk that is certainly right.

mod common;

use common::DRIVERS;
use rimg_testkit::drill::Drill;

/// Kinds of images that lead through every path.
fn kinds() -> Vec<Drill> {
    vec![
        Drill::new(DRIVERS, 300_032).with("block_size", "4096"),
        Drill::new(DRIVERS, 100_352).with("block_size", "512"),
        Drill::new(DRIVERS, 1_000_448).with("block_size", "65536").with("static", "on"),
        Drill::new(DRIVERS, 5 << 20),
    ]
}

#[test]
fn an_image_is_the_disk_that_was_written() {
    for kind in kinds() {
        kind.model(10, 200);
    }
}

#[test]
fn threads_do_not_get_in_each_others_way() {
    for kind in kinds() {
        kind.concurrent(4, 5);
    }
}

#[test]
fn a_storage_that_fails_costs_no_more_than_the_change() {
    for kind in kinds() {
        kind.failing(10);
    }
}
