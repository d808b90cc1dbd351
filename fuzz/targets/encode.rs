//! Any bytes as a cluster to encode.
#![no_main]

use rimg_codec::{Decoder, Encoder, Level};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rimg_testkit::fuzz::encode(
        input,
        |codec, cluster, out| Encoder::new(codec, Level::Default).ok()?.encode(cluster, out),
        |codec, encoded, cluster| Decoder::new().decode_measured(codec, encoded, cluster).ok(),
    );
});
