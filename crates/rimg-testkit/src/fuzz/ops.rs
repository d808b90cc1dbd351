//! Any operations on a new image.

use super::input::Input;
use crate::guest::GuestContents;
use crate::{MemoryDir, MemoryStorage, ModelDisk, Rng};
use rimg_core::{
    BlockImage, Error, FormatDriver, FormatInfo, NewSnapshot, Preallocation, RawOptions, Repair,
    Result, SnapshotSelector,
};
use std::ops::Range;
use std::sync::Arc;

const MAX_OPERATIONS: usize = 100;
const MAX_DISK_BYTES: u64 = 4 << 20;
const MAX_CHANGE_BYTES: u64 = 300_000;

/// Creates an image with the options that the input chooses from the format's own, does what the
/// input says, and compares all of it with a disk that is certainly right.
///
/// The format under test is the first of `drivers`.
///
/// # Panics
/// When an operation fails, the disk holds something else, or a check finds anything.
pub fn ops(drivers: &'static [&'static dyn FormatDriver], input: &[u8]) {
    let format = drivers[0].format();
    let dir = MemoryDir::new(drivers);
    let mut input = Input::new(input);
    let Some(mut model) = create(&dir, format, &mut input) else { return };
    let how = opened_with(format.name);
    let open = |writable| match dir.open_with("disk", format.name, writable, &how) {
        Ok(image) => image,
        Err(error) => panic!("cannot be opened: {error:?}"),
    };
    let mut image = open(true);
    // Formats round sizes up to what they can express.
    if image.size_bytes() > model.size_bytes() {
        model.resize(image.size_bytes());
    }
    model.assert_same(image.as_ref(), "new");
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        let operation = input.byte();
        if operation % 16 == 15 {
            image.close().unwrap();
            assert_sound(open(false).as_ref());
            image = open(true);
        } else {
            operate(operation, image.as_ref(), &mut model, &mut input);
        }
    }
    model.assert_same(image.as_ref(), "at the end");
    image.close().unwrap();
    let image = open(false);
    model.assert_same(image.as_ref(), "opened again");
    model.assert_same_snapshots(image.as_ref(), "opened again");
    assert_sound(image.as_ref());
}

/// `None` when the options contradict each other.
fn create(dir: &MemoryDir, format: &FormatInfo, input: &mut Input<'_>) -> Option<ModelDisk> {
    let size = input.number(3) * 512 % MAX_DISK_BYTES;
    let switches = input.number(2);
    let below_bytes = input.number(2) * 512 % MAX_DISK_BYTES;
    let mut options = opened_with(format.name);
    if format.name == "luks" {
        // As fast as a passphrase is ever tried, and zero where nobody wrote.
        options = options.with("iter-time", "0").with("preallocation", "full");
    }
    for (place, spec) in format.all_create_options().enumerate() {
        // The byte is read for every option: what comes after does not depend on the format's.
        let choice = input.byte();
        if switches >> (place % 16) & 1 != 0
            && let Some(value) = value(format.name, spec.name, choice)
        {
            options.set(spec.name, value);
        }
    }
    let mut model = ModelDisk::new(size);
    if options.value("backing_file").is_some() {
        let below = GuestContents::new(7, below_bytes).to_vec();
        let seen = below.len().min(usize::try_from(size).unwrap());
        model.write(&below[..seen], 0);
        dir.put("below", Arc::new(MemoryStorage::from(below)));
        options.set("backing_fmt", "raw");
    }
    match dir.create("disk", format.name, size, &options) {
        Ok(()) => Some(model),
        Err(Error::InvalidOption { .. } | Error::Unsupported { .. } | Error::Limit { .. }) => None,
        Err(error) => panic!("{options:?}: {error:?}"),
    }
}

/// What the format wants to know whenever the image is opened.
fn opened_with(format: &str) -> RawOptions {
    match format {
        "luks" => RawOptions::new().with("key-secret", "key").with_secret("key", "abc".into()),
        _ => RawOptions::new(),
    }
}

