//! Images of every kind, made by the testkit's encoders, and what they hold.
#![allow(dead_code, reason = "some tests use all of it, so that nothing could be expected")]

use rimg_core::FormatDriver;
use rimg_testkit::Rng;
use rimg_testkit::legacy::{self, DmgChunk, DmgTables};
use std::io::Write as _;

pub(crate) static DRIVERS: &[&dyn FormatDriver] =
    &[&rimg_legacy::BOCHS, &rimg_legacy::CLOOP, &rimg_legacy::DMG];

pub(crate) const RAW: u32 = 1;
pub(crate) const ADC: u32 = 0x8000_0004;
pub(crate) const ZLIB: u32 = 0x8000_0005;
pub(crate) const BZIP2: u32 = 0x8000_0006;
pub(crate) const LZFSE: u32 = 0x8000_0007;
pub(crate) const LZMA: u32 = 0x8000_0008;

pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) format: &'static str,
    pub(crate) image: Vec<u8>,
    pub(crate) disk: Vec<u8>,
    /// Whether qemu-img reads it; Debian's has neither ADC, nor LZMA, nor perhaps others.
    pub(crate) qemu: bool,
}

/// Texts that shrink, and bytes that do not, and zeroes.
pub(crate) fn disk(len: usize) -> Vec<u8> {
    let mut rng = Rng::new(5);
    let mut bytes = vec![0; len];
    for (index, piece) in bytes.chunks_mut(20_480).enumerate() {
        match index % 4 {
            0 => rng.fill(piece),
            1 | 2 => (0..).zip(piece).for_each(|(i, byte)| *byte = b"some words "[i / 3 % 11]),
            _ => {}
        }
    }
    bytes
}

pub(crate) fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn encode(kind: u32, plain: &[u8]) -> Vec<u8> {
    match kind {
        0 | 2 => Vec::new(),
        RAW => plain.to_vec(),
        // Runs alone, which is allowed.
        ADC => plain.chunks(128).flat_map(adc_run).collect(),
        ZLIB => zlib(plain),
        BZIP2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        LZFSE => {
            let mut out = Vec::new();
            lzfse_rust::encode_bytes(plain, &mut out).unwrap();
            out
        }
        LZMA => {
            let options = lzma_rust2::XzOptions::with_preset(3);
            let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        other => panic!("{other:#x}"),
    }
}

fn adc_run(plain: &[u8]) -> Vec<u8> {
    let mut run = vec![0x7f + u8::try_from(plain.len()).unwrap()];
    run.extend(plain);
    run
}

/// A disk in two partitions, its chunks of these types in turn.
pub(crate) fn dmg(kinds: &[u32], place: DmgTables) -> (Vec<u8>, Vec<u8>) {
    let mut disk = disk(300 * 512);
    let mut partitions = vec![Vec::new(), Vec::new()];
    for (index, piece) in disk.chunks_mut(40 * 512).enumerate() {
        let kind = kinds[index % kinds.len()];
        if matches!(kind, 0 | 2) {
            piece.fill(0);
        }
        let sectors = u64::try_from(piece.len() / 512).unwrap();
        let chunk = DmgChunk { kind, sectors, bytes: encode(kind, piece) };
        partitions[index / 4].push(chunk);
    }
    (legacy::dmg(&partitions, place), disk)
}

pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut add = |name: String, format, (image, disk): (Vec<u8>, Vec<u8>), qemu| {
        samples.push(Sample { name, format, image, disk, qemu });
    };
    for block in [512_u32, 4096, 65_536] {
        let each = usize::try_from(block).unwrap();
        let mut disk = disk(200_000);
        disk.resize(disk.len().next_multiple_of(each), 0);
        let blocks: Vec<_> = disk.chunks(each).map(zlib).collect();
        add(format!("cloop-{block}"), "cloop", (legacy::cloop(block, &blocks), disk), true);
    }
    for (version, extent) in [(0x1_0000, 4096), (0x2_0000, 32_768), (0x2_0000, 65_536)] {
        let disk = disk(400 * 512);
        let image = legacy::bochs(version, extent, &disk);
        add(format!("bochs-{version:x}-{extent}"), "bochs", (image, disk), true);
    }
    for (name, kinds, qemu) in [
        ("raw", &[RAW][..], true),
        ("zlib", &[ZLIB], true),
        ("zlib-zero-raw", &[ZLIB, 0, RAW, 2], true),
        ("bzip2", &[BZIP2], false),
        ("lzfse", &[LZFSE], false),
        ("lzma", &[LZMA], false),
        ("adc", &[ADC], false),
        ("all", &[ADC, ZLIB, BZIP2, LZFSE, LZMA, RAW, 0], false),
    ] {
        for place in [DmgTables::Plist, DmgTables::ResourceFork] {
            add(format!("dmg-{name}-{place:?}"), "dmg", dmg(kinds, place), qemu);
        }
    }
    samples
}
