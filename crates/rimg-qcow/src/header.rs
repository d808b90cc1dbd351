//! The header: the start of the file. The name of the backing file and the L1 table follow.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::{CorruptKind, FORMAT};
use crate::spec;
use rimg_core::{Error, Result, num};

rimg_core::on_disk! {
    /// Header.
    struct RawHeader: BigEndian, 48 bytes {
        magic: u32 = 0,
        version: u32 = 4,
        backing_file_offset: u64 = 8,
        backing_file_size: u32 = 16,
        mtime: u32 = 20,
        size: u64 = 24,
        cluster_bits: u8 = 32,
        l2_bits: u8 = 33,
        crypt_method: u32 = 36,
        l1_table_offset: u64 = 40,
    }
}

/// A header that makes sense by itself; offsets were not compared with the length of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) geometry: Geometry,
    /// What the header says; the disk is whole sectors of it.
    size: u64,
    mtime: u32,
    pub(crate) crypt_method: u32,
    pub(crate) l1_offset: u64,
    backing_at: u64,
    pub(crate) backing: Option<String>,
}

/// Where the header says where the L1 table is.
pub(crate) const L1_OFFSET_AT: u64 = RawHeader::offset_of("l1_table_offset");

impl Header {
    pub(crate) const RAW_BYTES: usize = RawHeader::SIZE_BYTES;

    /// The header of a new image, right behind which come the name and the L1 table.
    pub(crate) fn new(size_bytes: u64, backing: Option<String>, crypt_method: u32) -> Result<Self> {
        let (cluster_bits, l2_bits) =
            if backing.is_some() { spec::OVERLAY_BITS } else { spec::STANDALONE_BITS };
        let geometry = Geometry::new(cluster_bits, l2_bits)
            .map_err(|_| Error::Misuse("the default cluster size is not possible"))?;
        let start = num::to_u64(Self::RAW_BYTES);
        let name_end = start.saturating_add(num::to_u64(backing.as_ref().map_or(0, String::len)));
        Ok(Self {
            geometry,
            size: size_bytes,
            mtime: 0,
            crypt_method,
            l1_offset: num::align_up(name_end, 8).unwrap_or(u64::MAX),
            backing_at: if backing.is_some() { start } else { 0 },
            backing,
        })
    }

    /// Whether a file that starts so is an image.
    pub(crate) fn is_magic(start: &[u8]) -> bool {
        let word = |at: usize| {
            start.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_be_bytes(*bytes))
        };
        (word(0), word(4)) == (Some(spec::MAGIC), Some(spec::VERSION))
    }

    /// Where the name of the backing file is in the file, and how long; 0 for none.
    pub(crate) fn name_place(start: &[u8]) -> Result<(u64, u32)> {
        let raw = parse_raw(start)?;
        if raw.backing_file_offset == 0 || raw.backing_file_size == 0 {
            return Ok((0, 0));
        }
        if raw.backing_file_size > spec::MAX_BACKING_NAME_BYTES {
            let at = RawHeader::offset_of("backing_file_size");
            let kind = CorruptKind::BackingName(raw.backing_file_size);
            return Err(kind.at("header", "backing_file_size", at));
        }
        Ok((raw.backing_file_offset, raw.backing_file_size))
    }

    /// Reads a header, and the name that lies where [`name_place`](Self::name_place) says.
    pub(crate) fn parse(start: &[u8], name: &[u8]) -> Result<Self> {
        let raw = parse_raw(start)?;
        let wrong = |kind: CorruptKind, field: &'static str, at| Err(kind.at("header", field, at));
        let geometry = match Geometry::new(raw.cluster_bits, raw.l2_bits) {
            Ok(geometry) => geometry,
            Err(kind @ CorruptKind::L2Bits(_)) => {
                return wrong(kind, "l2_bits", RawHeader::offset_of("l2_bits"));
            }
            Err(kind) => return wrong(kind, "cluster_bits", RawHeader::offset_of("cluster_bits")),
        };
        if raw.crypt_method > spec::crypt::AES {
            let kind = CorruptKind::CryptMethod(raw.crypt_method);
            return wrong(kind, "crypt_method", RawHeader::offset_of("crypt_method"));
        }
        let l1_bytes = geometry.l1_entries_for(raw.size).saturating_mul(8);
        if raw.size > spec::MAX_FILE_BYTES || l1_bytes > spec::MAX_L1_BYTES {
            let kind = CorruptKind::DiskSize(raw.size);
            return wrong(kind, "size", RawHeader::offset_of("size"));
        }
        let is_in_header = raw.l1_table_offset < num::to_u64(Self::RAW_BYTES);
        if is_in_header || raw.l1_table_offset > spec::MAX_FILE_BYTES {
            let kind = CorruptKind::OutsideFile(raw.l1_table_offset);
            return wrong(kind, "l1_table_offset", L1_OFFSET_AT);
        }
        let backing = match str::from_utf8(name) {
            Ok("") => None,
            Ok(name) => Some(name.to_owned()),
            Err(_) => {
                let at = RawHeader::offset_of("backing_file_offset");
                return wrong(CorruptKind::NotUtf8, "backing_file_offset", at);
            }
        };
        Ok(Self {
            geometry,
            size: raw.size,
            mtime: raw.mtime,
            crypt_method: raw.crypt_method,
            l1_offset: raw.l1_table_offset,
            backing_at: raw.backing_file_offset,
            backing,
        })
    }

    pub(crate) fn encode(&self) -> [u8; Self::RAW_BYTES] {
        let (cluster_bits, l2_bits) = self.geometry.bits();
        let len = self.backing.as_ref().map_or(0, String::len);
        RawHeader {
            magic: spec::MAGIC,
            version: spec::VERSION,
            backing_file_offset: self.backing_at,
            backing_file_size: u32::try_from(len).unwrap_or(u32::MAX),
            mtime: self.mtime,
            size: self.size,
            cluster_bits,
            l2_bits,
            crypt_method: self.crypt_method,
            l1_table_offset: self.l1_offset,
        }
        .encode()
    }

    /// The size of the disk in bytes: whole sectors.
    pub(crate) const fn size_bytes(&self) -> u64 {
        num::align_down(self.size, spec::SECTOR_BYTES)
    }

    pub(crate) fn set_size_bytes(&mut self, size_bytes: u64) {
        self.size = size_bytes;
    }

    /// Names a backing file whose name lies at `at`, or none.
    pub(crate) fn set_backing(&mut self, name: Option<(&str, u64)>) {
        self.backing_at = name.map_or(0, |(_, at)| at);
        self.backing = name.map(|(name, _)| name.to_owned());
    }

    /// Where the name of the backing file lies, and how long it is.
    pub(crate) fn name_at(&self) -> Option<(u64, u64)> {
        self.backing.as_ref().map(|name| (self.backing_at, num::to_u64(name.len())))
    }

    pub(crate) const fn is_encrypted(&self) -> bool {
        self.crypt_method != spec::crypt::NONE
    }

    /// How many L1 entries the disk needs.
    pub(crate) const fn l1_entries(&self) -> u64 {
        self.geometry.l1_entries_for(self.size)
    }

    /// Where the L1 table ends.
    pub(crate) const fn l1_end(&self) -> u64 {
        self.l1_offset.saturating_add(self.l1_entries().saturating_mul(8))
    }

    /// Where the header and what lies right behind it end.
    pub(crate) fn end(&self) -> u64 {
        let len = num::to_u64(self.backing.as_ref().map_or(0, String::len));
        self.backing_at.saturating_add(len).max(num::to_u64(Self::RAW_BYTES))
    }
}

