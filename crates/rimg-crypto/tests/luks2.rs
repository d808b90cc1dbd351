//! A volume that `luks2.py` made, and what may be wrong with it.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{Error, Limits, Secret, Storage as _};
use rimg_crypto::luks2::Header;
use rimg_testkit::MemoryStorage;

const HEADER: usize = 16_384;
const AREA: usize = 131_072;
const DATA_AT: usize = 2 * HEADER + 2 * AREA;

fn image() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/luks2.img")).unwrap()
}

/// What a passphrase makes of the volume that starts at `at`: the data, if it opens it.
fn open(bytes: Vec<u8>, at: u64, word: &str, limits: &Limits) -> Result<Option<Vec<u8>>, Error> {
    let file = MemoryStorage::from(bytes);
    let header = Header::read(&file, at, limits)?;
    let Some(key) = header.unlock(&file, at, &Secret::from(word), limits)? else { return Ok(None) };
    let segment = header.segment();
    let mut data = vec![0; 8192];
    let from = at.saturating_add(segment.offset);
    file.read_exact_at(&mut data, from).map_err(Error::io("read data", from))?;
    header.data_cipher(&key)?.decrypt(&mut data, segment.first_sector)?;
    Ok(Some(data))
}

fn opens(bytes: Vec<u8>, word: &str) -> bool {
    open(bytes, 0, word, &Limits::default()).unwrap().is_some()
}

#[test]
fn both_kinds_of_slots_open_the_volume() {
    let expected: Vec<u8> = (0..8192).map(|i| u8::try_from(i % 251).unwrap()).collect();
    for word in ["id", "pbkdf2"] {
        let data = open(image(), 0, word, &Limits::default()).unwrap();
        assert!(data.as_ref() == Some(&expected), "{word}");
        // Offsets are the volume's, wherever it starts.
        let mut shifted = vec![0; 4096];
        shifted.extend(image());
        assert!(open(shifted, 4096, word, &Limits::default()).unwrap() == Some(expected.clone()));
    }
    assert!(!opens(image(), "") && !opens(image(), "pbkdf"));
    let file = MemoryStorage::from(image());
    let header = Header::read(&file, 0, &Limits::default()).unwrap();
    assert_eq!(header.uuid(), "01234567-89ab-4cde-8f01-23456789abcd");
    assert_eq!((header.label(), header.segment().len_bytes), ("test", None));
}

#[test]
fn one_header_is_enough_and_the_newer_one_counts() {
    // The first header knows slot 0 only.
    let mut without_second = image();
    without_second[HEADER..2 * HEADER].fill(0);
    assert!(opens(without_second.clone(), "id") && !opens(without_second, "pbkdf2"));
    let mut without_first = image();
    without_first[..HEADER].fill(0);
    assert!(opens(without_first, "pbkdf2"));
    for damaged in [100, 5000, HEADER - 1] {
        let mut bytes = image();
        bytes[damaged] ^= 1;
        assert!(opens(bytes.clone(), "pbkdf2"), "{damaged}");
        bytes[HEADER + damaged] ^= 1;
        let error = open(bytes, 0, "id", &Limits::default()).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { at, .. } if at.field == "csum"), "{error}");
    }
}

/// The image with `from` replaced by `to`, of the same length, in the JSON of the second header,
/// and its checksum made right.
fn edited(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = image();
    bytes[..HEADER].fill(0);
    let place = {
        let json = &bytes[HEADER + 4096..2 * HEADER];
        json.windows(from.len()).position(|part| part == from.as_bytes()).expect(from)
    };
    let at = HEADER + 4096 + place;
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    correct_checksum(&mut bytes);
    bytes
}

fn correct_checksum(bytes: &mut [u8]) {
    let checksum = HEADER + 448..HEADER + 512;
    bytes[checksum.clone()].fill(0);
    let digest = rimg_crypto::Hash::Sha256.digest(&[&bytes[HEADER..2 * HEADER]]);
    bytes[checksum][..32].copy_from_slice(digest.expose());
}

