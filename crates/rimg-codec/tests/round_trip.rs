//! What is encoded decodes to the same bytes.

use proptest::prelude::*;
use rimg_codec::{Codec, Decoder, Encoder, Level};

const CODECS: [Codec; 3] = [Codec::Deflate, Codec::Zlib, Codec::Zstd];
const LEVELS: [Level; 2] = [Level::Fast, Level::Default];

proptest! {
    #[test]
    fn clusters_survive(cluster in clusters()) {
        for codec in CODECS {
            for level in LEVELS {
                round_trip(codec, level, &cluster);
            }
        }
    }
}

/// Bytes from alphabets and with repetitions of all kinds.
fn clusters() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..600),
        (any::<u8>(), 0_usize..5000).prop_map(|(byte, len)| vec![byte; len]),
        (proptest::collection::vec(any::<u8>(), 1..40), 1_usize..100)
            .prop_map(|(word, times)| word.repeat(times)),
        proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b' ')], 0..3000),
    ];
    proptest::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
}

fn round_trip(codec: Codec, level: Level, cluster: &[u8]) {
    let mut encoder = Encoder::new(codec, level).expect("all codecs are built");
    let mut out = b"before".to_vec();
    match encoder.encode(cluster, &mut out) {
        None => assert_eq!(out, b"before"),
        Some(len) => {
            assert!(len < cluster.len());
            assert_eq!(out.len(), len + 6);
            out.extend_from_slice(&[0xff; 700]);
            let mut decoded = vec![0xee; cluster.len()];
            let measured = Decoder::new().decode_measured(codec, &out[6..], &mut decoded).unwrap();
            assert_eq!(measured, Some(len), "{codec} {level:?}");
            assert!(decoded == cluster, "{codec} {level:?} differs");
        }
    }
}
