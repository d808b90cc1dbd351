//! Between two syncs any of the writes may be lost.

use rimg_core::FormatDriver;
use rimg_testkit::drill::Drill;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_parallels::DRIVER];

#[test]
fn small_clusters() {
    Drill::new(DRIVERS, 100 << 10).with("cluster_size", "1024").crash(8, 12);
}

#[test]
fn larger_clusters() {
    Drill::new(DRIVERS, 100 << 10).with("cluster_size", "8192").crash(8, 12);
}
