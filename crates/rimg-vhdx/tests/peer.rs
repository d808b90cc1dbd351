//! Both directions with qemu-img and qemu-io.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{BlockImage, FormatDriver as _, Preallocation, RawOptions, Storage};
use rimg_storage::{FileOptions, FileStorage, MemoryStorage};
use rimg_testkit::guest::GuestContents;
use rimg_testkit::peer::Peer;
use rimg_testkit::{Fate, MemoryDir, ModelDisk, Record, RecordingStorage};
use std::path::Path;
use std::sync::Arc;

static DRIVERS: &[&dyn rimg_core::FormatDriver] = &[&rimg_vhdx::DRIVER];

const MIB: u64 = 1 << 20;

/// Options, and the size of the disk.
const IMAGES: &[(&str, u64)] = &[
    ("", 5 * MIB + 512),
    ("block_size=1048576", 5 * MIB + 512),
    ("block_size=1048576,block_state_zero=off", 5 * MIB),
    ("block_size=2097152,subformat=fixed", 5 * MIB),
    ("block_size=2097152,subformat=fixed,block_state_zero=off", 5 * MIB),
    ("block_size=1048576,log_size=3145728", 3 * MIB),
    ("block_size=268435456", 3 * MIB),
];

const IDENTICAL: &str = "Images are identical.\n";

#[test]
fn what_qemu_img_writes_is_read() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let dir = tempfile::tempdir().unwrap();
    let qemu = qemu.in_dir(&dir);
    for ((line, size), seed) in IMAGES.iter().zip(0..) {
        let guest = GuestContents::with_segments_up_to(seed, *size, 700 << 10);
        guest.write_file(dir.path().join("raw")).unwrap();
        let option = if line.is_empty() { "log_size=1048576" } else { line };
        qemu.ok(["convert", "-f", "raw", "-O", "vhdx", "-o", option, "raw", "disk"]);
        let image = open(&dir.path().join("disk"), false);
        model_of(&guest).assert_same(image.as_ref(), line);
    }
}

#[test]
fn what_rimg_writes_is_clean_and_gone_on_with() {
    let (Some(qemu), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (qemu, qemu_io) = (qemu.in_dir(&dir), qemu_io.in_dir(&dir));
    let path = dir.path().join("disk");
    for ((line, size), seed) in IMAGES.iter().zip(0..) {
        let guest = GuestContents::with_segments_up_to(seed, *size, 700 << 10);
        guest.write_file(dir.path().join("raw")).unwrap();
        create(&path, *size, line);
        let image = open(&path, true);
        for _ in 0..2 {
            guest.write_to(image.writer().unwrap()).unwrap();
        }
        image.close().unwrap();
        qemu.ok(["check", "-q", "-f", "vhdx", "disk"]);
        assert_eq!(qemu.ok(["compare", "-f", "vhdx", "-F", "raw", "disk", "raw"]), IDENTICAL);

        let mut model = model_of(&guest);
        qemu_io.ok([
            "-f",
            "vhdx",
            "-c",
            "write -P 0x22 1000k 100k",
            "-c",
            "write -z 0 70k",
            "disk",
        ]);
        model.write(&[0x22; 100 << 10], 1000 << 10);
        model.zero(0..70 << 10);
        let image = open(&path, true);
        model.assert_same(image.as_ref(), line);
        image.writer().unwrap().write_at(&[0x33; 5000], 2 * MIB - 100).unwrap();
        model.write(&[0x33; 5000], 2 * MIB - 100);
        image.close().unwrap();
        qemu.ok(["check", "-q", "-f", "vhdx", "disk"]);
        model.assert_same(open(&path, false).as_ref(), line);
        let pattern = format!("read -P 0x33 {} 5000", 2 * MIB - 100);
        let read = qemu_io.ok(["-f", "vhdx", "-c", &pattern, "disk"]);
        assert!(!read.contains("verification failed"), "{line}: {read}");
    }
}

#[test]
fn a_resized_image_is_read_by_qemu_img() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let dir = tempfile::tempdir().unwrap();
    let qemu = qemu.in_dir(&dir);
    let path = dir.path().join("disk");
    for (line, size) in IMAGES {
        let guest = GuestContents::with_segments_up_to(1, *size, 700 << 10);
        create(&path, *size, line);
        let image = open(&path, true);
        guest.write_to(image.writer().unwrap()).unwrap();
        let mut model = model_of(&guest);
        // The table of 256 GiB in blocks of 1 MiB does not fit its region.
        let large = if line.contains("block_size=1048576") { 256 << 30 } else { 40 * MIB };
        for size in [2 * MIB + 512, large, 4 * MIB] {
            image.resizer().unwrap().resize(size, Preallocation::Off).unwrap();
            model.resize(size);
            image.writer().unwrap().write_at(&[9; 512], size - 512).unwrap();
            model.write(&[9; 512], size - 512);
            image.writer().unwrap().finish().unwrap();
            let check = qemu.run(["check", "-U", "-f", "vhdx", "disk"]);
            assert_eq!(check.status, Some(0), "{line}, {size}: {}", check.stderr);
        }
        image.close().unwrap();
        std::fs::write(dir.path().join("raw"), model.read(0..4 * MIB)).unwrap();
        assert_eq!(qemu.ok(["compare", "-f", "vhdx", "-F", "raw", "disk", "raw"]), IDENTICAL);
    }
}

