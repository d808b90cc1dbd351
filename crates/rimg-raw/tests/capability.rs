//! The table of the README is true.

use rimg_core::FormatDriver;
use rimg_testkit::capability::{self, Kind};

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_raw::DRIVER];

#[test]
fn the_readme_tells_the_truth() {
    capability::hold_to_truth(include_str!("../README.md"), &[Kind::created("raw", DRIVERS)]);
}
