//! Bitmaps that somebody damaged on purpose: the exact error, and nothing changed.

use crate::common::{DRIVERS, open};
use crate::{findings, runs};
use rimg_core::{
    BlockImage, Error, FindingKind, FormatDriver as _, Limits, OpenOptions, RawOptions,
    Storage as _, StorageWrite as _,
};
use rimg_qcow2::DRIVER;
use rimg_storage::MemoryStorage;
use rimg_testkit::MemoryDir;
use std::error::Error as _;
use std::sync::Arc;

const CLUSTER: u64 = 4096;
const SIZE: u64 = 64 << 20;

/// An image with the bitmaps "first" and "second", and where their structures lie.
struct Sample {
    storage: MemoryStorage,
    extension: u64,
    directory: u64,
    table: u64,
    second_table: u64,
    cluster: u64,
}

impl Sample {
    fn new() -> Self {
        let dir = MemoryDir::new(DRIVERS);
        let storage = MemoryStorage::new();
        dir.put("disk", Arc::new(storage.clone()));
        let options = RawOptions::new().with("cluster_size", CLUSTER.to_string());
        dir.create("disk", "qcow2", SIZE, &options).unwrap();
        let disk = dir.file("disk");
        let image = open(&dir);
        let editor = image.bitmaps().unwrap().editor().unwrap();
        // 64 MiB in pieces of 512 bytes are 4 clusters of bits.
        editor.add("first", Some(512)).unwrap();
        editor.add("second", Some(4096)).unwrap();
        image.writer().unwrap().write_at(&[1; 700], 5000).unwrap();
        image.writer().unwrap().write_at(&[1; 700], 40 << 20).unwrap();
        image.close().unwrap();
        let mut head = [0; 512];
        disk.read_exact_at(&mut head, 0).unwrap();
        let magic = 0x2385_2875_u32.to_be_bytes();
        let extension = head.windows(4).position(|window| window == magic).unwrap();
        let extension = u64::try_from(extension).unwrap() + 8;
        let storage = copy(disk.as_ref());
        let word = |at| word(&storage, at);
        let directory = word(extension + 16);
        let (table, second_table) = (word(directory), word(directory + 32));
        let cluster = word(table);
        Self { extension, directory, table, second_table, cluster, storage }
    }

    fn patched(&self, at: u64, bytes: &[u8]) -> MemoryDir {
        let storage = copy(&self.storage);
        storage.write_all_at(bytes, at).unwrap();
        let dir = MemoryDir::new(DRIVERS);
        dir.put("disk", Arc::new(storage));
        dir
    }
}

fn copy(storage: &dyn rimg_core::Storage) -> MemoryStorage {
    let mut bytes = vec![0; usize::try_from(storage.len_bytes().unwrap()).unwrap()];
    storage.read_exact_at(&mut bytes, 0).unwrap();
    MemoryStorage::from(bytes)
}

fn word(storage: &MemoryStorage, at: u64) -> u64 {
    let mut bytes = [0; 8];
    storage.read_exact_at(&mut bytes, at).unwrap();
    u64::from_be_bytes(bytes)
}

fn chain(error: &Error) -> String {
    format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
}

