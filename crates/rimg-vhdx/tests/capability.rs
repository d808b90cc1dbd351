//! The table of the README is true.

mod common;

use common::DRIVERS;
use rimg_testkit::capability::{self, Kind};

#[test]
fn the_readme_tells_the_truth() {
    let small =
        |name| Kind::created(name, DRIVERS).with("block_size", "1048576").in_units_of(1 << 20);
    let kinds = [
        small("dynamic"),
        small("fixed").with("subformat", "fixed"),
        small("differencing").over_own_format(),
    ];
    capability::hold_to_truth(include_str!("../README.md"), &kinds);
}
