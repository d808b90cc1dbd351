//! Deflate and zstd of 64 KiB clusters, both ways.
//!
//! The clusters are generated; with `RIMG_BENCH_CLUSTERS=FILE` those of a file are taken as well,
//! one of every 64 up to 64 of them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compress, Compression, FlushCompress};
use rimg_codec::{Codec, Decoder, Encoder, Level};

const CLUSTER: usize = 64 << 10;

criterion_group!(benches, codec);
criterion_main!(benches);

fn codec(criterion: &mut Criterion) {
    let mut inputs = vec![("text", text()), ("records", records()), ("noise", noise())];
    if let Some(file) = std::env::var_os("RIMG_BENCH_CLUSTERS") {
        let bytes = std::fs::read(file).expect("RIMG_BENCH_CLUSTERS is a readable file");
        let some = bytes.chunks_exact(CLUSTER).step_by(64).take(64).flatten().copied().collect();
        inputs.push(("file", some));
    }
    for (name, bytes) in &inputs {
        encode(criterion, name, bytes);
        decode(criterion, name, bytes);
    }
}

fn encode(criterion: &mut Criterion, name: &str, bytes: &[u8]) {
    let mut group = criterion.benchmark_group(format!("encode {name}"));
    group.throughput(throughput(bytes));
    let mut out = Vec::with_capacity(2 * CLUSTER);
    for codec in [Codec::Deflate, Codec::Zstd] {
        for level in [Level::Fast, Level::Default] {
            let mut encoder = Encoder::new(codec, level).expect("the codec is built");
            group.bench_function(format!("{codec} {level:?}"), |b| {
                b.iter(|| {
                    for cluster in bytes.chunks(CLUSTER) {
                        out.clear();
                        black_box(encoder.encode(cluster, &mut out));
                    }
                });
            });
        }
    }
    let mut zlib_rs = Compress::new_with_window_bits(Compression::new(6), false, 12);
    group.bench_function("zlib-rs level 6, for comparison", |b| {
        b.iter(|| {
            for cluster in bytes.chunks(CLUSTER) {
                out.clear();
                zlib_rs.reset();
                zlib_rs
                    .compress_vec(cluster, &mut out, FlushCompress::Finish)
                    .expect("the buffer has room");
                black_box(&out);
            }
        });
    });
    group.finish();
}

fn decode(criterion: &mut Criterion, name: &str, bytes: &[u8]) {
    let mut group = criterion.benchmark_group(format!("decode {name}"));
    group.throughput(throughput(bytes));
    let mut cluster = vec![0; CLUSTER];
    let mut decoder = Decoder::new();
    for codec in [Codec::Deflate, Codec::Zstd] {
        let mut encoder = Encoder::new(codec, Level::Default).expect("the codec is built");
        let encoded: Option<Vec<Vec<u8>>> = bytes
            .chunks_exact(CLUSTER)
            .map(|cluster| {
                let mut out = Vec::new();
                encoder.encode(cluster, &mut out).map(|_| out)
            })
            .collect();
        let Some(encoded) = encoded else { continue };
        group.bench_function(codec.to_string(), |b| {
            b.iter(|| {
                for encoded in &encoded {
                    decoder.decode(codec, encoded, &mut cluster).expect("it was just encoded");
                    black_box(&cluster);
                }
            });
        });
    }
    group.finish();
}

fn throughput(bytes: &[u8]) -> Throughput {
    Throughput::Bytes(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

/// Words with the frequencies of a natural language, roughly.
fn text() -> Vec<u8> {
    let mut state = 1;
    let words = std::iter::repeat_with(|| {
        let pick = next(&mut state);
        let rank = 1_u64 << (pick % 11);
        let word = (pick >> 8) % rank;
        format!("{:x} ", word.wrapping_mul(0x9e37_79b9) >> (word % 20))
    });
    words.flat_map(String::into_bytes).take(8 * CLUSTER).collect()
}

/// Tables of little-endian numbers, as in executables and indexes.
fn records() -> Vec<u8> {
    let mut state = 2;
    let records = (0_u32..).flat_map(|n| {
        let pick = next(&mut state).to_le_bytes();
        let [a, b, c, d] = (n * 48).to_le_bytes();
        [a, b, c, d, pick[0], pick[1] & 7, 0, 0, pick[2] & 1, 0, 0, 0, pick[3], 0x40, 0, 0]
    });
    records.take(8 * CLUSTER).collect()
}

fn noise() -> Vec<u8> {
    let mut state = 3;
    let noise = std::iter::repeat_with(|| next(&mut state).to_le_bytes());
    noise.flatten().take(8 * CLUSTER).collect()
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