#[test]
fn damage_is_named_and_stops_writes() {
    let sample = Sample::new();
    let Sample { extension, directory, table, second_table, cluster, .. } = sample;
    let second = directory + 32;
    let end = sample.storage.len_bytes().unwrap().next_multiple_of(CLUSTER);
    let l1 = word(&sample.storage, 40);
    let u64s = |n: u64| n.to_be_bytes().to_vec();
    let cases: Vec<(u64, Vec<u8>, String)> = vec![
        (
            extension + 8,
            u64s(1 << 40),
            "bitmaps extension, bitmap_directory_size at offset 0x0: table of 1099511627776 bytes \
             is too large"
                .into(),
        ),
        (
            extension,
            65_536_u32.to_be_bytes().to_vec(),
            "bitmaps extension, bitmap_directory_size at offset 0x0: table of 64 bytes is too large"
                .into(),
        ),
        (
            extension + 16,
            u64s(end),
            format!(
                "bitmap directory, entries at offset {end:#x}: the file ends within the table"
            ),
        ),
        (
            extension + 16,
            u64s(directory + 8),
            format!(
                "bitmaps extension, bitmap_directory_offset at offset 0x0: offset {:#x} is not a \
                 multiple of the cluster size",
                directory + 8
            ),
        ),
        (
            directory,
            u64s(end),
            format!("bitmap table, entries at offset {end:#x}: the file ends within the table"),
        ),
        (
            directory + 8,
            u32::MAX.to_be_bytes().to_vec(),
            format!(
                "bitmap directory, bitmap_table_size at offset {directory:#x}: table of 4294967295 \
                 entries does not fit the disk: 4 are needed"
            ),
        ),
        (
            directory + 8,
            3_u32.to_be_bytes().to_vec(),
            format!(
                "bitmap directory, bitmap_table_size at offset {directory:#x}: table of 3 entries \
                 does not fit the disk: 4 are needed"
            ),
        ),
        (
            directory + 12,
            0x82_u32.to_be_bytes().to_vec(),
            format!(
                "bitmap directory, flags at offset {:#x}: reserved bits are set in 0x82",
                directory + 12
            ),
        ),
        (
            directory + 16,
            vec![2],
            format!("bitmap directory, kind at offset {:#x}: bitmap type 2 is unknown", directory + 16),
        ),
        (
            directory + 18,
            u16::MAX.to_be_bytes().to_vec(),
            format!("bitmap directory, entry at offset {directory:#x}: the file ends within the table"),
        ),
        (
            directory + 20,
            u32::MAX.to_be_bytes().to_vec(),
            format!("bitmap directory, entry at offset {directory:#x}: the file ends within the table"),
        ),
        (
            second + 18,
            [0, 5, 0, 0, 0, 0, b'f', b'i', b'r', b's', b't'].to_vec(),
            format!("bitmap directory, name at offset {second:#x}: two bitmaps have the same name"),
        ),
        (
            table,
            u64s(cluster | 1),
            format!(
                "bitmap table, entry at offset {table:#x}: reserved bits are set in {:#x}",
                cluster | 1
            ),
        ),
        (
            table + 8,
            u64s(end + CLUSTER),
            format!(
                "bitmap table, entry at offset {:#x}: offset {:#x} lies behind the end of the file",
                table + 8,
                end + CLUSTER
            ),
        ),
        // In the same cluster: another cluster of the same bitmap, a table, the directory, the
        // header, the L1 table, and an L2 table.
        (table + 8, u64s(cluster), shared(cluster)),
        (second_table, u64s(cluster), shared(cluster)),
        (table + 8, u64s(second_table), shared(second_table)),
        (second, u64s(table), shared(cluster)),
        (table + 8, u64s(directory), shared(directory)),
        (table + 8, u64s(l1), shared(l1)),
    ];
    for (at, bytes, wanted) in cases {
        let what = format!("{bytes:x?} at {at:#x}");
        let dir = sample.patched(at, &bytes);
        let before = copy(dir.file("disk").as_ref());
        let image = dir.open("disk", "qcow2", true).unwrap();
        let wanted = format!("qcow2 image is corrupt: {wanted}");
        let bitmaps = image.bitmaps().unwrap();
        let editor = bitmaps.editor().unwrap();
        let all = 0..SIZE;
        assert_eq!(chain(&bitmaps.dirty_run("first", all).unwrap_err()), wanted, "{what}");
        assert_eq!(chain(&editor.remove("first").unwrap_err()), wanted, "{what}");
        let write = image.writer().unwrap().write_at(&[9; 512], 0);
        assert_eq!(chain(&write.unwrap_err()), wanted, "{what}");
        image.close().unwrap();
        let after = copy(dir.file("disk").as_ref());
        assert!(bytes_of(&before) == bytes_of(&after), "{what}: the image was changed");
    }
}

