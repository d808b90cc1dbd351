//! Logs that somebody left.

use super::{MIB, bytes_of, folder, open, put, read, words};
use rimg_core::{Storage as _, StorageWrite as _};
use rimg_testkit::MemoryStorage;
use rimg_testkit::vhdx::{Block, LogEntry, LogUpdate, VhdxImage};

/// A disk whose second block is in the file, but in the table only once the log is replayed.
fn image(entries: impl FnOnce(&VhdxImage, u64) -> Vec<LogEntry>) -> VhdxImage {
    let mut image = VhdxImage::new(3 * MIB);
    image.blocks.insert(0, Block::Full(vec![1; 1 << 20]));
    let end = image.build().len_bytes().unwrap();
    image.log = entries(&image, end);
    image.file_bytes = Some(end + MIB);
    image
}

/// The table as it is with a second block at `host`.
fn table(first: u64, second: u64) -> LogUpdate {
    let mut sector = Box::new([0; 4096]);
    sector[..8].copy_from_slice(&first.to_le_bytes());
    sector[8..16].copy_from_slice(&second.to_le_bytes());
    LogUpdate::Data(sector)
}

fn entry(sequence: u64, tail: usize, update: (u64, LogUpdate), len: u64) -> LogEntry {
    LogEntry { sequence, tail, updates: vec![update], file_bytes: (len, len) }
}

#[test]
fn a_log_is_replayed_in_memory_or_in_the_file() {
    let with_log = image(|image, end| {
        let at = image.table_sector(0);
        vec![
            // An old sequence that does not count any more.
            entry(2, 0, (at, table(2, 2)), end),
            entry(4, 1, (at, table(end | 6, 2)), end),
            entry(5, 1, (at, table(2, end | 6)), end + MIB),
        ]
    });
    let bytes = with_log.build();
    let end = bytes.len_bytes().unwrap();
    bytes.write_all_at(&[9; 1000], end - MIB).unwrap();
    let dir = folder();
    put(&dir, "disk", &bytes);

    let before = bytes_of(dir.file("disk").as_ref());
    let image = open(&dir, false);
    assert_eq!(read(image.as_ref(), 0, 8), [0; 8]);
    assert_eq!(read(image.as_ref(), MIB, 8), [9; 8]);
    drop(image);
    assert!(bytes_of(dir.file("disk").as_ref()) == before, "opened for reading");

    open(&dir, true).close().unwrap();
    assert!(bytes_of(dir.file("disk").as_ref()) != before, "opened for writing");
    // Without the log it is the same now.
    dir.file("disk").writer().unwrap().write_all_at(&[0; 1 << 20], MIB).unwrap();
    let image = open(&dir, false);
    assert_eq!(read(image.as_ref(), 0, 8), [0; 8]);
    assert_eq!(read(image.as_ref(), MIB, 8), [9; 8]);
}

#[test]
fn a_file_grows_to_what_the_log_says() {
    let with_log = image(|image, end| {
        let at = image.table_sector(0);
        let (known, wanted) = (end + MIB, end + 2 * MIB);
        let update = (at, table(2, known | 6));
        vec![LogEntry { sequence: 1, tail: 0, updates: vec![update], file_bytes: (known, wanted) }]
    });
    for writable in [false, true] {
        let dir = folder();
        put(&dir, "disk", &with_log.build());
        let image = open(&dir, writable);
        assert_eq!(read(image.as_ref(), MIB, 1 << 20), [0; 1 << 20]);
    }
}

#[test]
fn zeroes_are_replayed() {
    let with_log = image(|image, end| {
        let update = (image.table_sector(0), LogUpdate::Zeroes(4096));
        vec![entry(1, 0, update, end)]
    });
    for writable in [false, true] {
        let dir = folder();
        put(&dir, "disk", &with_log.build());
        assert_eq!(read(open(&dir, writable).as_ref(), 0, 3 << 20), [0; 3 << 20]);
    }
}

