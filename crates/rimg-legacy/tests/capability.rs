//! The table of the README is true.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, RAW, ZLIB, dmg, samples};
use rimg_testkit::capability::{self, Kind};
use rimg_testkit::legacy::DmgTables;

#[test]
fn the_readme_tells_the_truth() {
    let mut kinds = Vec::new();
    let mut add = |format: &'static str, image: Vec<u8>, disk: Vec<u8>| {
        let kind = Kind::given(format, format, DRIVERS, &[(format, image)], disk);
        kinds.push(kind.asked_for_without_options());
    };
    for format in ["bochs", "cloop"] {
        let sample = samples().into_iter().find(|sample| sample.format == format);
        let sample = sample.unwrap_or_else(|| panic!("no sample of {format}"));
        add(format, sample.image, sample.disk);
    }
    let (image, disk) = dmg(&[RAW, ZLIB], DmgTables::Plist);
    add("dmg", image, disk);
    capability::hold_to_truth(include_str!("../README.md"), &kinds);
}
