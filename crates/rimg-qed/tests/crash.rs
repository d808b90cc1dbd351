//! Between two syncs any of the writes may be lost.

use rimg_core::FormatDriver;
use rimg_testkit::drill::Drill;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qed::DRIVER];

#[test]
fn small_clusters() {
    let drill = Drill::new(DRIVERS, 100 << 10).with("cluster_size", "4096");
    drill.with("table_size", "1").crash(8, 12);
}

#[test]
fn over_another_image() {
    let drill = Drill::new(DRIVERS, 100 << 10).with("cluster_size", "4096");
    drill.with("table_size", "2").over(60 << 10).crash(8, 12);
}
