//! Which streams are taken and which are refused, as qemu-img does.

use flate2::{Compress, Compression, FlushCompress};
use rimg_codec::{Codec, CodecUnavailable, DecodeError, Decoder, Encoder, Level};

const CLUSTER: usize = 65536;

#[test]
fn deflate_may_end_in_other_data() {
    let mut encoded = deflate(&text(CLUSTER), 12);
    encoded.extend_from_slice(&[0xff; 3000]);
    assert_eq!(decode(Codec::Deflate, &encoded), Ok(text(CLUSTER)));
}

#[test]
fn deflate_may_hold_more_than_the_cluster() {
    assert_eq!(decode(Codec::Deflate, &deflate(&text(CLUSTER + 5000), 12)), Ok(text(CLUSTER)));
}

#[test]
fn deflate_must_not_hold_less_than_the_cluster() {
    let short =
        DecodeError::Short { codec: Codec::Deflate, decoded: CLUSTER - 1, cluster: CLUSTER };
    assert_eq!(decode(Codec::Deflate, &deflate(&text(CLUSTER - 1), 12)), Err(short));
}

#[test]
fn deflate_may_reach_back_32_kib() {
    let block = noise(20_000);
    let cluster = [&*block, &*block, &*block, &block[..CLUSTER - 60_000]].concat();
    let encoded = deflate(&cluster, 15);
    assert!(encoded.len() < 25_000);
    assert_eq!(decode(Codec::Deflate, &encoded), Ok(cluster));
}

#[test]
fn deflate_must_not_be_cut_off() {
    let encoded = deflate(&text(CLUSTER), 12);
    for len in [0, 1, encoded.len() / 2, encoded.len() - 1] {
        assert_eq!(
            decode(Codec::Deflate, &encoded[..len]),
            Err(DecodeError::Truncated(Codec::Deflate))
        );
    }
}

#[test]
fn deflate_must_not_be_wrapped() {
    assert!(decode(Codec::Deflate, &zlib(&text(CLUSTER))).is_err());
}

#[test]
fn zlib_is_checked() {
    let mut encoded = zlib(&text(CLUSTER));
    assert_eq!(decode(Codec::Zlib, &encoded), Ok(text(CLUSTER)));
    *encoded.last_mut().expect("a trailer") ^= 1;
    assert_eq!(decode(Codec::Zlib, &encoded), Err(DecodeError::Checksum(Codec::Zlib)));
}

#[test]
fn a_refused_stream_leaves_no_trace() {
    let mut decoder = Decoder::new();
    let mut cluster = vec![0; CLUSTER];
    let over = deflate(&text(CLUSTER + 5000), 12);
    let good = deflate(&text(CLUSTER), 12);
    for bad in [&over[..], &good[..good.len() / 2], &[0xff; 100]] {
        let _ = decoder.decode(Codec::Deflate, bad, &mut cluster);
        decoder.decode(Codec::Deflate, &good, &mut cluster).expect("a good stream");
        assert_eq!(cluster, text(CLUSTER));
    }
}

#[cfg(feature = "zstd")]
mod zstd {
    use super::*;

    #[test]
    fn may_consist_of_several_frames_and_end_in_other_data() {
        let cluster = text(CLUSTER);
        let skippable = b"\x50\x2a\x4d\x18\x05\0\0\0hello";
        let mut encoded = skippable.to_vec();
        encoded.extend(frame(&cluster[..30_000]));
        encoded.extend(skippable);
        encoded.extend(frame(&cluster[30_000..]));
        encoded.extend_from_slice(&[0xff; 2000]);
        assert_eq!(decode(Codec::Zstd, &encoded), Ok(cluster));
    }

    #[test]
    fn must_end_where_the_cluster_does() {
        let long = DecodeError::Long { codec: Codec::Zstd, cluster: CLUSTER };
        assert_eq!(decode(Codec::Zstd, &frame(&text(CLUSTER + 5000))), Err(long));
        let two = [frame(&text(30_000)), frame(&text(CLUSTER - 30_000 + 1))].concat();
        assert_eq!(decode(Codec::Zstd, &two), Err(long));
        let short =
            DecodeError::Short { codec: Codec::Zstd, decoded: CLUSTER - 1, cluster: CLUSTER };
        assert_eq!(decode(Codec::Zstd, &frame(&text(CLUSTER - 1))), Err(short));
    }

    #[test]
    fn must_not_be_cut_off() {
        let encoded = frame(&text(CLUSTER));
        for len in [encoded.len() / 2, encoded.len() - 1] {
            assert_eq!(
                decode(Codec::Zstd, &encoded[..len]),
                Err(DecodeError::Truncated(Codec::Zstd))
            );
        }
        assert!(decode(Codec::Zstd, &encoded[..3]).is_err());
    }

    #[test]
    fn checksums_are_checked() {
        use structured_zstd::encoding::{CompressionLevel, FrameCompressor};
        let mut compressor: FrameCompressor = FrameCompressor::new(CompressionLevel::Level(3));
        compressor.set_content_checksum(true);
        let mut encoded = compressor.compress_independent_frame(&text(CLUSTER));
        assert_eq!(decode(Codec::Zstd, &encoded), Ok(text(CLUSTER)));
        *encoded.last_mut().expect("a checksum") ^= 1;
        assert_eq!(decode(Codec::Zstd, &encoded), Err(DecodeError::Checksum(Codec::Zstd)));
    }

    #[test]
    fn windows_wider_than_the_cluster_are_no_reason_to_refuse() {
        // Magic, descriptor without sizes, window of 128 MiB, one last RLE block of the cluster.
        let encoded = [b"\x28\xb5\x2f\xfd\x00\x88".as_slice(), b"\x03\x00\x08z"].concat();
        assert_eq!(decode(Codec::Zstd, &encoded), Ok(vec![b'z'; CLUSTER]));
    }

    fn frame(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(Codec::Zstd, Level::Default).expect("zstd is built");
        encoder.encode(bytes, &mut out).expect("text shrinks");
        out
    }
}

#[cfg(not(feature = "zstd"))]
#[test]
fn zstd_is_named_when_it_is_not_built() {
    let unavailable = CodecUnavailable(Codec::Zstd);
    assert_eq!(unavailable.to_string(), "built without zstd");
    assert_eq!(Encoder::new(Codec::Zstd, Level::Default).err(), Some(unavailable));
    assert_eq!(decode(Codec::Zstd, &[]), Err(DecodeError::Unavailable(unavailable)));
}

#[cfg(feature = "zstd")]
#[test]
fn all_codecs_are_built() {
    for codec in [Codec::Deflate, Codec::Zlib, Codec::Zstd] {
        let built: Result<Encoder, CodecUnavailable> = Encoder::new(codec, Level::Default);
        assert!(built.is_ok());
    }
}

fn decode(codec: Codec, encoded: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut cluster = vec![0xee; CLUSTER];
    Decoder::new().decode(codec, encoded, &mut cluster)?;
    Ok(cluster)
}

fn text(len: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| format!("line {n} of text\n").into_bytes()).take(len).collect()
}

fn noise(len: usize) -> Vec<u8> {
    let next = |&state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    std::iter::successors(Some(1), next).map(|state| state.to_be_bytes()[0]).take(len).collect()
}

fn deflate(bytes: &[u8], window_bits: u8) -> Vec<u8> {
    compress(Compress::new_with_window_bits(Compression::default(), false, window_bits), bytes)
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    compress(Compress::new(Compression::default(), true), bytes)
}

fn compress(mut compressor: Compress, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 2 + 100);
    compressor.compress_vec(bytes, &mut out, FlushCompress::Finish).expect("room for it");
    out
}
