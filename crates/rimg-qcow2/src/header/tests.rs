//! Headers patched one field at a time, each expecting exactly its own error.
#![expect(clippy::arithmetic_side_effects, reason = "tests fail by panicking")]

use super::*;
use crate::error::kind_of;

fn sample() -> Header {
    Header {
        version: 3,
        geometry: Geometry {
            cluster: ClusterBits::new(16).unwrap(),
            extended_l2: false,
            zero_flag: true,
            refcount: RefcountOrder::new(4).unwrap(),
        },
        size_bytes: 1 << 30,
        crypt_method: 0,
        l1_entries: 2,
        l1_offset: 0x3_0000,
        refcount_table_offset: 0x1_0000,
        refcount_table_clusters: 1,
        snapshot_count: 0,
        snapshots_offset: 0,
        incompatible: 0,
        compatible: 0,
        autoclear: 0,
        header_bytes: 112,
        compression_type: 0,
        backing_name: Some("base.img".into()),
        extensions: vec![
            Extension::BackingFormat("raw".into()),
            Extension::Unknown { kind: 0x1234_5678, data: vec![1, 2, 3] },
            Extension::feature_names(),
        ],
    }
}

fn patched(at: usize, bytes: &[u8]) -> Result<Header> {
    let mut image = sample().encode().unwrap();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    Header::parse(&image)
}

#[track_caller]
fn expect(at: usize, bytes: &[u8], expected: &CorruptKind) {
    let error = patched(at, bytes).unwrap_err();
    assert_eq!(kind_of(&error), Some(expected), "{error}");
}

#[test]
fn what_is_written_is_read() {
    let header = sample();
    assert_eq!(Header::parse(&header.encode().unwrap()).unwrap(), header);
}

#[test]
fn version_2_has_fixed_features() {
    let mut header = sample();
    header.version = 2;
    header.geometry.zero_flag = false;
    header.header_bytes = 72;
    assert_eq!(Header::parse(&header.encode().unwrap()).unwrap(), header);
}

#[test]
fn each_field_has_its_error() {
    assert!(matches!(patched(0, b"QFI\0"), Err(Error::WrongFormat { .. })));
    assert!(
        matches!(patched(7, &[4]), Err(Error::Unsupported { feature, .. }) if feature == "version 4")
    );
    expect(20, &8_u32.to_be_bytes(), &CorruptKind::ClusterBits(8));
    expect(20, &22_u32.to_be_bytes(), &CorruptKind::ClusterBits(22));
    expect(16, &1024_u32.to_be_bytes(), &CorruptKind::BackingName(1024));
    expect(8, &0xfff9_u64.to_be_bytes(), &CorruptKind::BackingName(8));
    expect(8, &u64::MAX.to_be_bytes(), &CorruptKind::BackingName(8));
    expect(32, &3_u32.to_be_bytes(), &CorruptKind::CryptMethod(3));
    expect(36, &1_u32.to_be_bytes(), &CorruptKind::L1TooSmall { entries: 1, needed: 2 });
    expect(36, &u32::MAX.to_be_bytes(), &CorruptKind::TableTooLarge(u64::from(u32::MAX) * 8));
    expect(40, &0x3_0200_u64.to_be_bytes(), &CorruptKind::Misaligned(0x3_0200));
    expect(48, &0x1_0001_u64.to_be_bytes(), &CorruptKind::Misaligned(0x1_0001));
    expect(56, &0_u32.to_be_bytes(), &CorruptKind::NoRefcountTable);
    expect(56, &129_u32.to_be_bytes(), &CorruptKind::TableTooLarge(129 << 16));
    expect(60, &65_537_u32.to_be_bytes(), &CorruptKind::TooManySnapshots(65_537));
    expect(64, &1_u64.to_be_bytes(), &CorruptKind::Misaligned(1));
    let far = 0x7fff_ffff_ffff_0000_u64;
    expect(40, &(far + 0x1_0000).to_be_bytes(), &CorruptKind::OutOfRange(far + 0x1_0000, 16));
    expect(96, &7_u32.to_be_bytes(), &CorruptKind::RefcountOrder(7));
    expect(100, &96_u32.to_be_bytes(), &CorruptKind::HeaderLength(96));
    expect(100, &109_u32.to_be_bytes(), &CorruptKind::HeaderLength(109));
    expect(104, &[2], &CorruptKind::CompressionType(2));
    expect(104, &[1], &CorruptKind::CompressionTypeBit { kind: 1 });
    expect(79, &[8], &CorruptKind::CompressionTypeBit { kind: 0 });
    expect(
        116,
        &0x10_0000_u32.to_be_bytes(),
        &CorruptKind::Extension { kind: 0xe279_2aca, len: 0x10_0000 },
    );
}

#[test]
fn extended_l2_needs_large_clusters() {
    let mut header = sample();
    header.geometry.cluster = ClusterBits::new(13).unwrap();
    header.geometry.extended_l2 = true;
    header.geometry.zero_flag = false;
    header.incompatible = spec::incompatible::EXTENDED_L2;
    header.l1_entries = 1 << 16;
    let error = Header::parse(&header.encode().unwrap()).unwrap_err();
    assert_eq!(kind_of(&error), Some(&CorruptKind::ExtendedL2ClusterBits));
}

#[test]
fn errors_say_where_the_field_is() {
    let text = patched(36, &1_u32.to_be_bytes()).unwrap_err().to_string();
    assert_eq!(text, "qcow2 image is corrupt: header, l1_size at offset 0x24");
}

#[test]
fn unknown_features_are_refused_by_name() {
    let mut header = sample();
    header.incompatible = (1 << 40) | (1 << 41);
    let mut table = vec![0; 48];
    table[1] = 40;
    table[2..6].copy_from_slice(b"warp");
    header.extensions = vec![Extension::FeatureNames(table)];
    match Header::parse(&header.encode().unwrap()) {
        Err(Error::Unsupported { feature, .. }) => {
            assert_eq!(feature, "warp, Unknown incompatible feature: 20000000000");
        }
        other => panic!("{other:?}"),
    }
}

/// Of what is there twice the last one counts, and a table may end within its last name.
#[test]
fn the_last_of_two_extensions_counts() {
    let mut header = sample();
    header.extensions = [b"vpc".as_slice(), b"foo"]
        .map(|name| Extension::BackingFormat(String::from_utf8(name.to_vec()).unwrap()))
        .to_vec();
    assert_eq!(Header::parse(&header.encode().unwrap()).unwrap().backing_format(), Some("foo"));
    header.incompatible = 1 << 63;
    header.extensions =
        vec![Extension::feature_names(), Extension::FeatureNames(b"\0\x3fTest".to_vec())];
    match Header::parse(&header.encode().unwrap()) {
        Err(Error::Unsupported { feature, .. }) => assert_eq!(feature, "Test"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_truncation_is_an_error_or_a_header() {
    let image = sample().encode().unwrap();
    for len in 0..RawHeaderV2::SIZE_BYTES + 32 {
        assert!(Header::parse(&image[..len]).is_err(), "{len}");
    }
    for len in RawHeaderV2::SIZE_BYTES + 32..image.len() {
        let _ = Header::parse(&image[..len]);
    }
}

#[test]
fn a_name_that_does_not_fit_is_refused() {
    let mut header = sample();
    header.backing_name = Some("x".repeat(1024));
    assert!(matches!(header.encode(), Err(Error::InvalidOption { option: "backing_file", .. })));
    header.geometry.cluster = ClusterBits::new(9).unwrap();
    header.backing_name = Some("x".repeat(200));
    assert!(header.encode().is_err());
}