/// A value for an option that is worth trying.
fn value(format: &str, name: &str, choice: u8) -> Option<String> {
    let from = |values: &[&str]| Some(values[usize::from(choice) % values.len()].to_owned());
    match name {
        // Larger clusters take time, and do nothing that these do not.
        "cluster_size" => Some((512_u32 << (choice % 9)).to_string()),
        "block_size" => from(&["512", "4096", "65536", "1048576", "2097152", "33554432"]),
        "block_state_zero" => from(&["on", "off"]),
        "subformat" if format == "vmdk" => from(&[
            "streamOptimized",
            "monolithicSparse",
            "monolithicFlat",
            "twoGbMaxExtentSparse",
            "twoGbMaxExtentFlat",
        ]),
        "subformat" => from(&["dynamic", "fixed"]),
        "refcount_bits" => Some((1_u32 << (choice % 7)).to_string()),
        "compat" => from(&["1.1", "0.10"]),
        "compression_type" => from(&["zlib", "zstd"]),
        "preallocation" if format == "luks" => None,
        "cipher-alg" => from(&["aes-256", "aes-128", "twofish-128"]),
        "cipher-mode" => from(&["xts", "cbc", "ecb", "ctr"]),
        "ivgen-alg" => from(&["plain64", "plain", "essiv"]),
        "ivgen-hash-alg" | "hash-alg" => from(&["sha256", "sha1", "sha512"]),
        "preallocation" => from(&["off", "metadata", "falloc", "full"]),
        "backing_file" => from(&["below"]),
        "data_file" => from(&["data"]),
        "extended_l2" | "lazy_refcounts" | "data_file_raw" | "static" | "force_size"
        | "zeroed_grain" => from(&["on", "off"]),
        _ => None,
    }
}

/// One operation, on the image and on the disk that it should be.
fn operate(operation: u8, image: &dyn BlockImage, model: &mut ModelDisk, input: &mut Input<'_>) {
    let size = model.size_bytes();
    let writer = image.writer().unwrap();
    match operation % 16 {
        0..=4 => {
            let range = input.range(size, MAX_CHANGE_BYTES);
            let data = data(input.byte(), range.end - range.start);
            writer.write_at(&data, range.start).unwrap();
            model.write(&data, range.start);
        }
        5 | 6 => {
            let range = input.range(size, MAX_CHANGE_BYTES);
            writer.write_zeroes_at(range.clone()).unwrap();
            model.zero(range);
        }
        7 | 8 => {
            let range = input.range(size, MAX_CHANGE_BYTES);
            writer.discard_at(range.clone()).unwrap();
            adopt_discard(image, model, range);
        }
        9 | 10 => compress(image, model, input),
        11 => resize(image, model, input),
        12 => writer.flush().unwrap(),
        13 => compare(image, model, input.range(size, MAX_CHANGE_BYTES)),
        _ => {
            walk(image);
            snapshots(image, model, input);
        }
    }
}

/// Data that shrinks and data that does not, zeroes among them.
fn data(choice: u8, len: u64) -> Vec<u8> {
    let mut data = vec![choice; usize::try_from(len).unwrap()];
    if choice & 1 != 0 {
        Rng::new(choice.into()).fill(&mut data);
    }
    data
}

/// Discarded bytes are zeroes or as before, and stay what they are.
fn adopt_discard(image: &dyn BlockImage, model: &mut ModelDisk, range: Range<u64>) {
    let before = model.read(range.clone());
    let mut after = vec![0; before.len()];
    image.read_at(&mut after, range.start).unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert!(*after == 0 || after == before, "a discard brought up other bytes");
    }
    model.write(&after, range.start);
}

