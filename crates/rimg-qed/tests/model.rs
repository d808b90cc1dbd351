//! Random changes against plain bytes.

use rimg_core::FormatDriver;
use rimg_testkit::drill::Drill;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qed::DRIVER];

#[test]
fn small_clusters() {
    let drill = Drill::new(DRIVERS, 700 << 10).with("cluster_size", "4096");
    drill.with("table_size", "1").model(20, 40);
}

#[test]
fn several_l2_tables() {
    let drill = Drill::new(DRIVERS, 9 << 20).with("cluster_size", "4096").with("table_size", "2");
    drill.model(10, 40);
}

#[test]
fn large_clusters() {
    Drill::new(DRIVERS, 3 << 20).model(10, 40);
}

#[test]
fn over_a_shorter_image() {
    let drill = Drill::new(DRIVERS, 900 << 10).with("cluster_size", "8192");
    drill.over((300 << 10) + 512).model(20, 40);
}

#[test]
fn over_a_longer_image() {
    Drill::new(DRIVERS, 300 << 10).with("cluster_size", "4096").over(600 << 10).model(10, 40);
}

#[test]
fn a_storage_that_fails_costs_no_more_than_the_change() {
    let small = Drill::new(DRIVERS, 700 << 10).with("cluster_size", "4096");
    small.clone().failing(30);
    small.over(300 << 10).failing(30);
}
