//! Damaged images: each way to be wrong is named, none panics, hangs, or takes much memory.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{ADC, BZIP2, DRIVERS, LZFSE, LZMA, RAW, Sample, ZLIB, encode, samples, zlib};
use rimg_core::{BlockImage, Error, RawOptions, Result, StorageWrite as _};
use rimg_testkit::drill::{MEMORY_BYTES, survive};
use rimg_testkit::legacy::{self, DmgChunk, DmgTables};
use rimg_testkit::{MemoryDir, MemoryStorage, Rng, bounds};
use std::ops::Range;
use std::sync::Arc;

fn open(format: &str, image: Vec<u8>) -> Result<Box<dyn BlockImage>> {
    let dir = MemoryDir::new(DRIVERS);
    dir.put("disk", Arc::new(MemoryStorage::from(image)));
    dir.open("disk", format, false)
}

fn chain(error: &Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

/// What is said of `image` with these bytes at an offset.
fn patched(format: &str, image: &[u8], at: usize, bytes: &[u8]) -> String {
    let mut image = image.to_vec();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    chain(&open(format, image).unwrap_err())
}

#[test]
fn wrong_fields_of_bochs_are_named() {
    let image = legacy::bochs(0x2_0000, 4096, &[7; 40_960]);
    let le = |n: u32| n.to_le_bytes();
    for (at, bytes, field, what) in [
        (72, &le(1 << 21)[..], "catalog", "2097152 is not between 0 and 1048576"),
        (72, &le(9), "catalog", "9 entries are too few: the disk needs 10"),
        (76, &le(0), "bitmap", "0 is not between 1 and 8388608"),
        (80, &le(0), "extent", "0 is not between 512 and 8388608"),
        (80, &le(1000), "extent", "1000 is no multiple of 512"),
        (80, &le(1 << 24), "extent", "16777216 is not between 512 and 8388608"),
        (68, &le(u32::MAX), "entries", "the file of 46632 bytes ends within it"),
        (88, &[0xff; 8], "catalog", "entries are too few"),
    ] {
        let said = patched("bochs", &image, at, bytes);
        assert!(said.contains(field) && said.contains(what), "{at}: {said}");
    }
    for (at, bytes) in [(0, &b"x"[..]), (32, b"x"), (48, b"Volatile"), (64, &[9])] {
        let said = patched("bochs", &image, at, bytes);
        assert!(said.starts_with("image is not in bochs format"), "{said}");
    }
}

#[test]
fn wrong_fields_of_cloop_are_named() {
    let image = legacy::cloop(4096, &[zlib(&[1; 4096]), zlib(&[2; 4096])]);
    let be = |n: u32| n.to_be_bytes();
    for (at, bytes, field, what) in [
        (128, &be(0)[..], "block_size", "0 is not between 512 and 67108864"),
        (128, &be(1000), "block_size", "1000 is no multiple of 512"),
        (128, &be(1 << 27), "block_size", "134217728 is not between"),
        (132, &be(u32::MAX), "bytes", "ends within it"),
        (144, &[0; 8], "offset", "offset 0x0 is before 0xa0, where the one before it is"),
        (152, &[0, 0, 0, 0, 0, 1, 0, 0], "offset", "are too many for a block of 8192"),
    ] {
        let said = patched("cloop", &image, at, bytes);
        assert!(said.contains(field) && said.contains(what), "{at}: {said}");
    }
}

fn raw(sectors: u64, len: usize) -> DmgChunk {
    DmgChunk { kind: RAW, sectors, bytes: vec![1; len] }
}

fn dmg(chunks: Vec<DmgChunk>) -> Vec<u8> {
    legacy::dmg(&[chunks], DmgTables::Plist)
}

#[test]
fn chunks_of_dmg_that_cannot_be_are_refused() {
    let chunk = |kind, sectors| DmgChunk { kind, sectors, bytes: vec![1; 10] };
    for (chunks, what) in [
        (vec![raw(3, 1024)], "1024 bytes are not the 3 sectors of the chunk"),
        (vec![chunk(3, 1)], "chunk type 0x3 is unknown"),
        (vec![chunk(ZLIB, 1 << 18)], "134217728 is not between 0 and 67108864"),
        (vec![chunk(0, 1 << 55)], "is beyond what a file can be"),
        (vec![], "no partition table"),
    ] {
        let image = match chunks.is_empty() {
            true => legacy::dmg(&[], DmgTables::Plist),
            false => dmg(chunks),
        };
        let said = chain(&open("dmg", image).unwrap_err());
        assert!(said.contains(what), "{what}: {said}");
    }
    let image = dmg(vec![raw(2, 1024)]);
    let trailer = image.len() - 512;
    for (at, bytes, what) in [
        (trailer, &b"kolx"[..], "image is not in dmg format"),
        (trailer + 4, &[9; 4], "trailer of version"),
        (trailer + 216, &[0x7f; 8], "is beyond what a file can be"),
        (trailer + 224, &[0; 8], "no partition table"),
        (trailer + 24, &[0x7f; 8], "is beyond what a file can be"),
        (trailer + 492, &[0xff; 8], "is not between"),
    ] {
        let said = patched("dmg", &image, at, bytes);
        assert!(said.contains(what), "{at}: {said}");
    }
}

#[test]
fn what_no_chunk_holds_is_no_zeroes() {
    let mut image = dmg(vec![raw(2, 1024), raw(2, 1024)]);
    let trailer = image.len() - 512;
    image[trailer + 492..trailer + 500].copy_from_slice(&8_u64.to_be_bytes());
    let image = open("dmg", image).unwrap();
    assert_eq!(image.size_bytes(), 4096);
    image.read_at(&mut [0; 2048], 0).unwrap();
    let said = chain(&image.read_at(&mut [0; 10], 2040).unwrap_err());
    assert!(said.contains("no chunk holds the disk from offset 0x800 on"), "{said}");
    assert!(image.extent_at(2048..4096).is_err());
}

#[test]
fn streams_that_do_not_decode_are_errors_with_a_place() {
    let mut stream = zlib(&[5; 4096]);
    stream.truncate(8);
    let image = open("cloop", legacy::cloop(4096, &[stream])).unwrap();
    let error = image.read_at(&mut [0; 4096], 0).unwrap_err();
    assert_eq!(error.to_string(), "cannot decode zlib data at host offset 0x98");
    assert!(image.read_at(&mut [0; 1], 9).is_err());
}

fn look_around(sample: &Sample, image: Vec<u8>, what: &str) -> bool {
    let driver = DRIVERS.iter().find(|driver| driver.format().name == sample.format).unwrap();
    let storage = MemoryStorage::from(image);
    survive(&format!("{}: {what}", sample.name), *driver, &storage, RawOptions::NONE, false)
}

/// An image that takes little time to read: its metadata, and how often a byte of it is wrong.
struct Small {
    format: &'static str,
    image: Vec<u8>,
    metadata: Range<usize>,
    wrong_bytes: u64,
}

/// 100,000 for each format.
fn small() -> Vec<Small> {
    let mut disk = vec![0; 16 << 10];
    let pieces = [RAW, ADC, ZLIB, BZIP2, LZFSE, LZMA, RAW, 0];
    for (index, piece) in disk.chunks_mut(2048).enumerate() {
        match index {
            0..4 => (0..).zip(piece).for_each(|(i, byte)| *byte = b"some words "[i / 3 % 11]),
            4..7 => Rng::new(9).fill(piece),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for version in [0x1_0000, 0x2_0000] {
        let image = legacy::bochs(version, 4096, &disk);
        // Header, catalog of four entries, and the first bitmap.
        found.push(Small { format: "bochs", image, metadata: 0..530, wrong_bytes: 50_000 });
    }
    let blocks: Vec<_> = disk.chunks(2048).map(zlib).collect();
    let image = legacy::cloop(2048, &blocks);
    let metadata = 0..136 + 8 * (blocks.len() + 1);
    found.push(Small { format: "cloop", image, metadata, wrong_bytes: 100_000 });
    for place in [DmgTables::Plist, DmgTables::ResourceFork] {
        let chunks = disk.chunks(2048).zip(pieces).map(|(piece, kind)| {
            let sectors = u64::try_from(piece.len() / 512).unwrap();
            DmgChunk { kind, sectors, bytes: encode(kind, piece) }
        });
        let chunks: Vec<_> = chunks.collect();
        let data: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let image = legacy::dmg(&[chunks], place);
        let metadata = data..image.len();
        found.push(Small { format: "dmg", image, metadata, wrong_bytes: 50_000 });
    }
    found
}

#[test]
fn any_wrong_byte() {
    bounds::under_memory_limit(MEMORY_BYTES, || {
        for Small { format, image, metadata, wrong_bytes } in small() {
            let driver = DRIVERS.iter().find(|driver| driver.format().name == format).unwrap();
            let whole = MemoryStorage::from(image.as_slice());
            let (mut rng, mut opened) = (Rng::new(0x5eed), 0);
            for _ in 0..wrong_bytes {
                // Where data lies, too, as decoders are to be trusted no less.
                let range = if rng.one_in(8) { 0..image.len() } else { metadata.clone() };
                let below = u64::try_from(range.len()).unwrap();
                let at = range.start + usize::try_from(rng.below(below)).unwrap();
                let byte = image[at].wrapping_add(1 + u8::try_from(rng.below(255)).unwrap());
                let storage = whole.clone();
                storage.write_all_at(&[byte], u64::try_from(at).unwrap()).unwrap();
                let what = format!("{format}: {byte:#04x} at {at:#x}");
                let none = RawOptions::NONE;
                opened += u64::from(survive(&what, *driver, &storage, none, false));
            }
            assert!(opened > wrong_bytes / 100, "{format}: {opened} opened");
        }
    });
}

#[test]
fn any_byte_of_larger_images_may_be_wrong() {
    let mut rng = Rng::new(77);
    for sample in samples() {
        let mut opened = 0;
        for _ in 0..250 {
            let mut image = sample.image.clone();
            // Tables lie at the start or at the end.
            let near = rng.below(u64::try_from(image.len().min(6000)).unwrap());
            let near = usize::try_from(near).unwrap();
            let at = if rng.one_in(2) { near } else { image.len() - 1 - near };
            image[at] = u8::try_from(rng.below(256)).unwrap();
            let what = format!("{:#04x} at {at:#x}", image[at]);
            opened += usize::from(look_around(&sample, image, &what));
        }
        assert!(opened > 0, "{}", sample.name);
    }
}

#[test]
fn files_may_end_anywhere() {
    let mut rng = Rng::new(78);
    for sample in samples() {
        let len = sample.image.len();
        for round in 0..150 {
            let cut = match round {
                0..50 => round * 17,
                50..100 => len - 1 - (round - 50) * 11,
                _ => usize::try_from(rng.below(u64::try_from(len).unwrap())).unwrap(),
            };
            look_around(&sample, sample.image[..cut.min(len)].to_vec(), &format!("{cut} bytes"));
        }
    }
}
