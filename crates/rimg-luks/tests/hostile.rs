//! Images and requests that must be refused, and every byte of the header wrong in turn.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, create, open, options};
use rimg_core::{Error, FormatDriver as _, Match, Preallocation, ProbeWindow, RawOptions};
use rimg_testkit::{MemoryDir, MemoryStorage, Rng};
use std::sync::Arc;

const DATA_AT: usize = 2_068_480;

fn bytes(dir: &MemoryDir) -> Vec<u8> {
    let file = dir.file("disk");
    let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn volume() -> Vec<u8> {
    let dir = MemoryDir::new(DRIVERS);
    create(&dir, 4096, "");
    bytes(&dir)
}

fn put(bytes: Vec<u8>) -> MemoryDir {
    let dir = MemoryDir::new(DRIVERS);
    dir.put("disk", Arc::new(MemoryStorage::from(bytes)));
    dir
}

fn message(error: &Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

#[test]
fn files_that_end_early_are_refused() {
    let whole = volume();
    for len in [0, 5, 6, 100, 591, 592, 4095, 4096, 5000, 262_143, DATA_AT - 513] {
        let error = open(&put(whole[..len].to_vec()), false).unwrap_err();
        match len {
            0 | 5 => assert!(matches!(error, Error::WrongFormat { format: "luks" }), "{len}"),
            6..=591 => assert!(message(&error).contains("the header ends after"), "{len} {error}"),
            592..260_096 => {
                assert!(matches!(error, Error::Io { op: "read key material", .. }), "{len}");
            }
            _ => assert!(message(&error).contains("ends before the data"), "{len} {error}"),
        }
    }
    assert_eq!(open(&put(whole[..DATA_AT].to_vec()), false).unwrap().size_bytes(), 0);
}

#[test]
fn data_inside_the_header_is_refused() {
    let mut bytes = volume();
    bytes[104..108].fill(0);
    let error = open(&put(bytes), false).unwrap_err();
    assert_eq!(error.to_string(), "LUKS payload is overlapping with the header");
}

#[test]
fn keys_are_needed_and_have_to_be_right() {
    let dir = put(volume());
    for (line, reason) in [
        ("key-secret=t", "Invalid password, cannot unlock any keyslot"),
        ("key-secret=u", "No secret with id 'u'"),
        ("foo=bar", "Block format 'luks' does not support the option 'foo'"),
        ("header.driver=nbd", "Block format 'luks' does not support the option 'header.driver'"),
    ] {
        let error = dir.open_with("disk", "luks", true, &options(line)).unwrap_err();
        assert_eq!(error.to_string(), reason);
    }
    let error = dir.open("disk", "luks", false).unwrap_err();
    assert_eq!(error.to_string(), "Parameter 'key-secret' is required for cipher");
}

#[test]
fn ranges_past_the_end_are_the_callers_mistake() {
    let image = open(&put(volume()), true).unwrap();
    let writer = image.writer().unwrap();
    for at in [4096, 4090, u64::MAX] {
        assert!(matches!(image.read_at(&mut [0; 8], at), Err(Error::Misuse(_))), "{at}");
        assert!(matches!(writer.write_at(&[0; 8], at), Err(Error::Misuse(_))), "{at}");
    }
    for range in [0..4097, 4096..u64::MAX] {
        assert!(matches!(image.extent_at(range.clone()), Err(Error::Misuse(_))));
        assert!(matches!(writer.write_zeroes_at(range.clone()), Err(Error::Misuse(_))));
        assert!(matches!(writer.discard_at(range), Err(Error::Misuse(_))));
    }
    assert!(matches!(image.extent_at(5..5), Err(Error::Misuse(_))));
}

#[test]
fn sizes_that_cannot_be_are_refused_before_anything_changes() {
    let dir = put(volume());
    let image = open(&dir, true).unwrap();
    let resize = |size, how| image.resizer().unwrap().resize(size, how).unwrap_err().to_string();
    for (size, how, reason) in [
        (u64::MAX, Preallocation::Off, "The requested file size is too large"),
        (1 << 63, Preallocation::Off, "The requested file size is too large"),
        (9999, Preallocation::Metadata, "Unsupported preallocation mode: metadata"),
        (512, Preallocation::Full, "Preallocation can only be used for growing images"),
    ] {
        assert_eq!(resize(size, how), reason);
    }
    assert_eq!(bytes(&dir).len(), DATA_AT + 4096);
    let error = dir.create("x", "luks", u64::MAX - 5, &options("iter-time=0")).unwrap_err();
    assert_eq!(error.to_string(), "The requested file size is too large");
}

#[test]
fn images_opened_for_reading_offer_no_more() {
    let image = open(&put(volume()), false).unwrap();
    assert!(image.writer().is_none() && image.resizer().is_none() && image.amender().is_none());
    assert!(image.checker().is_none() && image.snapshots().is_none());
}

/// Any header is either refused or gives an image that reads or fails, quickly.
#[test]
fn any_byte_of_the_header_may_be_wrong() {
    let whole = volume();
    let mut rng = Rng::new(4);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..1200_usize {
        let mut bytes = whole.clone();
        let at = round % 592;
        let bit = 1 << (rng.below(8));
        bytes[at] ^= bit;
        // Iterations cost what they say: that they are limited is tested where they are read.
        if (164..168).contains(&at) || (212..216).contains(&at) {
            continue;
        }
        match open(&put(bytes), false) {
            Ok(image) => {
                opened += 1;
                let _ = image.read_at(&mut [0; 600], 100);
                let _ = image.info();
            }
            Err(_) => refused += 1,
        }
    }
    assert!(opened > 50 && refused > 50, "{opened} {refused}");
}

#[test]
fn a_probe_knows_both_versions() {
    let probe = |head: &[u8]| {
        rimg_luks::DRIVER.probe(&ProbeWindow { head, name: None, len_bytes: 1 << 20 })
    };
    assert_eq!(probe(b"LUKS\xba\xbe\0\x01"), Match::Sure);
    assert_eq!(probe(b"LUKS\xba\xbe\0\x02"), Match::Sure);
    assert_eq!(probe(b"LUKS\xba\xbe\0\x03"), Match::No);
    assert_eq!(probe(b"LUKS"), Match::No);
}

#[test]
fn a_header_apart_opens_the_data() {
    let dir = MemoryDir::new(DRIVERS);
    let options_of_header = options("detached-header=on,iter-time=0");
    dir.create("header", "luks", 1 << 20, &options_of_header).unwrap();
    assert_eq!(dir.file("header").len_bytes().unwrap(), u64::try_from(DATA_AT).unwrap());
    dir.put("disk", Arc::new(MemoryStorage::with_len(100_000)));
    let apart = options("header.driver=file,header.filename=header");
    let image = dir.open_with("disk", "luks", true, &apart).unwrap();
    assert_eq!(image.size_bytes(), 100_352);
    image.writer().unwrap().write_at(&[7; 5000], 1000).unwrap();
    let change = RawOptions::new().with("state", "active").with("new-secret", "t");
    let change = change.with("iter-time", "0").with_secret("t", "other".into());
    image.amender().unwrap().amend(&change, false, &mut |_, _| {}).unwrap();
    image.close().unwrap();
    let mut read = [0; 5000];
    let other = options("key-secret=t,header.filename=header");
    dir.open_with("disk", "luks", false, &other).unwrap().read_at(&mut read, 1000).unwrap();
    assert_eq!(read, [7; 5000]);
    let error = dir.open_with("header", "luks", false, &options("")).unwrap_err();
    assert_eq!(error.to_string(), "LUKS payload is overlapping with the header");
}