fn parse_raw(start: &[u8]) -> Result<RawHeader> {
    let word = |at: usize| {
        start.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_be_bytes(*bytes))
    };
    match (word(0), word(4)) {
        (Some(spec::MAGIC), Some(spec::VERSION)) => {}
        (Some(spec::MAGIC), Some(version)) => {
            let feature = format!("version {version}");
            return Err(Error::Unsupported { format: FORMAT, feature });
        }
        _ => return Err(Error::WrongFormat { format: FORMAT }),
    }
    match start.first_chunk() {
        Some(bytes) => Ok(RawHeader::parse(bytes)),
        None => Err(CorruptKind::HeaderTruncated.at("header", "magic", 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    #[test]
    fn a_new_header_is_that_of_qemu() {
        let header = Header::new(1 << 20, Some("base".to_owned()), 0).unwrap();
        let bytes = header.encode();
        let mut expected = b"QFI\xfb\0\0\0\x01\0\0\0\0\0\0\0\x30\0\0\0\x04\0\0\0\0".to_vec();
        expected.extend_from_slice(b"\0\0\0\0\0\x10\0\0\x09\x0c\0\0\0\0\0\0\0\0\0\0\0\0\0\x38");
        assert_eq!(bytes[..], expected);
        assert_eq!(Header::name_place(&bytes).unwrap(), (48, 4));
        assert_eq!(Header::parse(&bytes, b"base").unwrap(), header);
    }

    #[test]
    fn each_wrong_field_is_named() {
        let patched = |at: usize, with: &[u8]| {
            let mut bytes = Header::new(1 << 20, None, 0).unwrap().encode();
            bytes[at..at + with.len()].copy_from_slice(with);
            Header::parse(&bytes, b"").unwrap_err()
        };
        for (at, with, expected) in [
            (32, &[8][..], CorruptKind::ClusterBits(8)),
            (33, &[14], CorruptKind::L2Bits(14)),
            (39, &[2], CorruptKind::CryptMethod(2)),
            (24, &[0x40], CorruptKind::DiskSize((1 << 62) + (1 << 20))),
            (47, &[47], CorruptKind::OutsideFile(47)),
        ] {
            assert_eq!(kind_of(&patched(at, with)), Some(&expected), "{at}");
        }
        assert!(matches!(patched(0, b"q"), Error::WrongFormat { format: "qcow" }));
        assert!(matches!(
            patched(7, b"\x02"),
            Error::Unsupported { feature, .. } if feature == "version 2"
        ));
        let bytes = Header::new(1, Some("x".repeat(1023)), 0).unwrap().encode();
        assert!(Header::parse(&bytes, &[0xff]).is_err());
        let short = Header::parse(&bytes[..40], b"").unwrap_err();
        assert_eq!(kind_of(&short), Some(&CorruptKind::HeaderTruncated));
        let long = Header::new(1, Some("x".repeat(1024)), 0).unwrap().encode();
        let error = Header::name_place(&long).unwrap_err();
        assert_eq!(kind_of(&error), Some(&CorruptKind::BackingName(1024)));
    }
}
