//! Sector ciphers on a megabyte, and how many iterations key derivation does in a second.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rimg_crypto::{CipherSpec, Hash, SectorCipher};

const BYTES: usize = 1 << 20;
const ITERATIONS: u32 = 10_000;

criterion_group!(benches, ciphers, derivation);
criterion_main!(benches);

fn ciphers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cipher");
    group.throughput(Throughput::Bytes(1 << 20));
    for (mode, key_bytes) in
        [("xts-plain64", 64), ("xts-plain64", 32), ("cbc-plain64", 16), ("cbc-essiv:sha256", 32)]
    {
        let spec = CipherSpec::from_luks("aes", mode, key_bytes).expect("a known cipher");
        let cipher = SectorCipher::new(spec, &vec![7; key_bytes]).expect("a fitting key");
        let mut data = vec![1; BYTES];
        let bits = key_bytes * 8;
        group.bench_function(format!("{mode} {bits} bit key, encrypt"), |b| {
            b.iter(|| cipher.encrypt(black_box(&mut data), 1).expect("whole sectors"));
        });
        group.bench_function(format!("{mode} {bits} bit key, decrypt"), |b| {
            b.iter(|| cipher.decrypt(black_box(&mut data), 1).expect("whole sectors"));
        });
    }
    group.finish();
}

fn derivation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pbkdf2");
    group.throughput(Throughput::Elements(ITERATIONS.into()));
    for hash in Hash::ALL {
        group.bench_function(hash.name(), |b| {
            b.iter(|| hash.pbkdf2(b"password", b"salt", ITERATIONS, hash.digest_bytes()));
        });
    }
    group.finish();
}
