//! Any operations on a new qcow2 image.
#![no_main]

static DRIVERS: &[&dyn rimg_core::FormatDriver] = &[&rimg_qcow2::DRIVER];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rimg_testkit::fuzz::ops(DRIVERS, input);
});
