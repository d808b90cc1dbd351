//! Any answers of an NBD server.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rimg_testkit::fuzz::nbd(input);
});
