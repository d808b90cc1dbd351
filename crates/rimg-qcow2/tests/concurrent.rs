//! Many threads on one open image: ordered only where they overlap, and nobody waits for the I/O
//! of somebody else.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, Op, apply, create, open, random_bytes};
use rimg_core::{BlockImage, RawOptions, Repair, Storage};
use rimg_testkit::storages::{Delay, DelayedStorage, OperationKind};
use rimg_testkit::{MemoryDir, MemoryStorage, ModelDisk, Rng};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

const CLUSTER_BYTES: u64 = 64 << 10;
const THREADS: u64 = 4;

fn delayed() -> (MemoryDir, Arc<DelayedStorage>) {
    let dir = MemoryDir::new(DRIVERS);
    let storage = Arc::new(DelayedStorage::new(Arc::new(MemoryStorage::new())));
    let disk: Arc<dyn Storage> = storage.clone();
    dir.put("disk", disk);
    dir.create("disk", "qcow2", 64 * CLUSTER_BYTES, &RawOptions::new()).unwrap();
    (dir, storage)
}

#[test]
fn nobody_waits_for_a_sync() {
    let (dir, storage) = delayed();
    let image = open(&dir);
    let writer = image.writer().unwrap();
    writer.write_at(&[1; 512], 0).unwrap();
    writer.flush().unwrap();
    writer.write_at(&[2; 512], CLUSTER_BYTES).unwrap();
    storage.delay(OperationKind::Sync, 0..u64::MAX, Delay::UntilReleased);
    thread::scope(|scope| {
        let flush = scope.spawn(|| image.writer().unwrap().flush());
        storage.until_waiting(1);
        let mut sector = [0; 512];
        image.read_at(&mut sector, 0).unwrap();
        assert_eq!(sector, [1; 512]);
        writer.write_at(&[3; 512], 0).unwrap();
        writer.write_at(&[4; 512], 2 * CLUSTER_BYTES).unwrap();
        image.read_at(&mut sector, 2 * CLUSTER_BYTES).unwrap();
        assert_eq!(sector, [4; 512]);
        assert_eq!(storage.waiting(), 1, "the sync goes on only now");
        storage.release();
        flush.join().unwrap().unwrap();
    });
    image.close().unwrap();
    assert_sound(dir.open("disk", "qcow2", false).unwrap().as_ref());
}

#[test]
fn nobody_waits_for_data_on_its_way() {
    let (dir, storage) = delayed();
    let image = open(&dir);
    image.writer().unwrap().write_at(&[1; 512], 0).unwrap();
    // New data lands behind everything that is there.
    let end = dir.file("disk").len_bytes().unwrap();
    storage.delay(OperationKind::Write, end..u64::MAX, Delay::UntilReleased);
    thread::scope(|scope| {
        let write = scope.spawn(|| image.writer().unwrap().write_at(&[2; 512], CLUSTER_BYTES));
        storage.until_waiting(1);
        let mut sector = [0; 512];
        image.read_at(&mut sector, 0).unwrap();
        assert_eq!(sector, [1; 512]);
        image.read_at(&mut sector, CLUSTER_BYTES).unwrap();
        assert_eq!(sector, [0; 512], "a cluster is linked when it is complete");
        image.writer().unwrap().write_at(&[3; 512], 0).unwrap();
        assert_eq!(storage.waiting(), 1, "the write goes on only now");
        storage.release();
        write.join().unwrap().unwrap();
    });
    let mut sector = [0; 512];
    image.read_at(&mut sector, CLUSTER_BYTES).unwrap();
    assert_eq!(sector, [2; 512]);
    image.close().unwrap();
}

