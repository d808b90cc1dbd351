//! Random changes to images of every kind, compared with plain bytes.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, Kind, Op, apply, create, create_with, kinds, open, ops};
use proptest::prelude::*;
use rimg_core::{Error, FindingKind, Preallocation, RawOptions, Repair, Storage};
use rimg_testkit::storages::{Fault, FaultyStorage};
use rimg_testkit::{MemoryDir, MemoryStorage, Rng};
use std::io::ErrorKind;
use std::sync::Arc;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(common::cases(200)))]

    #[test]
    fn an_image_is_the_disk_that_was_written(kind in kinds(), ops in ops(60)) {
        let dir = MemoryDir::new(DRIVERS);
        let mut model = create(&dir, &kind);
        let mut image = open(&dir);
        model.assert_same(image.as_ref(), "new");
        for op in &ops {
            if matches!(op, Op::Reopen) {
                image.close().unwrap();
                image = open(&dir);
                assert_sound(image.as_ref());
                model.assert_same_snapshots(image.as_ref(), "on the way");
            }
            apply(op, image.as_ref(), &mut model);
        }
        model.assert_same(image.as_ref(), "written");
        image.close().unwrap();
        let image = dir.open("disk", "qcow2", false).unwrap();
        model.assert_same(image.as_ref(), "opened again");
        model.assert_same_snapshots(image.as_ref(), "opened again");
        assert_sound(image.as_ref());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(common::cases(100)))]

    #[test]
    fn an_encrypted_image_is_the_disk_that_was_written(
        // The zeroes of a raw data file are none when they are decrypted.
        kind in kinds().prop_filter("no raw data file", |kind| !kind.data_file_raw),
        ops in ops(40), format in prop_oneof![Just("aes"), Just("luks")],
    ) {
        let secret = || RawOptions::new().with_secret("s", "swordfish".into());
        let mut new = secret().with("encrypt.format", format).with("encrypt.key-secret", "s");
        if format == "luks" {
            new.set("encrypt.iter-time", "0");
        }
        let key = secret().with("encrypt.key-secret", "s");
        let dir = MemoryDir::new(DRIVERS);
        let open = || dir.open_with("disk", "qcow2", true, &key).unwrap();
        let mut model = create_with(&dir, &kind, new);
        let mut image = open();
        model.assert_same(image.as_ref(), "new");
        for op in &ops {
            if matches!(op, Op::Reopen) {
                image.close().unwrap();
                image = open();
                assert_sound(image.as_ref());
            }
            apply(op, image.as_ref(), &mut model);
        }
        model.assert_same(image.as_ref(), "written");
        image.close().unwrap();
        let image = open();
        model.assert_same(image.as_ref(), "opened again");
        assert_sound(image.as_ref());
    }
}

/// Long runs wear tables out: freed clusters are used again, tables move.
#[test]
fn ten_thousand_steps_lead_where_they_should() {
    for (seed, cluster_bits, refcount_bits) in [(1, 9, 16), (2, 9, 1), (3, 12, 64), (4, 16, 16)] {
        let kind = Kind {
            cluster_bits,
            extended_l2: cluster_bits >= 14,
            version_2: false,
            refcount_bits,
            zstd: seed % 2 == 0,
            data_file: false,
            data_file_raw: false,
            lazy_refcounts: seed % 2 == 1,
            backing_bytes: 500_000,
            size_bytes: 1 << 20,
        };
        let dir = MemoryDir::new(DRIVERS);
        let mut model = create(&dir, &kind);
        let mut image = open(&dir);
        let mut rng = Rng::new(seed);
        for step in 0..10_000 {
            if step % 1000 == 999 {
                model.assert_same(image.as_ref(), &format!("step {step}, seed {seed}"));
                image.close().unwrap();
                image = open(&dir);
                assert_sound(image.as_ref());
            }
            let (at, len) = (rng.below(2 << 20), 1 + rng.below(8000));
            let op = match rng.below(40) {
                0..=17 => Op::Write { at, len, seed: rng.next_u64() },
                18..=23 => Op::Zero { at, len },
                24..=29 => Op::Discard { at, len },
                30..=37 => Op::Compressed { cluster: at >> 9, seed: rng.next_u64() },
                38 if model.size_bytes() < 2 << 20 => Op::Grow { by_sectors: 1 + rng.below(16) },
                _ => Op::Flush,
            };
            apply(&op, image.as_ref(), &mut model);
        }
        image.close().unwrap();
        let image = dir.open("disk", "qcow2", false).unwrap();
        model.assert_same(image.as_ref(), &format!("the end, seed {seed}"));
        assert_sound(image.as_ref());
    }
}

