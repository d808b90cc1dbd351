//! Random operations against a disk that is certainly right.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use proptest::prelude::*;
use rimg_core::{BlockImage, ExtentKind, FormatDriver, Preallocation, RawOptions, Storage};
use rimg_testkit::{MemoryDir, MemoryStorage, ModelDisk};
use std::sync::Arc;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_raw::DRIVER];

/// Lengths around sectors and pages, whole and not.
const MAX_BYTES: u64 = 40_000;

#[derive(Debug, Clone)]
enum Operation {
    Write { at: u64, len: u64, byte: u8 },
    Zero { at: u64, len: u64 },
    Discard { at: u64, len: u64 },
    Resize { size: u64, preallocation: Preallocation },
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let at = || 0..MAX_BYTES;
    let len = || prop_oneof![0..2_000_u64, 0..MAX_BYTES];
    let preallocation = prop_oneof![
        Just(Preallocation::Off),
        Just(Preallocation::Falloc),
        Just(Preallocation::Full)
    ];
    prop_oneof![
        4 => (at(), len(), any::<u8>()).prop_map(|(at, len, byte)| Operation::Write { at, len, byte }),
        2 => (at(), len()).prop_map(|(at, len)| Operation::Zero { at, len }),
        1 => (at(), len()).prop_map(|(at, len)| Operation::Discard { at, len }),
        1 => (at(), preallocation)
            .prop_map(|(size, preallocation)| Operation::Resize { size, preallocation }),
        1 => Just(Operation::Reopen),
    ]
}

/// A range that starts below the end of the disk and does not reach past it.
fn clip(at: u64, len: u64, size: u64) -> std::ops::Range<u64> {
    let start = at.min(size);
    start..(start + len).min(size)
}

fn sectors(len: u64) -> u64 {
    len.next_multiple_of(512)
}

fn assert_extents(image: &dyn BlockImage, model: &ModelDisk) {
    let mut at = 0;
    while at < image.size_bytes() {
        let extent = image.extent_at(at..image.size_bytes()).unwrap();
        assert!(extent.len_bytes > 0);
        let end = at + extent.len_bytes;
        assert!(end <= image.size_bytes());
        match extent.kind {
            ExtentKind::Data(place) => assert_eq!((place.file, place.host.bytes()), (0, at)),
            ExtentKind::Zero { allocation: Some(place) } => {
                assert_eq!(place.host.bytes(), at);
                assert!(model.read(at..end).iter().all(|&byte| byte == 0), "{at}..{end}");
            }
            other => panic!("{other:?}"),
        }
        at = end;
    }
}

fn run(first_len: u64, operations: Vec<Operation>) {
    let dir = MemoryDir::new(DRIVERS);
    let file = Arc::new(MemoryStorage::with_len(first_len));
    dir.put("disk", file.clone());
    let mut model = ModelDisk::new(sectors(first_len));
    let mut image = dir.open("disk", "raw", true).unwrap();
    for operation in operations {
        let writer = image.writer().unwrap();
        match operation.clone() {
            Operation::Write { at, len, byte } => {
                let range = clip(at, len, model.size_bytes());
                let buf = vec![byte; usize::try_from(range.end - range.start).unwrap()];
                writer.write_at(&buf, range.start).unwrap();
                model.write(&buf, range.start);
            }
            Operation::Zero { at, len } => {
                let range = clip(at, len, model.size_bytes());
                writer.write_zeroes_at(range.clone()).unwrap();
                model.zero(range);
            }
            Operation::Discard { at, len } => {
                let range = clip(at, len, model.size_bytes());
                writer.discard_at(range.clone()).unwrap();
                // Memory punches; keeping the bytes would be allowed, too.
                model.zero(range);
            }
            Operation::Resize { size, preallocation } => {
                let len = file.len_bytes().unwrap();
                let resized = image.resizer().unwrap().resize(size, preallocation);
                if size <= len && preallocation != Preallocation::Off {
                    assert!(resized.is_err());
                } else {
                    resized.unwrap();
                    assert_eq!(file.len_bytes().unwrap(), size);
                    model.resize(size);
                    model.resize(sectors(size));
                }
            }
            Operation::Reopen => {
                image.close().unwrap();
                image = dir.open("disk", "raw", true).unwrap();
            }
        }
        model.assert_same(image.as_ref(), &format!("{operation:?}"));
    }
    assert_extents(image.as_ref(), &model);
    image.close().unwrap();
    let image = dir.open("disk", "raw", false).unwrap();
    model.assert_same(image.as_ref(), "at the end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn does_what_the_model_does(
        first_len in 0..MAX_BYTES,
        operations in prop::collection::vec(operation(), 0..30),
    ) {
        run(first_len, operations);
    }
}

#[test]
fn a_new_image_is_zero_initialised_however_its_space_was_set_aside() {
    let dir = MemoryDir::new(DRIVERS);
    for preallocation in ["off", "falloc", "full"] {
        let mut options = RawOptions::new();
        options.set("preallocation", preallocation);
        dir.create("disk", "raw", 1 << 20, &options).unwrap();
        let image = dir.open("disk", "raw", true).unwrap();
        assert!(image.writer().unwrap().is_zero_initialised());
        assert!(!image.writer().unwrap().places_in_order());
        image.writer().unwrap().write_at(b"x", 5).unwrap();
        assert!(image.writer().unwrap().is_zero_initialised());
        image.close().unwrap();
    }
}

#[test]
fn creation_rounds_up_to_sectors() {
    let dir = MemoryDir::new(DRIVERS);
    for (size, preallocation) in [(0, "off"), (1, "full"), (512, "falloc"), (1_000_001, "full")] {
        let name = format!("disk-{size}");
        let options = RawOptions::new().with("preallocation", preallocation);
        dir.create(&name, "raw", size, &options).unwrap();
        let image = dir.open(&name, "raw", false).unwrap();
        ModelDisk::new(sectors(size)).assert_same(image.as_ref(), &name);
        assert_eq!(dir.file(&name).len_bytes().unwrap(), sectors(size));
    }
}
