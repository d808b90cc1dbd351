//! Replays the seed corpora of the fuzz targets, within bounds of time and memory.

use rimg_codec::{Codec, Decoder, Encoder, Level};
use rimg_testkit::{bounds, fuzz};

#[test]
fn any_bytes_as_an_encoded_cluster() {
    bounds::under_memory_limit(fuzz::MAX_BYTES, || {
        fuzz::replay("decode", |input| fuzz::decode(input, decode));
    });
}

#[test]
fn any_bytes_as_a_cluster_to_encode() {
    bounds::under_memory_limit(fuzz::MAX_BYTES, || {
        fuzz::replay("encode", |input| fuzz::encode(input, encode, decode));
    });
}

fn decode(codec: Codec, encoded: &[u8], cluster: &mut [u8]) -> Option<Option<usize>> {
    Decoder::new().decode_measured(codec, encoded, cluster).ok()
}

fn encode(codec: Codec, cluster: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    Encoder::new(codec, Level::Default).expect("a codec of this build").encode(cluster, out)
}
