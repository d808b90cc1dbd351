//! Images of every kind, against plain bytes.

mod common;

use common::{DRIVERS, kinds, streams};
use rimg_testkit::drill::Drill;

#[test]
fn an_image_is_the_disk_that_was_written() {
    for kind in kinds() {
        kind.model(20, 200);
    }
    let small = Drill::new(DRIVERS, 500 << 10);
    for subformat in ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        small.clone().with("subformat", subformat).model(5, 200);
    }
    small.with("subformat", "twoGbMaxExtentSparse").over_own_format(300 << 10).model(5, 200);
    // More than one grain table.
    Drill::new(DRIVERS, 80 << 20).model(1, 60);
    streams(80 << 20).model(1, 60);
}

#[test]
fn threads_do_not_get_in_each_others_way() {
    for kind in kinds() {
        kind.concurrent(4, 4);
    }
}

#[test]
fn a_storage_that_fails_costs_no_more_than_the_change() {
    for kind in kinds() {
        kind.failing(10);
    }
}
