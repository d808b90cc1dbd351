//! Random operations against a disk that is certainly right.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, create, kinds, open};
use proptest::prelude::*;
use rimg_core::{ExtentKind, Preallocation};
use rimg_testkit::{MemoryDir, ModelDisk};
use std::ops::Range;

/// Around sectors and the pieces that data is encrypted in.
const MAX_BYTES: u64 = 700_000;

#[derive(Debug, Clone)]
enum Operation {
    Write { at: u64, len: u64, byte: u8 },
    Zero { at: u64, len: u64 },
    Discard { at: u64, len: u64 },
    Shrink { size: u64 },
    Grow { by: u64 },
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let at = || 0..MAX_BYTES;
    let len = || prop_oneof![4 => 0..2_000_u64, 1 => 0..MAX_BYTES];
    prop_oneof![
        6 => (at(), len(), any::<u8>()).prop_map(|(at, len, byte)| Operation::Write { at, len, byte }),
        2 => (at(), len()).prop_map(|(at, len)| Operation::Zero { at, len }),
        1 => (at(), len()).prop_map(|(at, len)| Operation::Discard { at, len }),
        1 => at().prop_map(|size| Operation::Shrink { size }),
        1 => (0..100_000_u64).prop_map(|by| Operation::Grow { by }),
        1 => Just(Operation::Reopen),
    ]
}

/// A range that starts below the end of the disk and does not reach past it.
fn clip(at: u64, len: u64, size: u64) -> Range<u64> {
    let start = at.min(size);
    start..(start + len).min(size)
}

fn options() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        3 => Just("preallocation=full"),
        1 => Just("preallocation=full,cipher-mode=cbc,ivgen-alg=essiv"),
        1 => Just("preallocation=full,cipher-alg=cast5-128,cipher-mode=ctr"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn does_what_the_model_does(
        first in 0..MAX_BYTES,
        line in options(),
        operations in prop::collection::vec(operation(), 0..30),
    ) {
        let dir = MemoryDir::new(DRIVERS);
        create(&dir, first, line);
        let mut model = ModelDisk::new(first.next_multiple_of(512));
        let mut image = open(&dir, true).unwrap();
        model.assert_same(image.as_ref(), "new");
        for operation in operations {
            let size = model.size_bytes();
            let writer = image.writer().unwrap();
            match operation.clone() {
                Operation::Write { at, len, byte } => {
                    let range = clip(at, len, size);
                    let buf = vec![byte; usize::try_from(range.end - range.start).unwrap()];
                    writer.write_at(&buf, range.start).unwrap();
                    model.write(&buf, range.start);
                }
                Operation::Zero { at, len } => {
                    let range = clip(at, len, size);
                    writer.write_zeroes_at(range.clone()).unwrap();
                    model.zero(range);
                }
                Operation::Discard { at, len } => {
                    writer.discard_at(clip(at, len, size)).unwrap();
                }
                Operation::Shrink { size: to } => {
                    // The rest of the last sector stays what it is.
                    let to = to.next_multiple_of(512).min(size);
                    image.resizer().unwrap().resize(to, Preallocation::Off).unwrap();
                    model.resize(to);
                }
                Operation::Grow { by } => {
                    let to = size + by.max(1);
                    image.resizer().unwrap().resize(to, Preallocation::Full).unwrap();
                    model.resize(to.next_multiple_of(512));
                }
                Operation::Reopen => {
                    image.close().unwrap();
                    image = open(&dir, true).unwrap();
                }
            }
            model.assert_same(image.as_ref(), &format!("{operation:?}"));
        }
        image.close().unwrap();
        let image = open(&dir, false).unwrap();
        model.assert_same(image.as_ref(), "at the end");
        if model.size_bytes() > 0 {
            let extent = image.extent_at(0..model.size_bytes()).unwrap();
            assert_eq!((extent.len_bytes, extent.kind), (model.size_bytes(), ExtentKind::Opaque));
        }
    }
}

#[test]
fn an_image_is_the_disk_that_was_written() {
    for kind in kinds() {
        kind.model(2, 150);
    }
}

#[test]
fn the_file_holds_nothing_of_what_was_written() {
    let dir = MemoryDir::new(DRIVERS);
    create(&dir, 1 << 20, "");
    let image = open(&dir, true).unwrap();
    image.writer().unwrap().write_at(&[b'x'; 100_000], 77).unwrap();
    image.writer().unwrap().write_zeroes_at(200_000..300_000).unwrap();
    let file = dir.file("disk");
    let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let data = &bytes[2_068_480..];
    assert!(!data.windows(8).any(|piece| piece == [b'x'; 8]));
    // What was zeroed is no hole.
    assert!(!data[200_192..299_520].windows(16).any(|piece| piece == [0; 16]));
}
