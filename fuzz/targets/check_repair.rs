//! Any bytes as a qcow2 image to repair.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rimg_testkit::fuzz::check_repair(&rimg_qcow2::DRIVER, input);
});
