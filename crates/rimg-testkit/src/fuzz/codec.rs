//! Encoded clusters, good and bad. The codecs come as functions: nothing here knows them.

use super::input::Input;
use rimg_core::Codec;

const CODECS: [Codec; 3] = [Codec::Deflate, Codec::Zlib, Codec::Zstd];

/// Decodes what need not be decodable, twice, into clusters of a size that the input chooses.
///
/// `decode` fills the cluster that it is given. It answers with the encoded length, `Some(None)`
/// for a stream that goes on after the cluster is full, `None` for a stream that is refused.
///
/// # Panics
/// When `decode` does, claims more bytes than there are, or answers otherwise the second time.
pub fn decode(
    input: &[u8],
    mut decode: impl FnMut(Codec, &[u8], &mut [u8]) -> Option<Option<usize>>,
) {
    let mut input = Input::new(input);
    let codec = CODECS[usize::from(input.byte()) % CODECS.len()];
    let size = input.byte();
    // A cluster's size, or one that is none.
    let size = (256_usize << (size % 9)) + usize::from(size >> 4) * 3;
    let encoded = input.rest();
    let mut cluster = vec![0xA5; size];
    let first = decode(codec, encoded, &mut cluster);
    if let Some(Some(len)) = first {
        assert!(len <= encoded.len(), "{codec}: {len} bytes out of {}", encoded.len());
    }
    let mut again = vec![0x5A; size];
    let second = decode(codec, encoded, &mut again);
    assert_eq!(first, second, "{codec}");
    assert!(first.is_none() || cluster == again, "{codec} decodes to something else again");
}

/// Encodes the input with every codec and decodes it again.
///
/// `encode` appends to the vector and answers with the length, or `None` where the cluster does
/// not shrink; `decode` is as for [`decode`].
///
/// # Panics
/// When the result is another cluster, is not shorter, or is followed by something that disturbs.
pub fn encode(
    cluster: &[u8],
    mut encode: impl FnMut(Codec, &[u8], &mut Vec<u8>) -> Option<usize>,
    mut decode: impl FnMut(Codec, &[u8], &mut [u8]) -> Option<Option<usize>>,
) {
    for codec in CODECS {
        let mut encoded = vec![0xEE];
        let Some(len) = encode(codec, cluster, &mut encoded) else {
            assert_eq!(encoded, [0xEE], "{codec}: left something behind");
            continue;
        };
        assert!(len < cluster.len(), "{codec}: {len} bytes for {}", cluster.len());
        assert_eq!(encoded.len(), len + 1, "{codec}");
        encoded.extend([0xFF; 600]);
        let mut decoded = vec![0xA5; cluster.len()];
        let measured = decode(codec, &encoded[1..], &mut decoded);
        assert_eq!(measured, Some(Some(len)), "{codec}");
        assert!(decoded == cluster, "{codec} does not give back what it got");
    }
}
