//! Damaged headers are refused, or open nothing: no panic, and no more work than they may cost.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{Error, Limits, Secret};
use rimg_crypto::luks1::{HEADER_BYTES, Header, Iterations, NewVolume, Volume};
use rimg_crypto::{OsRandom, RandomSource};
use rimg_testkit::MemoryStorage;

fn image() -> Vec<u8> {
    let passphrase = Secret::from("abc");
    let few = Iterations { master_key: 1, key_slot: 1 };
    let made = Volume::new(&NewVolume::default(), &passphrase, few, &mut OsRandom).unwrap();
    let mut bytes = vec![0; usize::try_from(made.header.payload_offset()).unwrap()];
    bytes[..HEADER_BYTES].copy_from_slice(&made.header.encode());
    let at = usize::try_from(made.area.offset).unwrap();
    bytes[at..at + made.area.bytes.len()].copy_from_slice(&made.area.bytes);
    bytes
}

/// Little is allowed, so that a number that got large is refused rather than waited for.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.key_iterations = 2000;
    limits
}

fn open(bytes: Vec<u8>) -> rimg_core::Result<bool> {
    let header = Header::parse(&bytes, 0)?;
    let _ = header.describe();
    let opened = header.unlock(&MemoryStorage::from(bytes), 0, &Secret::from("abc"), &limits())?;
    Ok(opened.is_some_and(|opened| header.data_cipher(&opened.master_key).is_ok()))
}

#[test]
fn every_byte_of_the_header_may_be_wrong() {
    let image = image();
    assert!(open(image.clone()).unwrap());
    // What is not looked at to get the key: the identifier, and where the data starts as long as
    // it is behind the key material; salts and places of slots that are empty.
    let (mut opened, mut refused, mut shut) = (0, 0, 0);
    for at in 0..HEADER_BYTES {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = image.clone();
            bytes[at] ^= flip;
            match open(bytes) {
                Ok(true) => opened += 1,
                Ok(false) => shut += 1,
                Err(
                    Error::Corrupt { .. }
                    | Error::Unsupported { .. }
                    | Error::WrongFormat { .. }
                    | Error::Limit { .. }
                    | Error::Io { .. },
                ) => refused += 1,
                Err(other) => panic!("{at} {flip:#x}: {other}"),
            }
        }
    }
    assert!(opened > 100 && refused > 100 && shut > 100, "{opened} {refused} {shut}");
}

#[test]
fn truncated_volumes_open_nothing() {
    let image = image();
    for len in (0..600).chain([4095, 4096, 5000, 4096 + 256_000 - 1]) {
        let error = open(image[..len].to_vec()).unwrap_err();
        let expected = match len {
            0..6 => matches!(error, Error::WrongFormat { .. }),
            6..HEADER_BYTES => matches!(error, Error::Corrupt { .. }),
            _ => matches!(error, Error::Io { op: "read key material", .. }),
        };
        assert!(expected, "{len}: {error}");
    }
}

#[test]
fn random_headers_do_no_harm() {
    let mut accepted = 0;
    for _ in 0..2000 {
        let mut bytes = vec![0; 8192];
        OsRandom.fill(&mut bytes).unwrap();
        bytes[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
        accepted += u32::from(open(bytes).is_ok());
    }
    assert_eq!(accepted, 0);
}
