//! What the tests share.
#![allow(dead_code, reason = "some tests use all of it, so that nothing could be expected")]

use rimg_core::{BlockImage, FormatDriver, RawOptions, Result};
use rimg_testkit::MemoryDir;
use rimg_testkit::drill::Drill;

pub(crate) static DRIVERS: &[&dyn FormatDriver] = &[&rimg_luks::DRIVER];

/// `name=value,…` with the passphrase "abc" as `s`, and "other" as `t`.
pub(crate) fn options(line: &str) -> RawOptions {
    let mut options = RawOptions::new()
        .with("key-secret", "s")
        .with_secret("s", "abc".into())
        .with_secret("t", "other".into());
    for entry in line.split(',').filter(|entry| !entry.is_empty()) {
        let (name, value) = entry.split_once('=').unwrap();
        options.set(name, value);
    }
    options
}

/// Makes "disk", as fast as a passphrase is ever tried.
pub(crate) fn create(dir: &MemoryDir, size: u64, line: &str) {
    dir.create("disk", "luks", size, &options(line).with("iter-time", "0")).unwrap();
}

pub(crate) fn open(dir: &MemoryDir, writable: bool) -> Result<Box<dyn BlockImage>> {
    dir.open_with("disk", "luks", writable, &options(""))
}

/// Kinds of volumes for the drills, all zeroes at first as these want them. A small header leaves
/// more of the file to the disk.
pub(crate) fn kinds() -> Vec<Drill> {
    let small = Drill::new(DRIVERS, 300 << 10)
        .opened_with(options(""))
        .with("key-secret", "s")
        .with("iter-time", "0")
        .with("preallocation", "full")
        .with("cipher-alg", "aes-128");
    vec![
        small.clone(),
        small.clone().with("cipher-mode", "cbc").with("ivgen-alg", "essiv"),
        small.with("cipher-alg", "twofish-128").with("cipher-mode", "ctr"),
    ]
}
