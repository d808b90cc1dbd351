//! Threads at work on one image.

use rimg_core::FormatDriver;
use rimg_testkit::drill::Drill;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow::DRIVER];

#[test]
fn threads_share_clusters() {
    Drill::new(DRIVERS, 1 << 20).concurrent(4, 60);
}

#[test]
fn threads_share_clusters_of_an_overlay() {
    Drill::new(DRIVERS, 1 << 20).over(500 << 10).concurrent(4, 60);
}
