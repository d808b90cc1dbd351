//! Real formats in real files.
#![expect(clippy::unwrap_used, reason = "a failure is a failed test")]

use rimg::{CacheMode, Creator, OpenedImage, Opener};
use rimg_convert::{
    CompareOptions, Comparison, ConvertError, ConvertOptions, Silent, TargetGuard, compare, convert,
};
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const SIZE: u64 = 24 << 20;

/// A raw disk of text-like data with holes.
fn make_source(path: &Path) {
    let text: Vec<u8> = (0_u32..200_000).flat_map(|n| (n / 3).to_string().into_bytes()).collect();
    let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
    for at in [0, 3 << 20, (9 << 20) + 5000, (22 << 20) + 12_288] {
        bytes[at..at + text.len()].copy_from_slice(&text);
    }
    Creator::new("raw").size(SIZE).create(path).unwrap();
    let image = open(path, "raw", true);
    let source = Opener::new().format("raw");
    let whole = path.with_extension("whole");
    fs::write(&whole, bytes).unwrap();
    let whole = source.open(whole).unwrap();
    let mut options = ConvertOptions::default();
    options.target_is_new = true;
    convert(&[&*whole], &*image, &options, &Silent, &AtomicBool::new(false)).unwrap();
    image.close().unwrap();
}

fn open(path: &Path, format: &str, writable: bool) -> OpenedImage {
    Opener::new().format(format).writable(writable).cache(CacheMode::Unsafe).open(path).unwrap()
}

fn copy(from: &OpenedImage, to: &Path, creator: &Creator, format: &str, options: &ConvertOptions) {
    creator.create(to).unwrap();
    let guard = TargetGuard::created([to]);
    let target = open(to, format, true);
    convert(&[&**from], &*target, options, &Silent, &AtomicBool::new(false)).unwrap();
    target.close().unwrap();
    guard.complete();
    let target = open(to, format, false);
    let cancel = AtomicBool::new(false);
    let found = compare(&**from, &*target, &CompareOptions::default(), &Silent, &cancel).unwrap();
    assert_eq!(found, Comparison::default(), "{}", to.display());
}

#[test]
fn every_way_between_raw_and_qcow2_keeps_the_contents_and_the_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    make_source(&path("source.raw"));
    let raw = open(&path("source.raw"), "raw", false);
    let plain = Creator::new("qcow2").size(SIZE);
    let zstd = plain.clone().option("compression_type", "zstd");
    let small = plain.clone().option("cluster_size", "4096");
    let raw_target = Creator::new("raw").size(SIZE);
    for compress in [false, true] {
        for (name, creator) in [("plain", &plain), ("zstd", &zstd), ("small", &small)] {
            let mut first = None;
            for threads in [1, 3] {
                let mut options = ConvertOptions::default();
                options.target_is_new = true;
                options.compress = compress;
                options.threads = NonZeroUsize::new(threads);
                let there = path(&format!("{name}-{compress}-{threads}.qcow2"));
                copy(&raw, &there, creator, "qcow2", &options);
                let bytes = fs::read(&there).unwrap();
                assert!(first.get_or_insert_with(|| bytes.clone()) == &bytes, "{name}");

                // From one qcow2 to another: compressed clusters pass.
                let image = open(&there, "qcow2", false);
                copy(&image, &path("again.qcow2"), creator, "qcow2", &options);
                if compress {
                    assert!(fs::read(path("again.qcow2")).unwrap() == bytes, "{name}");
                }
                options.compress = false;
                copy(&image, &path("back.raw"), &raw_target, "raw", &options);
            }
        }
    }
}

#[test]
fn the_kernel_copies_where_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    make_source(&path("source.raw"));
    let raw = open(&path("source.raw"), "raw", false);
    let mut options = ConvertOptions::default();
    options.target_is_new = true;
    options.copy_offload = true;
    copy(&raw, &path("copy.raw"), &Creator::new("raw").size(SIZE), "raw", &options);
    // Where guest bytes have no place of their own, they are copied as always.
    copy(&raw, &path("copy.qcow2"), &Creator::new("qcow2").size(SIZE), "qcow2", &options);
}

#[test]
fn a_target_that_was_given_up_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    make_source(&path("source.raw"));
    let raw = open(&path("source.raw"), "raw", false);
    Creator::new("qcow2").size(SIZE).create(path("target.qcow2")).unwrap();
    let guard = TargetGuard::created([path("target.qcow2")]);
    let target = open(&path("target.qcow2"), "qcow2", true);
    let options = ConvertOptions::default();
    let result = convert(&[&*raw], &*target, &options, &Silent, &AtomicBool::new(true));
    assert!(matches!(result, Err(ConvertError::Cancelled)));
    drop(target);
    assert!(guard.abandon().is_removed());
    assert!(!path("target.qcow2").exists());
}
