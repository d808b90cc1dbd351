//! What is encoded decodes to the same bytes, here and in other implementations.

use flate2::{Decompress, FlushDecompress, Status};
use proptest::prelude::*;
use rimg_codec::{Codec, Decoder, Encoder, Level};

#[cfg(feature = "zstd")]
const CODECS: &[Codec] = &[Codec::Deflate, Codec::Zlib, Codec::Zstd];
#[cfg(not(feature = "zstd"))]
const CODECS: &[Codec] = &[Codec::Deflate, Codec::Zlib];
const LEVELS: [Level; 2] = [Level::Fast, Level::Default];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_cluster_survives(cluster in clusters()) {
        check(&cluster);
    }
}

#[test]
fn every_cluster_size_survives() {
    for bits in 9..=21 {
        let text: Vec<u8> =
            (0_u32..).flat_map(|n| (n / 3).to_string().into_bytes()).take(1 << bits).collect();
        check(&text);
        check(&vec![0; 1 << bits]);
        check(&noise(1 << bits, 7));
    }
}

#[test]
fn sizes_around_those_of_the_format_survive() {
    // Shortest and longest match, the search's look-ahead, stored blocks, the encoder's blocks.
    for around in [0, 3, 8, 258, 4096, 32 << 10, 0xffff, 64 << 10, 2 * 0xffff] {
        for len in (around.max(6_usize) - 6)..around + 7 {
            check(&vec![7; len]);
            check(&b"abcabcabd".repeat(len / 9 + 1)[..len]);
            check(&noise(len, 1));
        }
    }
}

#[test]
fn every_byte_value_survives_alone_and_in_pairs() {
    for byte in 0..=255_u8 {
        check(&[byte; 600]);
        check(&[byte, byte.wrapping_add(1)].repeat(300));
    }
}

#[test]
fn clusters_half_noise_half_text_survive() {
    let mut cluster = noise(48 << 10, 3);
    cluster.extend(b"all work and no play ".repeat(800));
    cluster.extend(noise(70 << 10, 4));
    check(&cluster);
    assert!(encode(Codec::Deflate, Level::Default, &cluster).is_some());
}

#[test]
fn counts_that_ask_for_longer_codes_than_allowed_survive() {
    // Fibonacci numbers make the deepest trees.
    let mut cluster = Vec::new();
    let (mut a, mut b) = (1_usize, 1_usize);
    for symbol in 0..20_u8 {
        for n in 0..a {
            // No three bytes of them repeat soon.
            cluster.push(u8::try_from(n % 251).expect("a byte") ^ symbol);
            cluster.push(symbol);
        }
        (a, b) = (b, a + b);
    }
    check(&cluster);
    // In an order without matches, the literals alone make the tree.
    let mut state = 9_u64;
    for i in (1..cluster.len()).rev() {
        state = step(state);
        cluster.swap(i, usize::try_from(state % rimg_core::num::to_u64(i + 1)).expect("an index"));
    }
    check(&cluster);
}

#[test]
fn matches_reach_back_as_far_as_the_window_and_no_farther() {
    let block = noise(2048, 5);
    for gap in [4096 - 2048 - 1, 4096 - 2048, 4096 - 2048 + 1, 30 << 10, (32 << 10) - 2048 + 1] {
        let cluster = [block.clone(), noise(gap, 6), block.clone()].concat();
        check(&cluster);
        let far = gap + block.len();
        assert_eq!(encode(Codec::Deflate, Level::Default, &cluster).is_some(), far <= 4096);
        assert_eq!(encode(Codec::Zlib, Level::Default, &cluster).is_some(), far <= 32 << 10);
    }
}

#[test]
fn the_same_cluster_gives_the_same_bytes_whatever_came_before() {
    let clusters = [b"hello world, ".repeat(5000), noise(65536, 2), b"hello there, ".repeat(400)];
    for &codec in CODECS {
        let mut reused = Encoder::new(codec, Level::Default).expect("the codec is built");
        for cluster in clusters.iter().chain(clusters.iter().rev()) {
            let mut out = Vec::new();
            let fresh = encode(codec, Level::Default, cluster);
            assert_eq!(reused.encode(cluster, &mut out).map(|_| out), fresh);
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
        (any::<u64>(), 0_usize..40_000).prop_map(|(seed, len)| noise(len, seed)),
    ];
    proptest::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
}

/// Bytes that do not shrink.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let states = std::iter::successors(Some(step(seed ^ 0x5eed)), |&state| Some(step(state)));
    states
        .flat_map(|state| state.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[..4].to_vec())
        .take(len)
        .collect()
}

/// Xorshift.
fn step(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ state << 17
}

fn encode(codec: Codec, level: Level, cluster: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let len = Encoder::new(codec, level).expect("the codec is built").encode(cluster, &mut out);
    assert_eq!(out.len(), 6 + len.unwrap_or(0));
    assert!(len.unwrap_or(0) < cluster.len().max(1));
    len.map(|_| out.split_off(6))
}

fn check(cluster: &[u8]) {
    for &codec in CODECS {
        for level in LEVELS {
            let Some(mut encoded) = encode(codec, level, cluster) else { continue };
            match codec {
                Codec::Deflate => assert_strict(&encoded, cluster, 12, false),
                Codec::Zlib => assert_strict(&encoded, cluster, 15, true),
                _ => assert!(zstd_window(&encoded) <= rimg_core::num::to_u64(cluster.len())),
            }
            encoded.extend_from_slice(&[0xff; 700]);
            let mut decoded = vec![0xee; cluster.len()];
            Decoder::new().decode(codec, &encoded, &mut decoded).expect("it was just encoded");
            assert!(decoded == cluster, "{codec} {level:?} differs");
        }
    }
}

/// The window that a frame asks its reader to keep (RFC 8878 section 3.1.1.1), 0 when that is its
/// content.
fn zstd_window(frame: &[u8]) -> u64 {
    let is_single_segment = frame[4] & 0x20 != 0;
    if is_single_segment {
        return 0;
    }
    let (exponent, mantissa) = (frame[5] >> 3, u64::from(frame[5] & 7));
    let base = 1 << (10 + exponent);
    base + base / 8 * mantissa
}

/// Inflates with no more than the window kept, as a streaming reader does.
fn assert_strict(encoded: &[u8], cluster: &[u8], window_bits: u8, zlib_wrapped: bool) {
    let mut reader = Decompress::new_with_window_bits(zlib_wrapped, window_bits);
    let mut decoded = Vec::new();
    loop {
        let used = usize::try_from(reader.total_in()).expect("it fits in memory");
        let mut piece = [0; 777];
        let before = reader.total_out();
        let status = reader
            .decompress(&encoded[used..], &mut piece, FlushDecompress::None)
            .expect("a valid stream");
        let len = usize::try_from(reader.total_out() - before).expect("it fits in memory");
        decoded.extend_from_slice(&piece[..len]);
        if status == Status::StreamEnd {
            break;
        }
        assert_ne!(len, 0, "the stream ends early");
    }
    assert_eq!(usize::try_from(reader.total_in()).ok(), Some(encoded.len()));
    assert!(decoded == cluster, "another implementation decodes other bytes");
}