fn assert_sound(image: &dyn rimg_core::BlockImage) {
    let mut findings = Vec::new();
    image
        .checker()
        .unwrap()
        .check(Repair::Nothing, &mut |finding| findings.push(finding.message.clone()))
        .unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// Growing moves the L1 table; wherever that fails, trying again leads to a sound image.
#[test]
fn growing_can_be_tried_again_after_a_failure() {
    let mut failures = 0;
    for nth in 0..40 {
        let dir = MemoryDir::new(DRIVERS);
        let faulty = Arc::new(FaultyStorage::new(Arc::new(MemoryStorage::new())));
        let disk: Arc<dyn Storage> = faulty.clone();
        dir.put("disk", disk);
        let options = RawOptions::new().with("cluster_size", "512");
        dir.create("disk", "qcow2", 1 << 20, &options).unwrap();
        let image = open(&dir);
        image.writer().unwrap().write_at(&[7; 512], 0).unwrap();
        faulty.fail(Fault::all_after(nth, ErrorKind::StorageFull));
        let grow = || image.resizer().unwrap().resize(64 << 20, Preallocation::Off);
        failures += usize::from(grow().is_err());
        faulty.heal();
        grow().unwrap();
        image.writer().unwrap().write_at(&[9; 512], (64 << 20) - 512).unwrap();
        image.close().unwrap();
        let image = open(&dir);
        let mut sector = [0; 512];
        image.read_at(&mut sector, (64 << 20) - 512).unwrap();
        assert_eq!(sector, [9; 512], "failure after {nth}");
        image
            .checker()
            .unwrap()
            .check(Repair::Nothing, &mut |finding| {
                assert_eq!(finding.kind, FindingKind::Leak, "{}: {nth}", finding.message);
            })
            .unwrap();
    }
    assert!(failures > 0, "nothing failed");
}

/// A refcount block of 2 MiB takes many slices of the cache at once.
#[test]
fn refcount_blocks_of_the_largest_clusters_can_be_added() {
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new().with("cluster_size", "2097152").with("refcount_bits", "64");
    dir.create("disk", "qcow2", 1 << 30, &options).unwrap();
    let image = open(&dir);
    // The first block describes 512 GiB.
    image.resizer().unwrap().resize(700 << 30, Preallocation::Metadata).unwrap();
    image.close().unwrap();
    assert_sound(dir.open("disk", "qcow2", false).unwrap().as_ref());
}

/// A table that leads to one full block over and over has no free cluster for terabytes.
#[test]
fn a_refcount_block_belongs_to_one_entry() {
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new().with("cluster_size", "512");
    dir.create("disk", "qcow2", 1 << 20, &options).unwrap();
    let disk = dir.file("disk");
    let mut entry = [0; 8];
    disk.read_exact_at(&mut entry, 512).unwrap();
    disk.writer().unwrap().write_all_at(&entry, 520).unwrap();
    let error = dir.open("disk", "qcow2", true).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    dir.open("disk", "qcow2", false).unwrap();
}

/// With lazy refcounts a flush leaves the dirty bit, and refcounts that are behind; closing brings
/// them up and takes the bit away.
#[test]
fn refcounts_are_late_only_under_the_dirty_bit() {
    const INCOMPATIBLE: u64 = 72;
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new().with("lazy_refcounts", "on");
    dir.create("disk", "qcow2", 1 << 20, &options).unwrap();
    let incompatible = || {
        let mut bytes = [0; 8];
        dir.file("disk").read_exact_at(&mut bytes, INCOMPATIBLE).unwrap();
        u64::from_be_bytes(bytes)
    };
    let image = open(&dir);
    assert_eq!(incompatible(), 0, "nothing was changed");
    let writer = image.writer().unwrap();
    writer.write_at(&[7; 512], 0).unwrap();
    writer.flush().unwrap();
    assert_eq!(incompatible(), 1);
    let mut findings = Vec::new();
    let reader = dir.open("disk", "qcow2", false).unwrap();
    let mut sector = [0; 512];
    reader.read_at(&mut sector, 0).unwrap();
    assert_eq!(sector, [7; 512], "what was flushed is there");
    let checker = reader.checker().unwrap();
    checker.check(Repair::Nothing, &mut |found| findings.push(found.kind)).unwrap();
    assert!(findings.contains(&FindingKind::Corruption), "refcounts are behind: {findings:?}");
    drop(reader);
    // As a killed process leaves it: whoever opens it next to write repairs it first.
    let crashed = MemoryDir::new(DRIVERS);
    crashed.put("disk", Arc::new(MemoryStorage::from(bytes_of(dir.file("disk").as_ref()))));
    let repaired = open(&crashed);
    assert_sound(repaired.as_ref());
    repaired.read_at(&mut sector, 0).unwrap();
    assert_eq!(sector, [7; 512]);
    image.close().unwrap();
    assert_eq!(incompatible(), 0);
    assert_sound(dir.open("disk", "qcow2", false).unwrap().as_ref());
}

fn bytes_of(file: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}
