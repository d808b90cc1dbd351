//! Other programs read the images as this crate does.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, samples};
use rimg_testkit::peer::Peer;
use rimg_testkit::{MemoryDir, MemoryStorage};
use std::fs;
use std::sync::Arc;

#[test]
fn qemu_img_reads_the_same() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let mut compared = 0;
    for sample in samples().into_iter().filter(|sample| sample.qemu) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("image"), &sample.image).unwrap();
        qemu.in_dir(&dir).ok(["convert", "-f", sample.format, "-O", "raw", "image", "raw"]);
        assert!(fs::read(dir.path().join("raw")).unwrap() == sample.disk, "{}", sample.name);
        compared += 1;
    }
    assert!(compared > 8, "{compared}");
}

#[test]
fn seven_zip_reads_the_same() {
    let Some(seven_zip) = Peer::require("7zz") else { return };
    let mut compared = 0;
    // It takes the partitions apart, and knows the resource fork not at all.
    let with_list = |name: &str| name.starts_with("dmg") && name.ends_with("Plist");
    for sample in samples().into_iter().filter(|sample| with_list(&sample.name)) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("image.dmg"), &sample.image).unwrap();
        seven_zip.in_dir(&dir).ok(["x", "-y", "-tdmg", "image.dmg", "-oout"]);
        let mut parts: Vec<_> =
            fs::read_dir(dir.path().join("out")).unwrap().map(|e| e.unwrap().path()).collect();
        parts.sort();
        let all: Vec<u8> = parts.iter().flat_map(|part| fs::read(part).unwrap()).collect();
        assert!(all == sample.disk, "{}", sample.name);
        compared += 1;
    }
    assert!(compared > 5, "{compared}");
}

#[test]
fn what_bximage_made_is_read() {
    let (Some(bximage), Some(qemu)) = (Peer::require("bximage"), Peer::qemu_img()) else { return };
    let dir = tempfile::tempdir().unwrap();
    bximage.in_dir(&dir).ok(["-q", "-func=create", "-hd=10M", "-imgmode=growing", "image"]);
    qemu.in_dir(&dir).ok(["convert", "-f", "bochs", "-O", "raw", "image", "raw"]);
    let raw = fs::read(dir.path().join("raw")).unwrap();
    let folder = MemoryDir::new(DRIVERS);
    let image = fs::read(dir.path().join("image")).unwrap();
    folder.put("disk", Arc::new(MemoryStorage::from(image)));
    let image = folder.open("disk", "bochs", false).unwrap();
    assert_eq!(image.size_bytes(), u64::try_from(raw.len()).unwrap());
    let mut read = vec![1; raw.len()];
    image.read_at(&mut read, 0).unwrap();
    assert!(read == raw);
}
