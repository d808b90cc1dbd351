//! The pieces of converting: telling zeroes from data, walking a chain, moving data between images
//! in memory, comparing.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rimg::{
    ChainExtents, Creator, LocalFiles, MemoryStorage, OpenedImage, Opener, Storage, StorageWrite,
};
use rimg_convert::{CompareOptions, ConvertOptions, Silent, compare, convert};
use rimg_core::zeroes;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const MIB: u64 = 1 << 20;

criterion_group!(benches, zero_detection, extent_walk, raw_copy, raw_compare);
criterion_main!(benches);

fn zero_detection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("zero detection, 1 MiB in pieces of 4 KiB");
    group.throughput(Throughput::Bytes(MIB));
    let zero = vec![0; 1 << 20];
    let mut mixed = zero.clone();
    mixed.chunks_mut(4096).step_by(2).for_each(|page| page.fill(7));
    let data = vec![7; 1 << 20];
    for (name, bytes) in [("zero", &zero), ("every other", &mixed), ("data", &data)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut rest = black_box(bytes.as_slice());
                let mut runs = 0;
                while !rest.is_empty() {
                    rest = rest.split_at(zeroes::run(rest, 4096).0).1;
                    runs += 1;
                }
                runs
            });
        });
    }
    group.finish();
}

fn extent_walk(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let mut group = criterion.benchmark_group("extent walk, 1 GiB, 5000 scattered clusters");
    for depth in [1, 3] {
        let chain = scattered_chain(folder.path(), depth);
        group.bench_function(format!("{depth} deep"), |bencher| {
            bencher.iter(|| ChainExtents::new(&*chain).count());
        });
    }
    group.finish();
}

/// A chain whose images hold every so-manieth cluster each.
fn scattered_chain(folder: &Path, depth: u64) -> OpenedImage {
    let name = |layer: u64| folder.join(format!("{depth}-{layer}.qcow2"));
    for layer in 0..depth {
        let mut creator = Creator::new("qcow2").size(1024 * MIB).policy(LocalFiles);
        if layer > 0 {
            creator = creator.backing(name(layer - 1).to_string_lossy(), "qcow2");
        }
        creator.create(name(layer)).expect("an image");
        let image = Opener::new()
            .format("qcow2")
            .policy(LocalFiles)
            .writable(true)
            .open(name(layer))
            .expect("an image");
        let writer = image.writer().expect("writable");
        writer.relax_until_flush();
        for index in 0..5000 / depth {
            let at = (index * 3 * depth + layer * 3) * 65_536 % (1024 * MIB);
            writer.write_at(&[7; 65_536], at).expect("a write");
        }
        image.close().expect("written");
    }
    Opener::new().format("qcow2").policy(LocalFiles).open(name(depth - 1)).expect("an image")
}

fn raw_copy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("convert raw to raw in memory, 64 MiB");
    group.throughput(Throughput::Bytes(64 * MIB));
    let source = raw(filled());
    let mut options = ConvertOptions::default();
    options.target_is_new = true;
    for threads in [1, 2] {
        options.threads = std::num::NonZeroUsize::new(threads);
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter_batched(
                || raw(Arc::new(MemoryStorage::with_len(64 * MIB))),
                |target| {
                    let cancel = AtomicBool::new(false);
                    convert(&[&*source], &*target, &options, &Silent, &cancel).expect("a copy")
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn raw_compare(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compare raw in memory, 64 MiB");
    group.throughput(Throughput::Bytes(64 * MIB));
    let (first, second) = (raw(filled()), raw(filled()));
    let mut options = CompareOptions::default();
    for threads in [1, 2] {
        options.threads = std::num::NonZeroUsize::new(threads);
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter(|| {
                let cancel = AtomicBool::new(false);
                compare(&*first, &*second, &options, &Silent, &cancel).expect("a comparison")
            });
        });
    }
    group.finish();
}

fn filled() -> Arc<MemoryStorage> {
    let store = MemoryStorage::with_len(64 * MIB);
    for at in (0..64 * MIB).step_by(1 << 20) {
        store.write_all_at(&[7; 1 << 20], at).expect("memory");
    }
    Arc::new(store)
}

fn raw(store: Arc<dyn Storage>) -> OpenedImage {
    Opener::new().format("raw").writable(true).open_storage(store).expect("a raw image")
}