fn compress(image: &dyn BlockImage, model: &mut ModelDisk, input: &mut Input<'_>) {
    let Some(compressor) = image.compressor() else { return };
    let cluster_bytes = u64::from(compressor.cluster_bytes());
    let at = input.number(2) * cluster_bytes;
    let choice = input.byte();
    if at < model.size_bytes() {
        let data = data(choice, cluster_bytes.min(model.size_bytes() - at));
        compressor.write_compressed_at(&data, at).unwrap();
        model.write(&data, at);
    }
}

fn resize(image: &dyn BlockImage, model: &mut ModelDisk, input: &mut Input<'_>) {
    let size = input.number(2) * 512 % MAX_DISK_BYTES;
    let how = match input.byte() % 8 {
        0 => Preallocation::Metadata,
        1 => Preallocation::Falloc,
        2 => Preallocation::Full,
        _ => Preallocation::Off,
    };
    let Some(resizer) = image.resizer() else { return };
    let old = model.size_bytes();
    if done(resizer.resize(size, how)) {
        model.resize(size);
        if size > old && !resizer.grows_by_zeroes() {
            image.writer().unwrap().write_zeroes_at(old..size).unwrap();
        }
    }
}

/// Takes, applies, deletes or compares snapshots.
fn snapshots(image: &dyn BlockImage, model: &mut ModelDisk, input: &mut Input<'_>) {
    const MAX_SNAPSHOTS: usize = 6;
    let choice = input.byte();
    let Some(editor) = image.snapshots().and_then(|snapshots| snapshots.editor()) else { return };
    let names: Vec<String> = model.snapshot_names().into_iter().map(str::to_owned).collect();
    let place = usize::from(choice >> 2).checked_rem(names.len());
    let wanted =
        place.map(|place| SnapshotSelector::Fields { id: None, name: Some(&names[place]) });
    match (choice % 4, place, wanted) {
        (0, _, _) if names.len() < MAX_SNAPSHOTS => {
            // No name comes twice, so that it says which snapshot is meant.
            let name = (0..).map(|n| n.to_string()).find(|name| !names.contains(name)).unwrap();
            let new = NewSnapshot { name: &name, ..NewSnapshot::default() };
            if counted(editor.create(&new)).is_some() {
                model.take_snapshot(name);
            }
        }
        (1, Some(place), Some(wanted)) => {
            if let Some(found) = counted(editor.apply(&wanted)) {
                assert!(found, "no snapshot {wanted:?}");
                model.apply_snapshot(place);
            }
        }
        (2, Some(place), Some(wanted)) => {
            if let Some(found) = counted(editor.delete(&wanted)) {
                assert!(found, "no snapshot {wanted:?}");
                model.delete_snapshot(place);
            }
        }
        _ => model.assert_same_snapshots(image, "on the way"),
    }
}

/// `None` for what the format does not do, and where its counts are too narrow.
fn counted<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(done) => Some(done),
        Err(Error::Unsupported { .. } | Error::Limit { what: "refcount", .. }) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// False for what the format does not do.
fn done(result: Result<()>) -> bool {
    match result {
        Ok(()) => true,
        Err(Error::Unsupported { .. } | Error::InvalidOption { .. }) => false,
        Err(error) => panic!("{error:?}"),
    }
}

fn compare(image: &dyn BlockImage, model: &ModelDisk, range: Range<u64>) {
    let wanted = model.read(range.clone());
    let mut found = vec![0xA5; wanted.len()];
    image.read_at(&mut found, range.start).unwrap();
    assert!(found == wanted, "{range:#x?} differs");
}

/// The runs cover the disk.
fn walk(image: &dyn BlockImage) {
    let size = image.size_bytes();
    let mut at = 0;
    while at < size {
        let extent = image.extent_at(at..size).unwrap();
        assert!(extent.len_bytes > 0 && extent.len_bytes <= size - at, "{at:#x}: {extent:?}");
        at += extent.len_bytes;
    }
}

fn assert_sound(image: &dyn BlockImage) {
    let Some(checker) = image.checker() else { return };
    let mut findings = Vec::new();
    checker.check(Repair::Nothing, &mut |finding| findings.push(finding.message.clone())).unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}
