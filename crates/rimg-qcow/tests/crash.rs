//! Between two syncs any of the writes may be lost.

use rimg_core::FormatDriver;
use rimg_testkit::drill::Drill;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow::DRIVER];

#[test]
fn one_l2_table() {
    Drill::new(DRIVERS, 100 << 10).crash(8, 12);
}

#[test]
fn over_another_image() {
    Drill::new(DRIVERS, 100 << 10).over(60 << 10).crash(8, 12);
}
