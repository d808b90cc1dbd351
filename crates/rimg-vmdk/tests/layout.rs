//! The bytes of images: streams read from front to back, extents that were built by hand, and what
//! a change leaves alone.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_codec::{Codec, Decoder};
use rimg_core::{BlockImage, Error, ExtentKind, RawOptions};
use rimg_testkit::vmdk::{Grain, cowd, descriptor, sesparse};
use rimg_testkit::{MemoryDir, MemoryStorage, Rng};
use std::collections::BTreeMap;
use std::sync::Arc;

const GRAIN: usize = 65_536;

fn dir() -> MemoryDir {
    MemoryDir::new(DRIVERS)
}

fn put(dir: &MemoryDir, name: &str, bytes: Vec<u8>) {
    dir.put(name, Arc::new(MemoryStorage::from(bytes)));
}

fn bytes_of(dir: &MemoryDir, name: &str) -> Vec<u8> {
    let file = dir.file(name);
    let mut bytes = vec![0; usize::try_from(file.len_bytes().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn noise(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A stream as somebody sees it who reads it once, from front to back.
struct Walk {
    disk: Vec<u8>,
    /// Guest sectors of grains, as they come.
    sectors: Vec<u64>,
    /// Where tables lie.
    tables: Vec<u64>,
}

fn walk(file: &[u8]) -> Walk {
    let header = &file[..512];
    assert_eq!(&header[..4], b"KDMV");
    assert_eq!((number(header, 4, 4), number(header, 8, 4)), (3, 0x3_0001));
    assert_eq!((number(header, 48, 8), number(header, 56, 8)), (0, u64::MAX));
    assert_eq!((number(header, 77, 2), &header[72..77]), (1, &b"\0\n \r\n"[..]));
    let size = usize::try_from(number(header, 12, 8)).unwrap() * 512;
    let mut walk =
        Walk { disk: vec![0; size.next_multiple_of(GRAIN)], sectors: vec![], tables: vec![] };
    let mut at = usize::try_from(number(header, 64, 8)).unwrap() * 512;
    let mut directory = None;
    loop {
        let (value, len) = (number(file, at, 8), usize::try_from(number(file, at + 8, 4)).unwrap());
        if len > 0 {
            let start = usize::try_from(value).unwrap() * 512;
            let grain = &mut walk.disk[start..start + GRAIN];
            Decoder::new().decode(Codec::Zlib, &file[at + 12..at + 12 + len], grain).unwrap();
            walk.sectors.push(value);
            at += (12 + len).next_multiple_of(512);
            continue;
        }
        let kind = number(file, at + 12, 4);
        assert!(file[at + 16..at + 512].iter().all(|byte| *byte == 0) || kind == 1);
        let next = at + 512 + usize::try_from(value).unwrap() * 512;
        match kind {
            0 => {
                assert_eq!(next, file.len(), "the stream ends before the file");
                break;
            }
            1 => walk.tables.push(number_of_sector(at + 512)),
            2 => directory = Some(at + 512),
            3 => {
                let footer = &file[at + 512..at + 1024];
                let directory = number_of_sector(directory.unwrap());
                assert_eq!(number(footer, 56, 8), directory);
                assert_eq!((&footer[..56], &footer[64..]), (&header[..56], &header[64..]));
            }
            other => panic!("marker {other} at {at:#x}"),
        }
        at = next;
    }
    walk.disk.truncate(size);
    walk
}

fn number_of_sector(at: usize) -> u64 {
    u64::try_from(at / 512).unwrap()
}

#[test]
fn a_stream_is_read_from_front_to_back() {
    let dir = dir();
    let options = RawOptions::new().with("subformat", "streamOptimized");
    dir.create("disk", "vmdk", (80 << 20) + 512, &options).unwrap();
    // Who promises nothing leaves it as it is; who makes a stream without grains gets one.
    let created = bytes_of(&dir, "disk");
    dir.open("disk", "vmdk", true).unwrap().close().unwrap();
    assert!(bytes_of(&dir, "disk") == created);
    put(&dir, "empty", created);
    let image = dir.open("empty", "vmdk", true).unwrap();
    image.writer().unwrap().relax_until_flush();
    image.close().unwrap();
    let empty = walk(&bytes_of(&dir, "empty"));
    assert_eq!((empty.disk, empty.tables), (vec![0; (80 << 20) + 512], vec![]));

    let image = dir.open("disk", "vmdk", true).unwrap();
    let writer = image.writer().unwrap();
    writer.relax_until_flush();
    let mut disk = vec![0; (80 << 20) + 512];
    let mut rng = Rng::new(1);
    for grain in [0, 1, 2, 511, 512, 700, 1279, 1280] {
        let at = grain * GRAIN;
        let end = (at + GRAIN).min(disk.len());
        let bytes = if grain == 1 { vec![7; end - at] } else { noise(&mut rng, end - at) };
        disk[at..end].copy_from_slice(&bytes);
        writer.write_at(&bytes, u64::try_from(at).unwrap()).unwrap();
    }
    image.close().unwrap();
    let file = bytes_of(&dir, "disk");
    let seen = walk(&file);
    assert!(seen.disk == disk);
    let sectors: Vec<u64> = [0, 1, 2, 511, 512, 700, 1279, 1280].map(|grain| grain * 128).into();
    assert_eq!(seen.sectors, sectors);
    assert_eq!(seen.tables.len(), 3, "each table comes once");
    assert_eq!(number(&file, 64, 8), 128);

    // What is added later is in the way of nobody who reads like this.
    for round in 0..3 {
        let image = dir.open("disk", "vmdk", true).unwrap();
        let writer = image.writer().unwrap();
        writer.write_at(&[round; 100_000], 30_000).unwrap();
        disk[30_000..130_000].fill(round);
        writer.flush().unwrap();
        writer.write_zeroes_at(2 << 16..3 << 16).unwrap();
        disk[2 << 16..3 << 16].fill(0);
        image.close().unwrap();
        assert!(walk(&bytes_of(&dir, "disk")).disk == disk, "round {round}");
    }
}

#[test]
fn the_same_makes_the_same() {
    for subformat in ["monolithicSparse", "streamOptimized"] {
        let files: Vec<Vec<u8>> = (0..2)
            .map(|_| {
                let dir = dir();
                let options = RawOptions::new().with("subformat", subformat);
                dir.create("disk", "vmdk", 1 << 20, &options).unwrap();
                let image = dir.open("disk", "vmdk", true).unwrap();
                image.writer().unwrap().write_at(&[1; 100], 5000).unwrap();
                image.close().unwrap();
                bytes_of(&dir, "disk")
            })
            .collect();
        assert!(files[0] == files[1], "{subformat}");
    }
    let dir = dir();
    let options = RawOptions::new().with("cid", "0badcafe");
    dir.create("disk", "vmdk", 1 << 20, &options).unwrap();
    assert_eq!(cid(&dir), 0x0bad_cafe);
}

fn cid(dir: &MemoryDir) -> u64 {
    let text = String::from_utf8_lossy(&bytes_of(dir, "disk")).into_owned();
    let (_, rest) = text.split_once("\nCID=").unwrap();
    u64::from_str_radix(&rest[..8], 16).unwrap()
}

#[test]
fn the_content_id_changes_with_the_first_write_and_nothing_else_does() {
    let dir = dir();
    dir.create("disk", "vmdk", 1 << 20, RawOptions::NONE).unwrap();
    let before = bytes_of(&dir, "disk");
    let first = cid(&dir);
    dir.open("disk", "vmdk", true).unwrap().close().unwrap();
    assert!(bytes_of(&dir, "disk") == before, "opening alone changes nothing");
    let image = dir.open("disk", "vmdk", true).unwrap();
    image.writer().unwrap().write_at(&[1], 0).unwrap();
    let second = cid(&dir);
    image.writer().unwrap().write_at(&[2], 0).unwrap();
    image.close().unwrap();
    assert!(first != second && cid(&dir) == second);
    let after = bytes_of(&dir, "disk");
    let cid_at = before.windows(5).position(|bytes| bytes == b"\nCID=").unwrap() + 5;
    let differs: Vec<usize> = (512..21 * 512).filter(|at| before[*at] != after[*at]).collect();
    assert!(differs.iter().all(|at| (cid_at..cid_at + 8).contains(at)), "{differs:?}");
}

#[test]
fn a_parent_that_changed_is_not_read() {
    let dir = dir();
    dir.create("base", "vmdk", 1 << 20, RawOptions::NONE).unwrap();
    let options = RawOptions::new().with("backing_file", "base").with("backing_fmt", "vmdk");
    dir.create("disk", "vmdk", 1 << 20, &options).unwrap();
    let mut buf = [0; 512];
    dir.open("disk", "vmdk", false).unwrap().read_at(&mut buf, 0).unwrap();
    let base = dir.open("base", "vmdk", true).unwrap();
    base.writer().unwrap().write_at(&[1; 512], 0).unwrap();
    base.close().unwrap();
    let image = dir.open("disk", "vmdk", true).unwrap();
    let error = image.read_at(&mut buf, 0).unwrap_err();
    let Error::Corrupt { at, .. } = &error else { panic!("{error}") };
    assert_eq!((at.structure, at.field), ("descriptor", "parentCID"));
    // Nor by those who go down the chain by themselves.
    let below = image.backing().unwrap();
    assert!(below.file(0).is_none());
    assert!(matches!(below.extent_at(0..1 << 20).unwrap().kind, ExtentKind::Data(_)));
    assert!(matches!(below.read_at(&mut buf, 0), Err(Error::Corrupt { .. })));
    // Part of a grain needs the rest from the parent; a whole grain does not.
    let writer = image.writer().unwrap();
    assert!(matches!(writer.write_at(&[1; 512], 0), Err(Error::Corrupt { .. })));
    writer.write_at(&[1; GRAIN], 0).unwrap();
    image.read_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [1; 512]);
}

#[test]
fn an_emptied_overlay_knows_its_parent_as_it_is() {
    let dir = dir();
    dir.create("base", "vmdk", 1 << 20, RawOptions::NONE).unwrap();
    let options = RawOptions::new().with("backing_file", "base").with("backing_fmt", "vmdk");
    dir.create("disk", "vmdk", 1 << 20, &options).unwrap();
    let image = dir.open("disk", "vmdk", true).unwrap();
    image.writer().unwrap().write_at(&[1; 512], 0).unwrap();
    // As a commit does; the parent that the overlay has open is another object.
    let base = dir.open("base", "vmdk", true).unwrap();
    base.writer().unwrap().write_at(&[2; 512], 0).unwrap();
    base.close().unwrap();
    image.close().unwrap();
    let image = dir.open("disk", "vmdk", true).unwrap();
    image.overlay().unwrap().make_empty().unwrap();
    image.close().unwrap();
    let image = dir.open("disk", "vmdk", false).unwrap();
    let mut buf = [0; 512];
    image.read_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [2; 512]);
}

#[test]
fn tables_behind_the_end_are_read_from_their_copies() {
    let dir = dir();
    dir.create("disk", "vmdk", 64 << 20, RawOptions::NONE).unwrap();
    let image = dir.open("disk", "vmdk", true).unwrap();
    image.writer().unwrap().write_at(&[5; 1000], 40 << 20).unwrap();
    image.close().unwrap();
    let file = bytes_of(&dir, "disk");
    let gd = usize::try_from(number(&file, 56, 8)).unwrap() * 512;
    let gt = usize::try_from(number(&file, gd + 4, 4)).unwrap() * 512;
    let damages: [(usize, u64); 4] = [
        // The header's place of the directory, the directory's of a table, the table's of a grain.
        (56, 0x7000_0000),
        (gd + 4, 0x7000_0000),
        (gt + (40 * 16 - 512) * 4, 0x7000_0000),
        (gd + 4, 0),
    ];
    for (at, value) in damages {
        let mut damaged = file.clone();
        damaged[at..at + 4].copy_from_slice(&value.to_le_bytes()[..4]);
        put(&dir, "disk", damaged);
        let image = dir.open("disk", "vmdk", false).unwrap();
        let mut buf = [0; 1000];
        image.read_at(&mut buf, 40 << 20).unwrap();
        assert_eq!(buf, [5; 1000], "{at:#x}");
    }
}

#[test]
fn extents_of_esxi_are_read() {
    let mut rng = Rng::new(3);
    let dir = dir();
    // Three tables of 4096 grains of a sector each, the second without any.
    let mut disk = vec![0; 10_000 * 512];
    let mut grains = BTreeMap::new();
    for grain in [0_u32, 1, 3, 4095, 8192, 9999] {
        let bytes = noise(&mut rng, 512);
        let at = usize::try_from(grain).unwrap() * 512;
        disk[at..at + 512].copy_from_slice(&bytes);
        grains.insert(grain, Grain::Data(bytes));
    }
    put(&dir, "x-delta.vmdk", cowd(10_000, 1, &grains));
    put(&dir, "disk", descriptor("vmfsSparse", "RW 10000 VMFSSPARSE \"x-delta.vmdk\""));
    assert!(read(&dir, "disk") == disk);
    assert!(read(&dir, "x-delta.vmdk") == disk, "also without its descriptor");
    assert!(matches!(dir.open("disk", "vmdk", true), Err(Error::ReadOnly(_))));

    let mut disk = vec![0; 9000 * 4096];
    let mut grains = BTreeMap::new();
    for grain in [0_u64, 2, 3, 4095, 4096, 8999] {
        let bytes = noise(&mut rng, 4096);
        let at = usize::try_from(grain).unwrap() * 4096;
        disk[at..at + 4096].copy_from_slice(&bytes);
        grains.insert(grain, Grain::Data(bytes));
    }
    grains.extend([(5, Grain::Zero), (6, Grain::Unmapped)]);
    put(&dir, "x-sesparse.vmdk", sesparse(72_000, &grains));
    put(&dir, "disk", descriptor("seSparse", "RW 72000 SESPARSE \"x-sesparse.vmdk\""));
    assert!(read(&dir, "disk") == disk);
    let image = dir.open("disk", "vmdk", false).unwrap();
    let kind = |at: u64| image.extent_at(at..at + 4096).unwrap().kind;
    assert_eq!(kind(5 * 4096), ExtentKind::Zero { allocation: None });
    assert_eq!(kind(4096), ExtentKind::Backing { allocation: None });

    // A journal that was not replayed.
    let mut dirty = sesparse(72_000, &grains);
    dirty[512 + 24] = 1;
    put(&dir, "x-sesparse.vmdk", dirty);
    let error = dir.open("disk", "vmdk", false).unwrap_err();
    let Error::Corrupt { at, .. } = &error else { panic!("{error}") };
    assert_eq!((at.structure, at.field), ("seSparse volatile header", "replay_journal"));
}

#[test]
fn a_disk_is_its_extents_in_a_row() {
    let dir = dir();
    let extents = "RW 3 FLAT \"a\" 1\nRW 5 ZERO\nRW 2 VMFS \"b\"\nRDONLY 1 FLAT \"a\" 0";
    put(&dir, "disk", descriptor("custom", extents));
    put(&dir, "a", (0..4).flat_map(|sector| [sector + 1; 512]).collect());
    put(&dir, "b", vec![9; 1024]);
    let sectors: Vec<u8> = read(&dir, "disk").chunks(512).map(|sector| sector[0]).collect();
    assert_eq!(sectors, [2, 3, 4, 0, 0, 0, 0, 0, 9, 9, 1]);
    let image = dir.open("disk", "vmdk", true).unwrap();
    let writer = image.writer().unwrap();
    writer.write_at(&[7; 1024], 512).unwrap();
    assert!(matches!(writer.write_at(&[7; 512], 10 * 512), Err(Error::ReadOnly(_))));
    assert!(matches!(writer.write_at(&[7; 512], 3 * 512), Err(Error::ReadOnly(_))));
    writer.write_at(&[0; 512], 3 * 512).unwrap();
    image.close().unwrap();
    assert_eq!(bytes_of(&dir, "a")[2 * 512..], [7; 1024]);
}

#[test]
fn what_an_image_names_has_no_folder() {
    let dir = dir();
    for name in ["/etc/passwd", "../x", "a/b", "nbd:x"] {
        put(&dir, "disk", descriptor("monolithicFlat", &format!("RW 1 FLAT \"{name}\" 0")));
        let error = dir.open("disk", "vmdk", false).unwrap_err();
        let expected = format!("extent '{name}' is not opened: it is no plain name of a file");
        assert_eq!(error.to_string(), expected);
    }
    put(&dir, "disk", descriptor("fullDevice", "RW 1 FLAT \"sda\" 0"));
    let error = dir.open("disk", "vmdk", false).unwrap_err();
    assert_eq!(error.to_string(), "unsupported vmdk feature: image type 'fullDevice'");
}

fn read(dir: &MemoryDir, name: &str) -> Vec<u8> {
    let image: Box<dyn BlockImage> = dir.open(name, "vmdk", false).unwrap();
    common::read_all(image.as_ref())
}
