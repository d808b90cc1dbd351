//! Every VHD image of `testdata/` reads as its manifest says; and images that no program at hand
//! makes: differencing ones, and such with blocks that are there in part.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::DRIVERS;
use rimg_core::{ExtentKind, Preallocation, RawOptions, Storage as _, StorageWrite as _, Uuid};
use rimg_testkit::{MemoryDir, MemoryStorage, golden};
use std::error::Error as _;
use std::sync::Arc;

#[test]
fn images_read_as_the_manifest_says() {
    golden::read_all(&rimg_vhd::DRIVER);
}

const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

/// A disk of four blocks of 4 KiB, all of them 1s.
fn dir_with_base() -> MemoryDir {
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new()
        .with("block_size", "4096")
        .with("force_size", "on")
        .with("uuid", UUID)
        .with("timestamp", "946684807");
    dir.create("base.vhd", "vpc", 16384, &options).unwrap();
    let image = dir.open("base.vhd", "vpc", true).unwrap();
    image.writer().unwrap().write_at(&[1; 16384], 0).unwrap();
    image.close().unwrap();
    dir
}

/// The complement of the sum of all bytes, which do not have it yet.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    (!sum).to_be_bytes()
}

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(to_bytes).collect()
}

/// An image over `base.vhd`, by the specification: blocks of 4 KiB, the first of which has its
/// sectors 1 and 2 (as 2s), the second none, the others being absent.
fn child(relative: &str, absolute: &str, parent_time: u32) -> Arc<MemoryStorage> {
    let mut footer = vec![0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[8..12].copy_from_slice(&2_u32.to_be_bytes());
    footer[12..16].copy_from_slice(&0x0001_0000_u32.to_be_bytes());
    footer[16..24].copy_from_slice(&512_u64.to_be_bytes());
    footer[28..32].copy_from_slice(b"win ");
    footer[40..48].copy_from_slice(&16384_u64.to_be_bytes());
    footer[48..56].copy_from_slice(&16384_u64.to_be_bytes());
    footer[60..64].copy_from_slice(&4_u32.to_be_bytes());
    footer[68..84].copy_from_slice(b"child child chil");
    let sum = checksum(&footer);
    footer[64..68].copy_from_slice(&sum);

    let mut header = vec![0; 1024];
    header[..8].copy_from_slice(b"cxsparse");
    header[8..16].fill(0xff);
    header[16..24].copy_from_slice(&1536_u64.to_be_bytes());
    header[24..28].copy_from_slice(&0x0001_0000_u32.to_be_bytes());
    header[28..32].copy_from_slice(&4_u32.to_be_bytes());
    header[32..36].copy_from_slice(&4096_u32.to_be_bytes());
    header[40..56].copy_from_slice(&Uuid::parse(UUID).unwrap().0);
    header[56..60].copy_from_slice(&parent_time.to_be_bytes());
    let name = utf16("elsewhere.vhd", u16::to_be_bytes);
    header[64..64 + name.len()].copy_from_slice(&name);
    let names = [utf16(absolute, u16::to_le_bytes), utf16(relative, u16::to_le_bytes)];
    for (nth, (code, name)) in [b"W2ku", b"W2ru"].into_iter().zip(&names).enumerate() {
        let entry = &mut header[576 + 24 * nth..][..24];
        entry[..4].copy_from_slice(code);
        entry[4..8].copy_from_slice(&512_u32.to_be_bytes());
        entry[8..12].copy_from_slice(&u32::try_from(name.len()).unwrap().to_be_bytes());
        entry[16..24].copy_from_slice(&(2048 + 512 * u64::try_from(nth).unwrap()).to_be_bytes());
    }
    let sum = checksum(&header);
    header[36..40].copy_from_slice(&sum);

    let mut table = vec![0xff; 512];
    table[..4].copy_from_slice(&6_u32.to_be_bytes());
    table[4..8].copy_from_slice(&15_u32.to_be_bytes());
    let mut bytes = footer.clone();
    bytes.extend([header, table].concat());
    for name in names {
        let end = bytes.len() + 512;
        bytes.extend(&name);
        bytes.resize(end, 0);
    }
    for (bitmap, data) in [(0b0110_0000, 2), (0, 3)] {
        bytes.push(bitmap);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend([data; 4096]);
    }
    bytes.extend(footer);
    Arc::new(MemoryStorage::from(bytes))
}

fn expected() -> Vec<u8> {
    let mut disk = vec![1; 16384];
    disk[512..1536].fill(2);
    disk
}

#[test]
fn a_differencing_image_shows_its_parent_where_it_has_no_sectors() {
    for (relative, absolute) in
        [(".\\base.vhd", "C:\\x\\base.vhd"), ("base.vhd", ""), ("gone.vhd", "base.vhd")]
    {
        let dir = dir_with_base();
        dir.put("child.vhd", child(relative, absolute, 7));
        let image = dir.open("child.vhd", "vpc", false).unwrap();
        let mut seen = vec![9; 16384];
        image.read_at(&mut seen, 0).unwrap();
        assert!(seen == expected());
        assert_eq!(
            image.extent_at(0..16384).unwrap().kind,
            ExtentKind::Backing { allocation: None }
        );
        let own = image.extent_at(512..16384).unwrap();
        assert!(matches!(own.kind, ExtentKind::Data(at) if at.host.0 == 7 * 512 + 512));
        assert_eq!(own.len_bytes, 1024);
        assert_eq!(image.info().unwrap().backing_file.as_deref(), Some("base.vhd"));
    }
}

#[test]
fn a_footer_that_is_a_byte_short_is_read_and_made_whole() {
    let dir = MemoryDir::new(DRIVERS);
    let options = RawOptions::new().with("subformat", "fixed").with("force_size", "on");
    dir.create("disk", "vpc", 4096, &options).unwrap();
    let file = dir.file("disk");
    file.writer().unwrap().set_len_bytes(4096 + 511).unwrap();
    let image = dir.open("disk", "vpc", true).unwrap();
    image.writer().unwrap().write_at(&[5; 4096], 0).unwrap();
    image.resizer().unwrap().resize(4096, Preallocation::Off).unwrap();
    image.close().unwrap();
    assert_eq!(file.len_bytes().unwrap(), 4096 + 512);
    let image = dir.open("disk", "vpc", false).unwrap();
    let mut seen = [0; 4096];
    image.read_at(&mut seen, 0).unwrap();
    assert_eq!(seen, [5; 4096]);
}

#[test]
fn an_image_is_made_over_another_by_its_uuid_and_time() {
    let dir = dir_with_base();
    let options = RawOptions::new().with("backing_file", "base.vhd").with("backing_fmt", "vpc");
    dir.create("over.vhd", "vpc", 16384, &options).unwrap();
    let mut header = [0; 1024];
    let file = dir.file("over.vhd");
    file.read_exact_at(&mut header, 512).unwrap();
    assert_eq!(header[40..56], Uuid::parse(UUID).unwrap().0);
    assert_eq!(header[56..60], 7_u32.to_be_bytes());
    assert_eq!(header[64..82], utf16("base.vhd\0", u16::to_be_bytes));
    assert_eq!(header[576..588], *b"W2ru\0\0\x02\0\0\0\0\x14");
    let mut name = [0; 20];
    file.read_exact_at(&mut name, 2048).unwrap();
    assert_eq!(name[..], utf16(".\\base.vhd", u16::to_le_bytes));
    let image = dir.open("over.vhd", "vpc", false).unwrap();
    let mut seen = vec![9; 16384];
    image.read_at(&mut seen, 0).unwrap();
    assert!(seen == [1; 16384]);
}

#[test]
fn writes_hide_the_parent_and_nothing_else() {
    let dir = dir_with_base();
    dir.put("child.vhd", child("base.vhd", "", 7));
    let mut disk = expected();
    let image = dir.open("child.vhd", "vpc", true).unwrap();
    let writer = image.writer().unwrap();
    // Into sectors that are there, into such that are not, into absent blocks.
    for (at, len, byte) in [(600, 100, 4), (2000, 700, 5), (9000, 6000, 6)] {
        writer.write_at(&vec![byte; len], at).unwrap();
        let start = usize::try_from(at).unwrap();
        disk[start..start + len].fill(byte);
    }
    writer.write_zeroes_at(4096..8192).unwrap();
    disk[4096..8192].fill(0);
    let mut seen = vec![9; 16384];
    image.read_at(&mut seen, 0).unwrap();
    assert!(seen == disk);
    image.close().unwrap();
    let image = dir.open("child.vhd", "vpc", false).unwrap();
    image.read_at(&mut seen, 0).unwrap();
    assert!(seen == disk);
    let base = dir.open("base.vhd", "vpc", false).unwrap();
    base.read_at(&mut seen, 0).unwrap();
    assert!(seen == [1; 16384]);
}

#[test]
fn a_dynamic_image_reads_zeroes_where_it_has_no_sectors() {
    let dir = MemoryDir::new(DRIVERS);
    let file = child("", "", 0);
    // Of the dynamic type, with its checksum: one less.
    for start in [0, file.len_bytes().unwrap() - 512] {
        file.write_all_at(&[3], start + 63).unwrap();
        let mut sum = [0; 1];
        file.read_exact_at(&mut sum, start + 67).unwrap();
        file.write_all_at(&[sum[0] + 1], start + 67).unwrap();
    }
    dir.put("disk", file);
    let image = dir.open("disk", "vpc", true).unwrap();
    let mut disk = vec![0; 16384];
    disk[512..1536].fill(2);
    let mut seen = vec![9; 16384];
    image.read_at(&mut seen, 0).unwrap();
    assert!(seen == disk);
    image.writer().unwrap().write_at(&[8; 10], 5000).unwrap();
    disk[5000..5010].fill(8);
    image.read_at(&mut seen, 0).unwrap();
    assert!(seen == disk);
    image.close().unwrap();
    let image = dir.open("disk", "vpc", false).unwrap();
    image.read_at(&mut seen, 0).unwrap();
    assert!(seen == disk);
}

#[test]
fn another_parent_is_refused_and_so_is_a_missing_one() {
    let dir = dir_with_base();
    dir.put("child.vhd", child("base.vhd", "", 8));
    let error = dir.open("child.vhd", "vpc", false).unwrap_err();
    let reason = error.source().and_then(|error| error.source()).unwrap().to_string();
    assert_eq!(reason, "parent's time stamp is 7, the image was made over one of 8");
    let options = RawOptions::new().with("any_parent_time", "on");
    assert!(dir.open_with("child.vhd", "vpc", false, &options).is_ok());

    let other = RawOptions::new().with("block_size", "4096").with("timestamp", "946684807");
    dir.create("other.vhd", "vpc", 16384, &other).unwrap();
    dir.put("child.vhd", child("other.vhd", "", 7));
    let error = dir.open("child.vhd", "vpc", false).unwrap_err();
    assert_eq!(error.to_string(), "could not open backing file 'other.vhd'");
    let reason = error.source().and_then(|error| error.source()).unwrap().to_string();
    assert!(reason.ends_with(&format!("the image was made over {UUID}")), "{reason}");

    dir.put("child.vhd", child("gone.vhd", "", 7));
    let error = dir.open("child.vhd", "vpc", false).unwrap_err();
    assert!(error.as_io().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound));
}
