//! Threads at work on one image.

use rimg_core::FormatDriver;
use rimg_testkit::drill::Drill;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_parallels::DRIVER];

#[test]
fn threads_share_clusters() {
    Drill::new(DRIVERS, 1 << 20).with("cluster_size", "8192").concurrent(4, 60);
}