/// Each thread has a part of the disk to itself, whose ends lie within clusters that it shares.
#[test]
fn four_threads_leave_the_disk_that_they_wrote() {
    for (seed, cluster_bits) in [(1, 9), (2, 9), (3, 12), (4, 16)] {
        let kind = common::Kind {
            cluster_bits,
            extended_l2: false,
            version_2: false,
            refcount_bits: 16,
            zstd: seed == 2,
            data_file: false,
            data_file_raw: false,
            lazy_refcounts: seed % 2 == 1,
            backing_bytes: 300_000,
            size_bytes: 4 << 20,
        };
        let dir = MemoryDir::new(DRIVERS);
        let below = create(&dir, &kind);
        let image = open(&dir);
        let start = Barrier::new(usize::try_from(THREADS).unwrap());
        let part = |thread: u64| {
            let edge = |n: u64| {
                n * kind.size_bytes / THREADS / 512 * 512
                    + if n.is_multiple_of(4) { 0 } else { 512 }
            };
            edge(thread)..edge(thread + 1)
        };
        let disks: Vec<ModelDisk> = thread::scope(|scope| {
            let (image, below, start) = (&image, &below, &start);
            let running: Vec<_> = (0..THREADS)
                .map(|number| {
                    scope.spawn(move || {
                        start.wait();
                        work(image.as_ref(), part(number), below, seed * THREADS + number)
                    })
                })
                .collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let expected = |number: u64, disk: &ModelDisk| disk.read(part(number));
        let whole: Vec<u8> = (0..).zip(&disks).flat_map(|(n, disk)| expected(n, disk)).collect();
        let same = |image: &dyn BlockImage, when: &str| {
            let mut seen = vec![0; whole.len()];
            image.read_at(&mut seen, 0).unwrap();
            let differs = seen.iter().zip(&whole).position(|(a, b)| a != b);
            assert_eq!(differs, None, "seed {seed}, {when}");
        };
        same(image.as_ref(), "written");
        image.close().unwrap();
        let image = dir.open("disk", "qcow2", false).unwrap();
        same(image.as_ref(), "opened again");
        assert_sound(image.as_ref());
    }
}

/// Changes a part of the disk at random. Returns the disk as this thread knows it.
fn work(
    image: &dyn BlockImage,
    part: std::ops::Range<u64>,
    below: &ModelDisk,
    seed: u64,
) -> ModelDisk {
    const STEPS: u64 = 2500;
    let mut disk = below.clone();
    let mut rng = Rng::new(seed);
    for _ in 0..STEPS {
        let most = if rng.one_in(8) { 40_000 } else { 3000 };
        let len = 1 + rng.below(most);
        let at = part.start + rng.below(part.end - part.start);
        let len = len.min(part.end - at);
        match rng.below(16) {
            0..=8 => apply(&Op::Write { at, len, seed: rng.next_u64() }, image, &mut disk),
            9..=10 => apply(&Op::Zero { at, len }, image, &mut disk),
            11 => apply(&Op::Flush, image, &mut disk),
            _ => {
                let mut seen = random_bytes(1, len);
                image.read_at(&mut seen, at).unwrap();
                assert!(seen == disk.read(at..at + len), "{at:#x} of {len:#x} bytes, seed {seed}");
            }
        }
    }
    disk
}

fn assert_sound(image: &dyn BlockImage) {
    let mut findings = Vec::new();
    image
        .checker()
        .unwrap()
        .check(Repair::Nothing, &mut |finding| findings.push(finding.message.clone()))
        .unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// Who writes a part of a sector reads the rest of it before, and must not bring it back.
#[test]
fn parts_of_encrypted_sectors_do_not_undo_whole_ones() {
    let dir = MemoryDir::new(DRIVERS);
    let key =
        RawOptions::new().with_secret("s", "swordfish".into()).with("encrypt.key-secret", "s");
    let new = key.clone().with("encrypt.format", "aes");
    dir.create("disk", "qcow2", 1 << 20, &new).unwrap();
    let image = dir.open_with("disk", "qcow2", true, &key).unwrap();
    let writer = image.writer().unwrap();
    writer.write_at(&[0; 512], 0).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                writer.write_at(&[0xff; 100], 0).unwrap();
            }
        });
        let undone = (0..3000_u32).find(|turn| {
            let byte = turn.to_le_bytes()[0];
            writer.write_at(&[byte; 512], 0).unwrap();
            let mut rest = [0; 412];
            image.read_at(&mut rest, 100).unwrap();
            rest != [byte; 412]
        });
        done.store(true, Ordering::Relaxed);
        assert_eq!(undone, None, "the turn whose write was undone");
    });
}