fn shared(at: u64) -> String {
    format!(
        "bitmap table, entry at offset {at:#x}: the cluster at {at:#x} is used by several structures"
    )
}

fn bytes_of(storage: &MemoryStorage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(storage.len_bytes().unwrap()).unwrap()];
    storage.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// What tables of the guest's data take is known when the image is open for writing.
#[test]
fn bits_in_an_l2_table_are_refused() {
    let sample = Sample::new();
    let l2 = word(&sample.storage, word(&sample.storage, 40)) & !(1 << 63);
    let dir = sample.patched(sample.table + 8, &l2.to_be_bytes());
    let image = dir.open("disk", "qcow2", true).unwrap();
    let error = image.writer().unwrap().write_at(&[9; 512], 0).unwrap_err();
    assert_eq!(chain(&error), format!("qcow2 image is corrupt: {}", shared(l2)));
}

/// A bitmap in use is neither believed nor changed, whatever is written; it can be removed.
#[test]
fn a_bitmap_in_use_stays_as_it_is() {
    let sample = Sample::new();
    // Its size may be outdated.
    let dir = sample.patched(sample.directory + 8, &[0, 0, 0, 2, 0, 0, 0, 3]);
    let image = open(&dir);
    let bitmaps = image.bitmaps().unwrap();
    let wanted = "Bitmap 'first' is inconsistent and cannot be used\n\
                  Try block-dirty-bitmap-remove to delete this bitmap from disk";
    let editor = bitmaps.editor().unwrap();
    for result in [
        bitmaps.dirty_run("first", 0..SIZE).map(drop),
        editor.clear("first"),
        editor.set_enabled("first", false),
        editor.mark("first", 0..512),
        image.resizer().unwrap().resize(SIZE * 2, rimg_core::Preallocation::Off),
    ] {
        assert_eq!(result.unwrap_err().to_string(), wanted);
    }
    image.writer().unwrap().write_at(&[9; 512], 20 << 20).unwrap();
    image.close().unwrap();
    let image = open(&dir);
    let list = image.bitmaps().unwrap().list().unwrap();
    assert_eq!(list.iter().map(|info| info.in_use).collect::<Vec<_>>(), [true, false]);
    assert!(runs(image.as_ref(), "second").contains(&(20 << 20..(20 << 20) + 4096)));
    image.bitmaps().unwrap().editor().unwrap().remove("first").unwrap();
    image.close().unwrap();
    let image = open(&dir);
    assert_eq!(image.bitmaps().unwrap().list().unwrap().len(), 1);
    // The table had four entries in truth; the two that it did not own up to are leaked.
    let found = findings(image.as_ref());
    assert!(found.iter().all(|(kind, _)| *kind == FindingKind::Leak), "{found:?}");
}

/// Extra data that may be ignored is kept; with any other, the bitmap cannot be followed.
#[test]
fn extra_data_is_kept_or_respected() {
    let sample = Sample::new();
    // "first" becomes "t" behind four bytes of extra data.
    let lengths = [0, 1, 0, 0, 0, 4];
    let compatible = sample.patched(sample.directory + 18, &lengths);
    let disk = compatible.file("disk");
    disk.writer().unwrap().write_all_at(&[0, 0, 0, 6], sample.directory + 12).unwrap();
    let image = open(&compatible);
    image.writer().unwrap().write_at(&[9; 512], 20 << 20).unwrap();
    image.close().unwrap();
    let image = open(&compatible);
    assert!(runs(image.as_ref(), "t").contains(&(20 << 20..(20 << 20) + 512)));
    let directory = word(&copy(disk.as_ref()), sample.extension + 16);
    let mut entry = [0; 32];
    disk.read_exact_at(&mut entry, directory).unwrap();
    assert_eq!(&entry[12..], b"\0\0\0\x06\x01\x09\0\x01\0\0\0\x04first\0\0\0");

    let dir = sample.patched(sample.directory + 18, &lengths);
    let image = open(&dir);
    let wanted = "unsupported qcow2 feature: extra data of bitmap 't'";
    let write = image.writer().unwrap().write_at(&[9; 512], 0);
    assert_eq!(write.unwrap_err().to_string(), wanted);
    let run = image.bitmaps().unwrap().dirty_run("t", 0..SIZE);
    assert_eq!(run.unwrap_err().to_string(), wanted);
}

