//! Random changes against plain bytes.

use rimg_core::{FormatDriver, RawOptions};
use rimg_testkit::drill::Drill;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow::DRIVER];

#[test]
fn one_l2_table() {
    Drill::new(DRIVERS, 700 << 10).model(20, 40);
}

#[test]
fn several_l2_tables() {
    Drill::new(DRIVERS, 9 << 20).model(10, 40);
}

#[test]
fn over_a_shorter_image() {
    Drill::new(DRIVERS, 900 << 10).over((300 << 10) + 512).model(20, 40);
}

#[test]
fn over_a_longer_image() {
    Drill::new(DRIVERS, 300 << 10).over(600 << 10).model(10, 40);
}

#[test]
fn encrypted() {
    let drill = Drill::new(DRIVERS, 700 << 10).with("encrypt.format", "aes");
    let secret = RawOptions::new().with("encrypt.key-secret", "s").with_secret("s", "hush".into());
    drill.with("encrypt.key-secret", "s").opened_with(secret).model(10, 40);
}

#[test]
fn a_storage_that_fails_costs_no_more_than_the_change() {
    Drill::new(DRIVERS, 700 << 10).failing(30);
    Drill::new(DRIVERS, 700 << 10).over(300 << 10).failing(30);
}
