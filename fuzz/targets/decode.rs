//! Any bytes as an encoded cluster.
#![no_main]

use rimg_codec::Decoder;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rimg_testkit::fuzz::decode(input, |codec, encoded, cluster| {
        Decoder::new().decode_measured(codec, encoded, cluster).ok()
    });
});