#[test]
fn a_fixed_image_of_qemu_img_grows_and_shrinks() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let dir = tempfile::tempdir().unwrap();
    let qemu = qemu.in_dir(&dir);
    let path = dir.path().join("disk");
    // Its last block ends where the disk does.
    let option = "subformat=fixed,block_state_zero=off,block_size=8M";
    qemu.ok(["create", "-q", "-f", "vhdx", "-o", option, "disk", "10M"]);
    let image = open(&path, true);
    assert!(image.writer().unwrap().is_zero_initialised());
    let mut model = ModelDisk::new(10 * MIB);
    let write = |model: &mut ModelDisk, at: u64, byte| {
        image.writer().unwrap().write_at(&[byte; 512], at).unwrap();
        model.write(&[byte; 512], at);
    };
    let resize = |model: &mut ModelDisk, size| {
        image.resizer().unwrap().resize(size, Preallocation::Off).unwrap();
        model.resize(size);
    };
    write(&mut model, 10 * MIB - 512, 1);
    resize(&mut model, 14 * MIB);
    write(&mut model, 13 * MIB, 2);
    resize(&mut model, 30 * MIB);
    write(&mut model, 29 * MIB, 3);
    resize(&mut model, 15 * MIB);
    model.assert_same(image.as_ref(), "resized");
    image.close().unwrap();
    let image = open(&path, false);
    model.assert_same(image.as_ref(), "closed");
    assert_eq!(image.file(0).unwrap().len_bytes().unwrap(), 24 * MIB);
    std::fs::write(dir.path().join("raw"), model.read(0..15 * MIB)).unwrap();
    assert_eq!(qemu.ok(["compare", "-f", "vhdx", "-F", "raw", "disk", "raw"]), IDENTICAL);
}

#[test]
fn a_log_that_rimg_left_is_replayed_by_qemu_img() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let dir = tempfile::tempdir().unwrap();
    let qemu = qemu.in_dir(&dir);
    let recording = Arc::new(RecordingStorage::new());
    let memory = MemoryDir::new(DRIVERS);
    memory.put("disk", recording.clone());
    memory.create("disk", "vhdx", 4 * MIB, &options("block_size=1048576")).unwrap();
    let image = memory.open("disk", "vhdx", true).unwrap();
    let mut wanted = vec![0; 4 << 20];
    let mut replayed = 0;
    for (block, byte) in [(2_u64, 7), (0, 8), (3, 9)] {
        let at = block * MIB + 4096;
        image.writer().unwrap().write_at(&[byte; 8192], at).unwrap();
        let flushed_from = recording.position();
        image.writer().unwrap().flush().unwrap();
        wanted[usize::try_from(at).unwrap()..][..8192].fill(byte);
        std::fs::write(dir.path().join("raw"), &wanted).unwrap();

        // The table is the last thing to be written; without it the log has to say all.
        let log = recording.log();
        let table = log.iter().rposition(|record| matches!(record, Record::Write { .. })).unwrap();
        assert!(table > flushed_from);
        let fate = |at| if at == table { Fate::Lost } else { Fate::Kept };
        let state = recording.crash_state(table + 1, fate);
        std::fs::write(dir.path().join("disk"), state.to_vec().unwrap()).unwrap();
        let before = open(&dir.path().join("disk"), false);
        assert_eq!(read(before.as_ref()), wanted, "replayed in memory");
        drop(before);
        qemu.ok(["check", "-q", "-r", "all", "-f", "vhdx", "disk"]);
        assert_eq!(qemu.ok(["compare", "-f", "vhdx", "-F", "raw", "disk", "raw"]), IDENTICAL);
        let after: Arc<dyn Storage> =
            Arc::new(MemoryStorage::from(std::fs::read(dir.path().join("disk")).unwrap()));
        memory.put("after", after);
        assert_eq!(read(memory.open("after", "vhdx", false).unwrap().as_ref()), wanted);
        replayed += 1;
    }
    assert_eq!(replayed, 3);
}

fn model_of(guest: &GuestContents) -> ModelDisk {
    let mut model = ModelDisk::new(guest.size_bytes());
    model.write(&guest.to_vec(), 0);
    model
}

fn read(image: &dyn BlockImage) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(image.size_bytes()).unwrap()];
    image.read_at(&mut all, 0).unwrap();
    all
}

fn options(line: &str) -> RawOptions {
    let mut options = RawOptions::new();
    for (name, value) in line.split(',').filter_map(|option| option.split_once('=')) {
        options.set(name, value);
    }
    options
}

fn open(path: &Path, writable: bool) -> Box<dyn BlockImage> {
    let options = if writable { FileOptions::write() } else { FileOptions::read() };
    let memory = MemoryDir::new(DRIVERS);
    memory.put("disk", Arc::new(FileStorage::open(path, options).unwrap()));
    memory.open("disk", "vhdx", writable).unwrap()
}

fn create(path: &Path, size: u64, line: &str) {
    let _ = std::fs::remove_file(path);
    let file = FileStorage::open(path, FileOptions::create()).unwrap();
    let memory = MemoryDir::new(DRIVERS);
    memory.put("disk", Arc::new(file));
    memory.create("disk", rimg_vhdx::DRIVER.format().name, size, &options(line)).unwrap();
}
