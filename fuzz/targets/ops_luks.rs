//! Any operations on a new LUKS volume.
#![no_main]

static DRIVERS: &[&dyn rimg_core::FormatDriver] = &[&rimg_luks::DRIVER];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rimg_testkit::fuzz::ops(DRIVERS, input);
});
