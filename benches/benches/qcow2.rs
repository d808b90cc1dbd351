//! The pieces of a qcow2 image: L2 look-ups, walks over extents, random reads and writes.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rimg_core::{BlockImage, FormatDriver, RawOptions};
use rimg_testkit::{MemoryDir, Rng};
use std::hint::black_box;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_qcow2::DRIVER];

const MIB: u64 = 1 << 20;
const SIZE: u64 = 256 * MIB;
const BLOCK: u64 = 4096;

/// An image with data in every second cluster.
fn image(options: &RawOptions) -> (MemoryDir, Box<dyn BlockImage>) {
    let dir = MemoryDir::new(DRIVERS);
    dir.create("disk", "qcow2", SIZE, options).expect("it can be created");
    let image = dir.open("disk", "qcow2", true).expect("it was just created");
    let writer = image.writer().expect("it was opened for writing");
    writer.relax_until_flush();
    let cluster = vec![0xa5; 64 << 10];
    for at in (0..SIZE).step_by(128 << 10) {
        writer.write_at(&cluster, at).expect("memory takes it");
    }
    writer.flush().expect("memory takes it");
    (dir, image)
}

fn lookup(c: &mut Criterion) {
    let (_dir, image) = image(&RawOptions::new());
    let mut rng = Rng::new(1);
    c.bench_function("qcow2/L2 look-up", |b| {
        b.iter(|| {
            let at = rng.below(SIZE / BLOCK) * BLOCK;
            black_box(image.extent_at(at..at + BLOCK).expect("it is mapped"))
        });
    });
}

fn walk(c: &mut Criterion) {
    let mut group = c.benchmark_group("qcow2/extent walk");
    let kinds = [
        ("plain", RawOptions::new()),
        ("extended L2", RawOptions::new().with("extended_l2", "on")),
        ("4 KiB clusters", RawOptions::new().with("cluster_size", "4096")),
    ];
    for (name, options) in kinds {
        let (_dir, image) = image(&options);
        group.throughput(Throughput::Elements(SIZE / (64 << 10)));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut at = 0;
                while at < SIZE {
                    at += image.extent_at(at..SIZE).expect("it is mapped").len_bytes;
                }
                black_box(at)
            });
        });
    }
    group.finish();
}

fn random_io(c: &mut Criterion) {
    let (_dir, image) = image(&RawOptions::new());
    let mut group = c.benchmark_group("qcow2/random 4 KiB");
    group.throughput(Throughput::Bytes(BLOCK));
    let mut rng = Rng::new(2);
    let mut buf = vec![0; 4096];
    group.bench_function("read", |b| {
        b.iter(|| {
            let at = rng.below(SIZE / BLOCK) * BLOCK;
            image.read_at(&mut buf, at).expect("it is there");
        });
    });
    let writer = image.writer().expect("it was opened for writing");
    let block = vec![0x5a; 4096];
    group.bench_function("overwrite", |b| {
        b.iter(|| {
            let at = rng.below(SIZE / (128 << 10)) * (128 << 10);
            writer.write_at(&block, at).expect("memory takes it");
        });
    });
    group.bench_function("allocate", |b| {
        b.iter_batched_ref(
            || {
                let dir = MemoryDir::new(DRIVERS);
                dir.create("disk", "qcow2", SIZE, &RawOptions::new()).expect("it can be created");
                dir.open("disk", "qcow2", true).expect("it was just created")
            },
            |image| {
                let writer = image.writer().expect("it was opened for writing");
                writer.write_at(&block, 77 * MIB).expect("memory takes it");
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, lookup, walk, random_io);
criterion_main!(benches);
