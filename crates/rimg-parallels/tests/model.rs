//! Random changes against plain bytes.

use rimg_core::FormatDriver;
use rimg_testkit::drill::Drill;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_parallels::DRIVER];

#[test]
fn the_smallest_clusters() {
    Drill::new(DRIVERS, 300 << 10).with("cluster_size", "512").model(20, 40);
}

#[test]
fn clusters_of_no_power_of_two() {
    Drill::new(DRIVERS, 700 << 10).with("cluster_size", "32256").model(20, 40);
}

#[test]
fn large_clusters() {
    Drill::new(DRIVERS, 3 << 20).model(10, 40);
}
