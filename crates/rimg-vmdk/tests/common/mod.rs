//! What the tests share.
#![allow(dead_code, reason = "each test uses some of it")]

use rimg_core::FormatDriver;
use rimg_testkit::drill::Drill;

pub(crate) static DRIVERS: &[&dyn FormatDriver] = &[&rimg_vmdk::DRIVER];

/// Kinds of images in one file that lead through every path.
pub(crate) fn kinds() -> Vec<Drill> {
    let small = Drill::new(DRIVERS, 500 << 10);
    vec![
        small.clone(),
        small.clone().with("zeroed_grain", "on"),
        small.clone().over_own_format(300 << 10),
        small.clone().with("zeroed_grain", "on").over_own_format(700 << 10),
        streams(500 << 10),
    ]
}

/// Stream-optimised images.
pub(crate) fn streams(size_bytes: u64) -> Drill {
    Drill::new(DRIVERS, size_bytes).with("subformat", "streamOptimized")
}
