//! Requests that must be refused, and storages that misbehave.

use rimg_core::{
    BlockImage, Error, FormatDriver, Match, Preallocation, ProbeWindow, RawOptions, Storage,
    StorageRun,
};
use rimg_testkit::{MemoryDir, MemoryStorage};
use std::io;
use std::sync::Arc;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_raw::DRIVER];

fn open(storage: impl Storage + 'static, writable: bool) -> rimg_core::Result<Box<dyn BlockImage>> {
    let dir = MemoryDir::new(DRIVERS);
    dir.put("disk", Arc::new(storage));
    dir.open("disk", "raw", writable)
}

#[test]
fn ranges_past_the_end_are_the_callers_mistake() {
    let image = open(MemoryStorage::with_len(1000), true).unwrap();
    let writer = image.writer().unwrap();
    let mut buf = [0; 32];
    for at in [1000, 1024, u64::MAX, u64::MAX - 16] {
        assert!(matches!(image.read_at(&mut buf, at), Err(Error::Misuse(_))), "{at}");
        assert!(matches!(writer.write_at(&buf, at), Err(Error::Misuse(_))), "{at}");
    }
    let backwards = core::ops::Range { start: 2, end: 1 };
    for range in [0..1025, 1024..1025, 0..u64::MAX, backwards.clone()] {
        assert!(matches!(image.extent_at(range.clone()), Err(Error::Misuse(_))), "{range:?}");
        assert!(matches!(writer.write_zeroes_at(range.clone()), Err(Error::Misuse(_))));
        assert!(matches!(writer.discard_at(range.clone()), Err(Error::Misuse(_))));
    }
    assert!(matches!(image.extent_at(7..7), Err(Error::Misuse(_))));
    image.read_at(&mut buf, 1024 - 32).unwrap();
    assert_eq!(image.file(0).unwrap().len_bytes().unwrap(), 1000);
}

#[test]
fn a_read_only_image_hands_out_no_writer() {
    let image = open(MemoryStorage::with_len(1000), false).unwrap();
    assert!(image.writer().is_none() && image.resizer().is_none());
    assert!(image.compressor().is_none() && image.snapshots().is_none());
    assert!(matches!(open(Odd::Length(512), true), Err(Error::ReadOnly(_))));
}

#[test]
fn sizes_and_options_are_refused_before_anything_is_written() {
    let dir = MemoryDir::new(DRIVERS);
    let untouched = Arc::new(MemoryStorage::from(vec![1, 2, 3]));
    dir.put("disk", untouched.clone());
    for (size, name, value) in [
        (1 << 63, "nocow", "off"),
        (u64::MAX, "nocow", "off"),
        ((1 << 63) - 512, "nocow", "off"),
        (512, "preallocation", "metadata"),
        (512, "preallocation", ""),
        (512, "extent_size_hint", "4294967296"),
        (512, "cluster_size", "65536"),
    ] {
        let options = RawOptions::new().with(name, value);
        assert!(dir.create("disk", "raw", size, &options).is_err(), "{size} {name}={value}");
    }
    assert_eq!(untouched.to_vec().unwrap(), [1, 2, 3]);
}

#[test]
fn a_failed_resize_changes_nothing() {
    let image = open(MemoryStorage::from(vec![7; 1024]), true).unwrap();
    let resizer = image.resizer().unwrap();
    for (size, preallocation) in
        [(2048, Preallocation::Metadata), (512, Preallocation::Full), (1024, Preallocation::Falloc)]
    {
        let error = resizer.resize(size, preallocation).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { option: "preallocation", .. }), "{error}");
        assert_eq!(image.size_bytes(), 1024);
    }
}

#[test]
fn odd_storages_end_in_errors() {
    assert!(matches!(open(Odd::Length(u64::MAX), false), Err(Error::Limit { .. })));
    assert!(matches!(open(Odd::NoLength, false), Err(Error::Io { .. })));
    let image = open(Odd::Length(1 << 40), false).unwrap();
    assert!(matches!(image.read_at(&mut [0; 8], 512), Err(Error::Io { at: 512, .. })));
    // A run of no bytes would let a walk go on for ever.
    assert_eq!(image.extent_at(0..1 << 40).unwrap().len_bytes, 1);
}

#[test]
fn a_probe_says_fallback_whatever_it_sees() {
    for head in [&b""[..], b"QFI\xfb\0\0\0\x03", &[0; 2048]] {
        let window = ProbeWindow { head, name: None, len_bytes: 1 << 20 };
        assert_eq!(rimg_raw::DRIVER.probe(&window), Match::Fallback);
    }
}

/// A storage that answers strangely.
#[derive(Debug)]
enum Odd {
    Length(u64),
    NoLength,
}

impl Storage for Odd {
    fn len_bytes(&self) -> io::Result<u64> {
        match self {
            Self::Length(len) => Ok(*len),
            Self::NoLength => Err(io::Error::other("no length")),
        }
    }

    fn read_exact_at(&self, _buf: &mut [u8], _at: u64) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn run_at(&self, _at: u64) -> io::Result<StorageRun> {
        Ok(StorageRun::data(0))
    }
}
