//! Any bytes as a qcow image.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rimg_testkit::fuzz::open(&rimg_qcow::DRIVER, input);
});
