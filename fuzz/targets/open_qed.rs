//! Any bytes as a qed image.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rimg_testkit::fuzz::open(&rimg_qed::DRIVER, input);
});
