//! Any operations on a new parallels image.
#![no_main]

static DRIVERS: &[&dyn rimg_core::FormatDriver] = &[&rimg_parallels::DRIVER];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rimg_testkit::fuzz::ops(DRIVERS, input);
});
