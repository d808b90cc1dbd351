//! The table of the README is true.

use rimg_core::{FormatDriver, RawOptions};
use rimg_testkit::capability::{self, Kind};

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow2::DRIVER];

#[test]
fn the_readme_tells_the_truth() {
    let to = |compat: &str| RawOptions::new().with("compat", compat);
    let kinds = [
        Kind::created("version 3", DRIVERS).amended_with(to("0.10")),
        Kind::created("version 2", DRIVERS).with("compat", "0.10").amended_with(to("1.1")),
    ];
    capability::hold_to_truth(include_str!("../README.md"), &kinds);
}
