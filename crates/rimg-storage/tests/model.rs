//! Random operations on every storage, compared with a plain vector.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use rimg_core::{Storage, StorageWrite, Zeroing};
use rimg_storage::{CacheMode, FileOptions, FileStorage, MemoryStorage};
use std::io;
use std::ops::Range;

const SPACE_BYTES: u64 = 40_000;

#[derive(Debug, Clone)]
enum Op {
    Write { at: u64, len: usize, seed: u8 },
    Zero { range: Range<u64>, how: Zeroing },
    Discard(Range<u64>),
    SetLen(u64),
    Sync,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn memory_is_a_vector(ops in ops()) {
        check(&MemoryStorage::new(), &ops)?;
    }

    #[test]
    fn a_file_is_a_vector(ops in ops()) {
        for cache in [CacheMode::Writeback, CacheMode::Unsafe] {
            on_file(cache, &ops)?;
        }
    }

    #[test]
    fn a_direct_file_is_a_vector(ops in ops()) {
        on_file(CacheMode::None, &ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_file_written_through_is_a_vector(ops in ops()) {
        for cache in [CacheMode::Writethrough, CacheMode::Directsync] {
            on_file(cache, &ops)?;
        }
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Often on the borders of sectors and pages.
    let place = || {
        prop_oneof![
            0..SPACE_BYTES,
            (0..SPACE_BYTES / 512).prop_map(|n| n * 512),
            (0..SPACE_BYTES / 4096).prop_map(|n| n * 4096),
        ]
    };
    let range = move || (place(), place()).prop_map(|(a, b)| a.min(b)..a.max(b));
    let how = prop_oneof![Just(Zeroing::MayPunch), Just(Zeroing::KeepAllocated)];
    let op = prop_oneof![
        4 => (range(), any::<u8>()).prop_map(|(range, seed)| Op::Write {
            at: range.start,
            len: usize::try_from(range.end - range.start).unwrap(),
            seed,
        }),
        3 => (range(), how).prop_map(|(range, how)| Op::Zero { range, how }),
        1 => range().prop_map(Op::Discard),
        1 => place().prop_map(Op::SetLen),
        1 => Just(Op::Sync),
    ];
    proptest::collection::vec(op, 1..40)
}

fn on_file(cache: CacheMode, ops: &[Op]) -> Result<(), TestCaseError> {
    // A file system on disk and one in memory differ in what they can do with zeroes.
    for parent in [std::env::temp_dir(), "/dev/shm".into()].iter().filter(|dir| dir.is_dir()) {
        let dir = tempfile::tempdir_in(parent).unwrap();
        let path = dir.path().join("disk");
        let file = FileStorage::open(&path, FileOptions::create().cache(cache)).unwrap();
        check(&file, ops)?;
        let len = std::fs::metadata(&path).unwrap().len();
        prop_assert_eq!(file.len_bytes().unwrap(), len);
    }
    Ok(())
}

fn check(storage: &dyn StorageWrite, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut model = Vec::new();
    for op in ops {
        apply(storage, &mut model, op).unwrap();
        let len = storage.len_bytes().unwrap();
        prop_assert_eq!(len, u64::try_from(model.len()).unwrap(), "after {:?}", op);
        let mut read = vec![0xAA; model.len()];
        storage.read_exact_at(&mut read, 0).unwrap();
        prop_assert!(read == model, "contents after {:?}", op);
        // An unaligned piece in the middle, and one byte too much.
        let third = model.len() / 3;
        let piece = &mut read[..third];
        storage.read_exact_at(piece, u64::try_from(third).unwrap()).unwrap();
        prop_assert!(piece == &model[third..2 * third], "middle after {:?}", op);
        let error = storage.read_exact_at(&mut [0; 2], len.saturating_sub(1)).unwrap_err();
        prop_assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        check_runs(storage, &model)?;
    }
    Ok(())
}

fn apply(storage: &dyn StorageWrite, model: &mut Vec<u8>, op: &Op) -> io::Result<()> {
    let index = |at: u64| usize::try_from(at).unwrap();
    let grow = |model: &mut Vec<u8>, end| model.resize(model.len().max(end), 0);
    match op {
        &Op::Write { at, len, seed } => {
            let bytes: Vec<u8> = (0..len).map(|i| seed.wrapping_add(i.to_le_bytes()[0])).collect();
            storage.write_all_at(&bytes, at)?;
            if len > 0 {
                grow(model, index(at) + len);
                model[index(at)..][..len].copy_from_slice(&bytes);
            }
        }
        Op::Zero { range, how } => {
            storage.write_zeroes_at(range.clone(), *how)?;
            if !range.is_empty() {
                grow(model, index(range.end));
                model[index(range.start)..index(range.end)].fill(0);
            }
        }
        Op::Discard(range) => {
            storage.discard_at(range.clone())?;
            // It reads as zeroes or as before, piece by piece.
            let end = index(range.end).min(model.len());
            if index(range.start) < end {
                let old = &mut model[index(range.start)..end];
                let mut new = vec![0; old.len()];
                storage.read_exact_at(&mut new, range.start)?;
                assert!(new.iter().zip(&*old).all(|(&new, &old)| new == 0 || new == old));
                old.copy_from_slice(&new);
            }
        }
        &Op::SetLen(len) => {
            storage.set_len_bytes(len)?;
            model.resize(index(len), 0);
        }
        Op::Sync => storage.sync()?,
    }
    Ok(())
}

fn check_runs(storage: &dyn StorageWrite, model: &[u8]) -> Result<(), TestCaseError> {
    let mut at = 0;
    while at < model.len() {
        let run = storage.run_at(u64::try_from(at).unwrap()).unwrap();
        let end = at + usize::try_from(run.len_bytes).unwrap();
        prop_assert!(run.len_bytes > 0 && end <= model.len());
        prop_assert!(run.is_data || model[at..end].iter().all(|&byte| byte == 0));
        at = end;
    }
    Ok(())
}
