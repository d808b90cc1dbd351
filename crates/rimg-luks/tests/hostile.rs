//! Images and requests that must be refused, and wrong bytes in headers and key material.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, create, open, options};
use rimg_core::{
    Error, FormatDriver as _, Limits, Match, Preallocation, ProbeWindow, RawOptions, Result,
    StorageWrite as _,
};
use rimg_crypto::luks1::{HEADER_BYTES, Iterations, NewVolume, Volume};
use rimg_crypto::{CipherSpec, Hash, RandomSource};
use rimg_testkit::drill::{MEMORY_BYTES, survive_within};
use rimg_testkit::{MemoryDir, MemoryStorage, Rng, bounds};
use std::ops::Range;
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

/// Random numbers that are the same on every run.
struct Seeded(Rng);

impl RandomSource for Seeded {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        self.0.fill(buf);
        Ok(())
    }
}

/// What a header may ask for at most: a number that got large is refused rather than waited for.
fn few_iterations() -> Limits {
    let mut limits = Limits::default();
    limits.key_iterations = 2000;
    limits.key_memory_bytes = 1 << 20;
    limits
}

/// A volume whose passphrase costs as little as the format allows.
fn cheap_volume() -> (Vec<u8>, Range<usize>) {
    let cipher = CipherSpec::from_luks("aes", "cbc-plain64", 16).unwrap();
    let new = NewVolume { cipher, hash: Hash::Sha1 };
    let few = Iterations { master_key: 1, key_slot: 1 };
    let made = Volume::new(&new, &"abc".into(), few, &mut Seeded(Rng::new(6))).unwrap();
    let data_at = usize::try_from(made.header.payload_offset()).unwrap();
    let mut bytes = vec![0; data_at + 4096];
    bytes[..HEADER_BYTES].copy_from_slice(&made.header.encode());
    let at = usize::try_from(made.area.offset).unwrap();
    let material = at..at + made.area.bytes.len();
    bytes[material.clone()].copy_from_slice(&made.area.bytes);
    (bytes, material)
}

/// Every image is opened as who has no key does. To try a passphrase takes a millisecond, most of it
/// for the 4000 stripes that the format fixes: of twelve images one is opened with it, written to,
/// and may have its wrong byte in the key material, too.
#[test]
fn any_wrong_byte() {
    bounds::under_memory_limit(MEMORY_BYTES, || {
        let (bytes, material) = cheap_volume();
        let whole = MemoryStorage::from(bytes.as_slice());
        let (limits, key, mut rng) = (few_iterations(), options(""), Rng::new(0x5eed));
        let (mut with_key, mut opened) = (0, 0);
        for turn in 0..100_000 {
            let has_key = turn % 12 == 0;
            let range = if has_key && rng.one_in(4) { material.clone() } else { 0..HEADER_BYTES };
            let at = range.start + place(&mut rng, range.len());
            let byte = bytes[at].wrapping_add(1 + u8::try_from(rng.below(255)).unwrap());
            let storage = whole.clone();
            storage.write_all_at(&[byte], u64::try_from(at).unwrap()).unwrap();
            let what = format!("{byte:#04x} at {at:#x}");
            let use_it =
                |key, all| survive_within(&limits, &what, &rimg_luks::DRIVER, &storage, key, all);
            assert!(!use_it(RawOptions::NONE, true), "{what}: no key was needed");
            if has_key {
                with_key += 1;
                opened += u64::from(use_it(&key, turn % 48 == 0));
            }
        }
        assert!(opened > with_key / 10, "{opened} of {with_key} opened");
    });
}

/// The volume of rimg-crypto's tests: wrong bytes in both headers, whose checksums are made right
/// where they would hide the damage. Every one is opened with its passphrase, which costs a
/// millisecond, so there are fewer of them.
#[test]
fn any_wrong_byte_of_version_2() {
    const HEADER: usize = 16 << 10;
    bounds::under_memory_limit(MEMORY_BYTES, || {
        let bytes = include_bytes!("../../rimg-crypto/tests/luks2.img").to_vec();
        let used = |at: &usize| bytes[*at] != 0;
        let places: Vec<usize> = (0..2 * HEADER).filter(used).collect();
        let key = RawOptions::new().with("key-secret", "s").with_secret("s", "id".into());
        let (limits, mut rng, mut opened) = (few_iterations(), Rng::new(0x5eed), 0);
        for turn in 0..20_000 {
            let at = places[place(&mut rng, places.len())];
            let mut wrong = bytes.clone();
            wrong[at] = wrong[at].wrapping_add(1 + u8::try_from(rng.below(255)).unwrap());
            let what = format!("{:#04x} at {at:#x}", wrong[at]);
            // The other header would stand in for it.
            let (this, other) = (at / HEADER * HEADER, HEADER - at / HEADER * HEADER);
            wrong[other..other + HEADER].fill(0);
            let sum = this + 448..this + 480;
            wrong[sum.clone()].fill(0);
            let digest = Hash::Sha256.digest(&[&wrong[this..this + HEADER]]);
            wrong[sum].copy_from_slice(digest.expose());
            let storage = MemoryStorage::from(wrong);
            let (driver, all) = (&rimg_luks::DRIVER, turn % 4 == 0);
            opened += u64::from(survive_within(&limits, &what, driver, &storage, &key, all));
        }
        assert!(opened > 100, "{opened} opened");
    });
}

fn place(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(u64::try_from(len).unwrap())).unwrap()
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
