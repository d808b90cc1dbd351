//! What files promise beyond their contents: holes, space, threads, errors.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing};
use rimg_storage::{CacheMode, Creation, FileOptions, FileStorage, MemoryStorage};
use rimg_testkit::bounds;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, io, thread};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

#[test]
fn punching_gives_space_back_and_leaves_a_hole() {
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let file = TestFile::new();
        let storage = file.open(FileOptions::create().cache(cache));
        storage.write_all_at(&vec![7; 4 << 20], 0).unwrap();
        storage.sync().unwrap();
        let before = storage.allocated_bytes().unwrap().unwrap();
        storage.write_zeroes_at(MIB..3 * MIB, Zeroing::MayPunch).unwrap();
        assert_eq!(storage.run_at(0).unwrap(), StorageRun::data(MIB), "{cache:?}");
        assert_eq!(storage.run_at(MIB).unwrap(), StorageRun::hole(2 * MIB));
        assert_eq!(storage.run_at(3 * MIB).unwrap(), StorageRun::data(MIB));
        assert!(storage.allocated_bytes().unwrap().unwrap() <= before - 2 * MIB);
    }
}

#[test]
fn growing_by_zeroes_takes_no_space() {
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let file = TestFile::new();
        let storage = file.open(FileOptions::create().cache(cache));
        storage.write_zeroes_at(MIB + 5..1 << 34, Zeroing::MayPunch).unwrap();
        assert_eq!(storage.len_bytes().unwrap(), 1 << 34);
        assert_eq!(storage.run_at(0).unwrap(), StorageRun::hole(1 << 34), "{cache:?}");
        assert_eq!(storage.allocated_bytes().unwrap(), Some(0));
    }
}

#[test]
fn kept_space_is_there() {
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let file = TestFile::new();
        let storage = file.open(FileOptions::create().cache(cache));
        storage.write_zeroes_at(0..2 * MIB, Zeroing::KeepAllocated).unwrap();
        assert_eq!(storage.len_bytes().unwrap(), 2 * MIB);
        assert!(storage.allocated_bytes().unwrap().unwrap() >= 2 * MIB, "{cache:?}");
        storage.discard_at(0..u64::MAX).unwrap();
        assert_eq!(storage.len_bytes().unwrap(), 2 * MIB);
    }
}

#[test]
fn the_kernel_copies_between_files_only() {
    let (source, target) = (TestFile::new(), TestFile::new());
    let source = source.open(FileOptions::create());
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    source.write_all_at(&bytes, 0).unwrap();
    let storage = target.open(FileOptions::create());
    assert!(source.copy_to(&storage, 100, 5_000, 700_000).unwrap());
    let copied = fs::read(&target.path).unwrap();
    assert_eq!(copied.len(), 705_000);
    assert!(copied[5_000..] == bytes[100..700_100]);

    assert!(!source.copy_to(&MemoryStorage::new(), 0, 0, 10).unwrap());
    drop(storage);
    for cache in [CacheMode::None, CacheMode::Writethrough] {
        let storage = target.open(FileOptions::write().cache(cache));
        assert!(!source.copy_to(&storage, 0, 0, 4096).unwrap(), "{cache:?}");
    }
    let error = {
        let storage = target.open(FileOptions::write());
        source.copy_to(&storage, 799_000, 0, 4096).unwrap_err()
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn growing_from_many_threads_loses_nothing() {
    grow_from_many_threads(CacheMode::Writeback, 60_000, 64);
    grow_from_many_threads(CacheMode::None, 1_200, 300);
}

/// Each piece is written by one of four threads, always near the end of the file; every third one
/// is zeroes.
fn grow_from_many_threads(cache: CacheMode, pieces: usize, piece_len: usize) {
    let file = TestFile::new();
    let storage = file.open(FileOptions::create().cache(cache));
    let data = vec![7; piece_len];
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    if piece >= pieces {
                        break;
                    }
                    let at = u64::try_from(piece * piece_len).unwrap();
                    let end = at + u64::try_from(piece_len).unwrap();
                    if piece.is_multiple_of(3) {
                        storage.write_zeroes_at(at..end, Zeroing::MayPunch).unwrap();
                    } else {
                        storage.write_all_at(&data, at).unwrap();
                    }
                }
            });
        }
    });
    let found = fs::read(&file.path).unwrap();
    assert_eq!(found.len(), pieces * piece_len, "{cache:?}");
    for (piece, bytes) in found.chunks(piece_len).enumerate() {
        let wanted = if piece.is_multiple_of(3) { 0 } else { 7 };
        assert!(bytes.iter().all(|&byte| byte == wanted), "{cache:?}: piece {piece}");
    }
}

#[test]
fn direct_files_tell_their_alignment_and_take_any() {
    let file = TestFile::new();
    let storage = file.open(FileOptions::create().cache(CacheMode::None));
    let align = storage.align_bytes();
    assert!(align >= 512 && align.is_power_of_two(), "{align}");
    let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    storage.write_all_at(&bytes, 3).unwrap();
    assert_eq!(storage.len_bytes().unwrap(), 4_000_003);
    let mut found = vec![0; 3_999_000];
    storage.read_exact_at(&mut found, 103).unwrap();
    assert!(found == bytes[100..3_999_100]);
    assert_eq!(file.open_again(FileOptions::read()).align_bytes(), 1);
}

#[test]
fn errors_are_the_operating_systems() {
    let file = TestFile::new();
    let open = |options| FileStorage::open(&file.path, options);
    let missing = open(FileOptions::read()).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(2), "{missing}");
    let new = FileOptions { creation: Creation::CreateNew, ..FileOptions::write() };
    open(new).unwrap();
    assert_eq!(open(new).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert!(open(FileOptions::read()).unwrap().writer().is_none());
    assert!(open(FileOptions::write()).unwrap().writer().is_some());

    let storage = open(FileOptions::write()).unwrap();
    assert_eq!(storage.run_at(0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(storage.write_all_at(b"x", u64::MAX).is_err());
    assert!(storage.set_len_bytes(u64::MAX).is_err());
    assert!(storage.write_zeroes_at(0..u64::MAX, Zeroing::MayPunch).is_err());
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let file = TestFile::new();
    let dir = file.dir.path().to_owned();
    let error = FileStorage::open(&dir, FileOptions::read()).unwrap_err();
    let message = format!("'file' driver requires '{}' to be a regular file", dir.display());
    assert_eq!(error.to_string(), message);

    let pipe = dir.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let opened = bounds::within(Duration::from_secs(5), "opening a pipe", move || {
        FileStorage::open(pipe, FileOptions::read()).map(drop)
    });
    assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_device_keeps_its_length() {
    let storage = FileStorage::open("/dev/null", FileOptions::write()).unwrap();
    assert!(storage.is_device());
    assert_eq!(storage.len_bytes().unwrap(), 0);
    storage.set_len_bytes(0).unwrap();
    assert_eq!(storage.set_len_bytes(1).unwrap_err().to_string(), "Cannot grow device files");
}

struct TestFile {
    dir: TempDir,
    path: PathBuf,
}

impl TestFile {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { path: dir.path().join("disk"), dir }
    }

    fn open(&self, options: FileOptions) -> FileStorage {
        FileStorage::open(&self.path, options).unwrap()
    }

    fn open_again(&self, options: FileOptions) -> FileStorage {
        self.open(options.locking(rimg_storage::Locking::Off))
    }
}
