//! Space that was set aside for the guest, but never written to, is not read.
#![expect(clippy::unwrap_used, reason = "a failure is a failed test")]

use rimg_convert::{CompareOptions, Comparison, ConvertOptions, Silent, compare, convert, measure};
use rimg_core::{BlockImage, Measure, Measured, RawOptions, Storage};
use rimg_storage::MemoryStorage;
use rimg_testkit::MemoryDir;
use rimg_testkit::storages::{Hook, Hooked, Operation, OperationKind};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SIZE: u64 = 4 << 30;

/// What is written: where, and how much of it.
const WRITTEN: [(u64, usize); 3] = [(0, 4096), (1 << 30, 70_000), (SIZE - 512, 512)];

/// Tables, what was written, and the clusters around it.
const MOST_READ: u64 = 16 << 20;

/// A format, options, and the files of the image.
type Preallocated =
    (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const PREALLOCATED: &[Preallocated] = &[
    ("qcow2", &[("preallocation", "metadata")], &["disk"]),
    ("qcow2", &[("preallocation", "metadata"), ("data_file", "data")], &["disk", "data"]),
    ("vpc", &[("subformat", "fixed")], &["disk"]),
    ("vdi", &[("static", "on")], &["disk"]),
    ("vhdx", &[("subformat", "fixed")], &["disk"]),
    ("vmdk", &[("subformat", "monolithicFlat")], &["disk", "disk-flat"]),
];

/// Counts the bytes that are read.
#[derive(Debug)]
struct Count(Arc<AtomicU64>);

impl Hook for Count {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        if operation.kind == OperationKind::Read {
            let len = operation.range.end - operation.range.start;
            self.0.fetch_add(len, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Counts the bytes of data.
#[derive(Debug)]
struct Data(u64);

impl Measure for Data {
    fn add_data(&mut self, range: Range<u64>) {
        self.0 += range.end - range.start;
    }

    fn measured(&self) -> Measured {
        unreachable!("nobody asks")
    }
}

#[test]
fn holes_in_preallocated_images_are_not_read() {
    for (format, options, files) in PREALLOCATED {
        let what = format!("{format} {options:?}");
        let dir = MemoryDir::new(rimg::FORMATS);
        let mut raw = RawOptions::new();
        for (name, value) in *options {
            raw.set(*name, *value);
        }
        dir.create("disk", format, SIZE, &raw).expect(&what);
        let image = dir.open("disk", format, true).expect(&what);
        for (at, len) in WRITTEN {
            image.writer().unwrap().write_at(&vec![7; len], at).unwrap();
        }
        image.close().unwrap();

        let read = Arc::new(AtomicU64::new(0));
        for name in *files {
            let counted: Arc<dyn Storage> =
                Arc::new(Hooked::with_hook(dir.file(name), Count(Arc::clone(&read))));
            dir.put(name, counted);
        }
        let image = dir.open("disk", format, false).expect(&what);
        let cancel = AtomicBool::new(false);
        let mut data = Data(0);
        measure(&*image, &mut data, &cancel).unwrap();
        assert!((1..MOST_READ).contains(&data.0), "{what}: {} bytes of data", data.0);

        let copy: Arc<dyn Storage> = Arc::new(MemoryStorage::with_len(image.size_bytes()));
        dir.put("copy", copy);
        let target = dir.open("copy", "raw", true).unwrap();
        let mut options = ConvertOptions::default();
        options.target_is_new = true;
        convert(&[&*image], &*target, &options, &Silent, &cancel).unwrap();
        assert_shows_what_was_written(&*target, &what);

        let options = CompareOptions::default();
        let found = compare(&*image, &*target, &options, &Silent, &cancel).unwrap();
        assert_eq!(found, Comparison::default(), "{what}");
        let read = read.load(Ordering::Relaxed);
        assert!(read < MOST_READ, "{what}: {read} bytes were read");
    }
}

fn assert_shows_what_was_written(disk: &dyn BlockImage, what: &str) {
    let mut zeroes_from = 0;
    for (at, len) in WRITTEN {
        let mut bytes = vec![0; len];
        disk.read_at(&mut bytes, at).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7), "{what}: at {at}");
        if let Some(before) = at.checked_sub(1).filter(|before| *before >= zeroes_from) {
            let mut byte = [1];
            disk.read_at(&mut byte, before).unwrap();
            assert_eq!(byte, [0], "{what}: before {at}");
        }
        zeroes_from = at + u64::try_from(len).unwrap();
    }
}