#[test]
fn any_wrong_byte_of_the_metadata_is_survived() {
    let mut limits = Limits::default();
    limits.key_iterations = 2000;
    limits.key_memory_bytes = 1 << 20;
    let mut image = image();
    image[..HEADER].fill(0);
    let json = HEADER + 4096..2 * HEADER;
    let len = image[json.clone()].iter().position(|byte| *byte == 0).unwrap();
    let (mut opened, mut refused) = (0, 0);
    for at in json.start..json.start + len {
        let mut bytes = image.clone();
        bytes[at] ^= if at % 2 == 0 { 1 } else { 0x10 };
        correct_checksum(&mut bytes);
        match open(bytes, 0, "pbkdf2", &limits) {
            Ok(Some(_)) => opened += 1,
            Ok(None) => {}
            Err(Error::Misuse(what)) => panic!("{at}: {what}"),
            Err(_) => refused += 1,
        }
    }
    assert!(opened > 100 && refused > 300, "{opened} {refused}");
}

#[test]
fn wrong_metadata_is_named() {
    assert!(opens(edited("{", "{"), "pbkdf2"));
    for (from, to, says) in [
        ("\"stripes\": 4000", "\"stripes\": 4001", "keyslots.0.af.stripes"),
        ("\"key_size\": 32", "\"key_size\": 99", "key_size"),
        ("\"sector_size\": 4096", "\"sector_size\": 4095", "segments.0.sector_size"),
        ("\"iv_tweak\": \"64\"", "\"iv_tweak\": \"x4\"", "segments.0.iv_tweak"),
        ("\"segments\": [\"0\"]", "\"segments\": [\"1\"]", "no digest"),
        ("\"digests\"", "\"digeste\"", "digests"),
        ("\"time\": 2", "\"time\": 0", "kdf.time"),
        ("\"size\": \"131072\"", "\"size\": \"031072\"", "area.size"),
        ("\"offset\": \"32768\"", "\"offset\": \"-2768\"", "area.offset"),
        ("{", "[", "expected"),
    ] {
        let error = open(edited(from, to), 0, "id", &Limits::default()).unwrap_err();
        let Error::Corrupt { source, .. } = &error else { panic!("{to}: {error}") };
        assert!(source.to_string().contains(says), "{to}: {source}");
    }
    for (from, to, says) in [
        ("\"type\": \"crypt\"", "\"type\": \"linea\"", "segment of type linea"),
        ("\"type\": \"luks2\"", "\"type\": \"luksX\"", "key slot of type luksX"),
        ("argon2id", "argon2dd", "key derivation argon2dd"),
        ("aes-xts", "des-xts", "des-xts"),
        ("sha512", "shaXXX", "hash shaXXX"),
    ] {
        let error = open(edited(from, to), 0, "id", &Limits::default()).unwrap_err();
        assert!(
            matches!(&error, Error::Unsupported { feature, .. } if feature.contains(says)),
            "{error}"
        );
    }
}

#[test]
fn what_a_slot_costs_is_limited() {
    let mut limits = Limits::default();
    limits.key_memory_bytes = (64 << 10) - 1;
    let error = open(image(), 0, "id", &limits).unwrap_err();
    assert!(matches!(error, Error::Limit { needed: 65_536, limit: 65_535, .. }), "{error}");
    let mut limits = Limits::default();
    limits.key_iterations = 1499;
    let error = open(image(), 0, "pbkdf2", &limits).unwrap_err();
    assert!(matches!(error, Error::Limit { needed: 1500, limit: 1499, .. }), "{error}");
    let greedy = edited("\"memory\": 64", "\"memory\":9e9");
    assert!(matches!(open(greedy, 0, "id", &Limits::default()), Err(Error::Corrupt { .. })));
    let mut limits = Limits::default();
    limits.metadata_bytes = 10_000;
    assert!(matches!(open(image(), 0, "id", &limits), Err(Error::Limit { .. })));
}

#[test]
fn truncated_volumes_are_errors() {
    for len in
        [0, 100, 4096, HEADER - 1, HEADER, 2 * HEADER, 2 * HEADER + AREA, DATA_AT - AREA + 127_999]
    {
        let opened = open(image()[..len].to_vec(), 0, "pbkdf2", &Limits::default());
        let opens = matches!(opened, Ok(Some(_)));
        assert!(!opens, "{len}");
        // With the first header alone there is no such slot.
        assert!(opened.is_err() || len < 2 * HEADER, "{len}");
    }
}