/// Without the autoclear bit nothing of the extension counts, and writing does not bring it back.
#[test]
fn the_extension_counts_only_under_its_bit() {
    let sample = Sample::new();
    let dir = sample.patched(88, &[0; 8]);
    let image = open(&dir);
    assert_eq!(image.bitmaps().unwrap().list().unwrap(), []);
    image.writer().unwrap().write_at(&[9; 512], 0).unwrap();
    image.close().unwrap();
    let image = open(&dir);
    assert_eq!(image.bitmaps().unwrap().list().unwrap(), []);
    let editor = image.bitmaps().unwrap().editor().unwrap();
    editor.add("new", None).unwrap();
    image.close().unwrap();
    let image = dir.open("disk", "qcow2", false).unwrap();
    assert_eq!(image.bitmaps().unwrap().list().unwrap().len(), 1);
    assert_eq!(runs(image.as_ref(), "new"), []);
}

/// Bitmaps that come and go for long do not use up the memory of those that stay.
#[test]
fn memory_of_removed_bitmaps_comes_back() {
    let sample = Sample::new();
    let dir = sample.patched(0, &[]);
    let image = open_limited(&dir, 32 * CLUSTER);
    let editor = image.bitmaps().unwrap().editor().unwrap();
    for round in 0..200 {
        editor.add("guest", Some(512)).unwrap();
        image.writer().unwrap().write_at(&[9; 512], 20 << 20).unwrap();
        image.writer().unwrap().write_at(&[9; 512], 60 << 20).unwrap();
        let wanted = [20 << 20..(20 << 20) + 512, 60 << 20..(60 << 20) + 512];
        assert_eq!(runs(image.as_ref(), "guest"), wanted, "round {round}");
        editor.remove("guest").unwrap();
        image.writer().unwrap().flush().unwrap();
    }
    image.close().unwrap();
    let image = open(&dir);
    assert_eq!(runs(image.as_ref(), "first").len(), 4);
    assert_eq!(findings(image.as_ref()), []);
}

/// Where memory for bits runs out, more is said to be written than was, never less.
#[test]
fn bits_without_memory_become_ones() {
    let sample = Sample::new();
    let dir = sample.patched(0, &[]);
    // The image's tables fit, and two clusters of bits.
    let image = open_limited(&dir, 3 * CLUSTER);
    for at in (0..SIZE).step_by(1 << 20) {
        image.writer().unwrap().write_at(&[9; 512], at).unwrap();
    }
    image.close().unwrap();
    let image = open(&dir);
    let set = runs(image.as_ref(), "first");
    for at in (0..SIZE).step_by(1 << 20) {
        assert!(set.iter().any(|run| run.contains(&at)), "{at:#x}");
    }
    assert!(set.iter().any(|run| run.end - run.start >= CLUSTER * 8 * 512), "{set:?}");
    assert_eq!(findings(image.as_ref()), []);
}

/// Opens `disk` for writing with so much memory for metadata.
fn open_limited(dir: &MemoryDir, metadata_bytes: u64) -> Box<dyn BlockImage> {
    let mut limits = Limits::default();
    limits.metadata_bytes = metadata_bytes;
    let how = OpenOptions {
        writable: true,
        inspect_only: false,
        limits,
        gate: dir,
        options: RawOptions::NONE,
    };
    DRIVER.open(dir.file("disk"), &how).unwrap()
}