#[test]
fn an_entry_that_was_torn_leaves_the_one_before_it() {
    let with_log = image(|image, end| {
        let at = image.table_sector(0);
        vec![entry(1, 0, (at, table(2, end | 6)), end), entry(2, 1, (at, table(2, 2)), end)]
    });
    let bytes = with_log.build();
    bytes.write_all_at(&[0xff], MIB + 8192 + 4096 + 100).unwrap();
    let dir = folder();
    put(&dir, "disk", &bytes);
    bytes.write_all_at(&[9; 8], bytes.len_bytes().unwrap() - MIB).unwrap();
    put(&dir, "disk", &bytes);
    assert_eq!(read(open(&dir, false).as_ref(), MIB, 8), [9; 8]);
}

#[test]
fn a_log_of_nothing_valid_is_an_empty_one() {
    let with_log = image(|image, end| vec![entry(1, 0, (image.table_sector(0), table(2, 2)), end)]);
    let bytes = with_log.build();
    bytes.write_all_at(&[0; 64], MIB).unwrap();
    let dir = folder();
    put(&dir, "disk", &bytes);
    assert_eq!(read(open(&dir, false).as_ref(), 0, 8), [1; 8]);
    open(&dir, true).close().unwrap();
    assert_eq!(read(open(&dir, false).as_ref(), 0, 8), [1; 8]);
}

#[test]
fn logs_that_cannot_be_are_named() {
    let refused = |update: fn(&VhdxImage) -> (u64, LogUpdate), flushed: u64| {
        let with_log = image(|image, end| {
            let lengths = (end.max(flushed), end);
            vec![LogEntry {
                sequence: 1,
                tail: 0,
                updates: vec![update(image)],
                file_bytes: lengths,
            }]
        });
        let bytes = with_log.build();
        let mut both = Vec::new();
        for writable in [false, true] {
            let dir = folder();
            put(&dir, "disk", &bytes);
            both.push(words(dir.open("disk", "vhdx", writable)));
            assert!(bytes_of(dir.file("disk").as_ref()) == bytes.to_vec().unwrap());
        }
        assert_eq!(both[0], both[1]);
        let start = "vhdx image is corrupt: log, entries at offset 0x100000: ";
        both[0].strip_prefix(start).unwrap_or_else(|| panic!("{}", both[0])).to_owned()
    };
    assert_eq!(
        refused(|_| (64 << 10, LogUpdate::Zeroes(4096)), 0),
        "an entry writes 0x1000 bytes at 0x10000, where no metadata can be"
    );
    assert_eq!(
        refused(|_| (MIB, LogUpdate::Zeroes(4096)), 0),
        "an entry writes 0x1000 bytes at 0x100000, where no metadata can be"
    );
    assert_eq!(
        refused(|_| (2 * MIB, LogUpdate::Zeroes(1 << 60)), 0),
        "an entry writes 0x1000000000000000 bytes at 0x200000, where no metadata can be"
    );
    assert_eq!(
        refused(|_| (2 * MIB + 5, LogUpdate::Zeroes(4096)), 0),
        "an entry writes 0x1000 bytes at 0x200005, where no metadata can be"
    );
    assert_eq!(
        refused(|image| (image.table_sector(0), LogUpdate::Zeroes(4096)), 1 << 40),
        "the file ends at 0x600000: data of it up to 0x10000000000 was lost"
    );
}

#[test]
fn what_is_behind_the_end_of_the_log_is_an_error() {
    let with_log = image(|image, end| vec![entry(1, 0, (image.table_sector(0), table(2, 2)), end)]);
    let dir = folder();
    let bytes: MemoryStorage = with_log.build();
    bytes.set_len_bytes(MIB + 5000).unwrap();
    put(&dir, "disk", &bytes);
    let error = words(dir.open("disk", "vhdx", false));
    assert!(error.starts_with("vhdx image is corrupt: log, entries at offset 0x100000"), "{error}");
}
