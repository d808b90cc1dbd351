//! The header: the start of the file.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::{CorruptKind, FORMAT};
use crate::spec::{self, feature};
use rimg_core::{Error, Result, num};

rimg_core::on_disk! {
    /// Header.
    pub(crate) struct RawHeader: LittleEndian, 64 bytes {
        magic: u32 = 0,
        cluster_size: u32 = 4,
        table_size: u32 = 8,
        header_size: u32 = 12,
        features: u64 = 16,
        compat_features: u64 = 24,
        autoclear_features: u64 = 32,
        l1_table_offset: u64 = 40,
        image_size: u64 = 48,
        backing_filename_offset: u32 = 56,
        backing_filename_size: u32 = 60,
    }
}

/// Where the header says where the L1 table is.
pub(crate) const L1_OFFSET_AT: u64 = RawHeader::offset_of("l1_table_offset");

/// A header that makes sense by itself; offsets were not compared with the length of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) geometry: Geometry,
    header_clusters: u32,
    /// See [`feature`]; none that is unknown.
    pub(crate) features: u64,
    pub(crate) compat_features: u64,
    pub(crate) autoclear_features: u64,
    /// A multiple of the cluster size, behind the header.
    pub(crate) l1_offset: u64,
    /// A multiple of the sector size.
    pub(crate) size_bytes: u64,
    /// Where the name of the backing file is, also where there is none.
    backing_at: u32,
    pub(crate) backing: Option<String>,
}

impl Header {
    pub(crate) const RAW_BYTES: usize = RawHeader::SIZE_BYTES;

    /// The header of a new image without a backing file.
    pub(crate) fn new(geometry: Geometry, size_bytes: u64) -> Self {
        Self {
            geometry,
            header_clusters: 1,
            features: 0,
            compat_features: 0,
            autoclear_features: 0,
            l1_offset: geometry.cluster_bytes(),
            size_bytes,
            backing_at: 0,
            backing: None,
        }
    }

    /// How much of the start of a file there is to read: up to the end of the backing file's name.
    pub(crate) fn needed_bytes(start: &[u8]) -> Result<u64> {
        let raw = parse_raw(start)?;
        if raw.features & feature::BACKING_FILE == 0 {
            return Ok(num::to_u64(Self::RAW_BYTES));
        }
        let len = raw.backing_filename_size.min(spec::MAX_BACKING_NAME_BYTES);
        let end = u64::from(raw.backing_filename_offset).saturating_add(len.into());
        Ok(end.clamp(num::to_u64(Self::RAW_BYTES), u64::from(*spec::CLUSTER_BYTES.end())))
    }

    /// Reads a header from the first [`needed_bytes`](Self::needed_bytes) of a file.
    pub(crate) fn parse(start: &[u8]) -> Result<Self> {
        let raw = parse_raw(start)?;
        let wrong = |kind: CorruptKind, field: &'static str, at| Err(kind.at("header", field, at));
        let unknown = raw.features & !feature::ALL;
        if unknown != 0 {
            return Err(Error::Unsupported { format: FORMAT, feature: format!("{unknown:x}") });
        }
        let geometry = match Geometry::new(raw.cluster_size, raw.table_size) {
            Ok(geometry) => geometry,
            Err(kind @ CorruptKind::TableClusters(_)) => {
                return wrong(kind, "table_size", RawHeader::offset_of("table_size"));
            }
            Err(kind) => return wrong(kind, "cluster_size", RawHeader::offset_of("cluster_size")),
        };
        let size = raw.image_size;
        if size > geometry.max_image_bytes() || !size.is_multiple_of(spec::SECTOR_BYTES) {
            let kind = CorruptKind::ImageSize(size);
            return wrong(kind, "image_size", RawHeader::offset_of("image_size"));
        }
        let mut header = Self {
            geometry,
            header_clusters: raw.header_size.max(1),
            features: raw.features,
            compat_features: raw.compat_features,
            autoclear_features: raw.autoclear_features,
            l1_offset: raw.l1_table_offset,
            size_bytes: size,
            backing_at: raw.backing_filename_offset,
            backing: None,
        };
        if let Err(kind) = header.check_offset(header.l1_offset, geometry.table_bytes(), u64::MAX) {
            return wrong(kind, "l1_table_offset", RawHeader::offset_of("l1_table_offset"));
        }
        if raw.features & feature::BACKING_FILE != 0 {
            header.backing = Some(header.parse_name(start, &raw)?);
        }
        Ok(header)
    }

    fn parse_name(&self, start: &[u8], raw: &RawHeader) -> Result<String> {
        let (at, len) = (u64::from(raw.backing_filename_offset), raw.backing_filename_size);
        let end = at.saturating_add(len.into());
        let wrong = |kind: CorruptKind| {
            let at = RawHeader::offset_of("backing_filename_offset");
            kind.at("header", "backing_filename_offset", at)
        };
        let too_long = len == 0 || len > spec::MAX_BACKING_NAME_BYTES || end > self.header_end();
        let name = match (num::to_usize(at), num::to_usize(end)) {
            (Ok(at), Ok(end)) if !too_long => start.get(at..end),
            _ => None,
        };
        let name = name.ok_or_else(|| wrong(CorruptKind::BackingName(len)))?;
        let text = str::from_utf8(name).map_err(|_| wrong(CorruptKind::NotUtf8))?;
        Ok(text.to_owned())
    }

    /// The header's bytes, and behind it the name of the backing file where it lies close behind;
    /// [`encode_name`](Self::encode_name) has it otherwise.
    pub(crate) fn encode(&self) -> [u8; Self::RAW_BYTES] {
        let len = self.backing.as_ref().map_or(0, String::len);
        RawHeader {
            magic: spec::MAGIC,
            cluster_size: u32::try_from(self.geometry.cluster_bytes()).unwrap_or(u32::MAX),
            table_size: u32::try_from(self.geometry.table_clusters()).unwrap_or(u32::MAX),
            header_size: self.header_clusters,
            features: self.features,
            compat_features: self.compat_features,
            autoclear_features: self.autoclear_features,
            l1_table_offset: self.l1_offset,
            image_size: self.size_bytes,
            backing_filename_offset: self.backing_at,
            backing_filename_size: u32::try_from(len).unwrap_or(u32::MAX),
        }
        .encode()
    }

    /// The name of the backing file, and where it goes.
    pub(crate) fn encode_name(&self) -> Option<(u64, &[u8])> {
        self.backing.as_ref().map(|name| (self.backing_at.into(), name.as_bytes()))
    }

    /// Names a backing file, or none. The name goes right behind the header.
    pub(crate) fn set_backing(&mut self, name: Option<&str>, is_raw: bool) -> Result<()> {
        let mut features = self.features & !feature::BACKING_FILE;
        features &= !feature::BACKING_FORMAT_NO_PROBE;
        let len = num::to_u64(name.map_or(0, str::len));
        let end = len.saturating_add(num::to_u64(Self::RAW_BYTES));
        if len > spec::MAX_BACKING_NAME_BYTES.into() || end > self.header_end() {
            let reason = "Backing file name too long".to_owned();
            return Err(Error::InvalidOption { option: "backing_file", reason });
        }
        if name.is_some() {
            self.backing_at = u32::try_from(Self::RAW_BYTES).unwrap_or(u32::MAX);
            features |= feature::BACKING_FILE;
            if is_raw {
                features |= feature::BACKING_FORMAT_NO_PROBE;
            }
        }
        self.features = features;
        self.backing = name.map(str::to_owned);
        Ok(())
    }

    pub(crate) const fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// The format of the backing file, where the image says so.
    pub(crate) fn backing_format(&self) -> Option<&'static str> {
        let is_raw = self.backing.is_some() && self.has(feature::BACKING_FORMAT_NO_PROBE);
        is_raw.then_some("raw")
    }

    /// The first byte that may belong to something else.
    pub(crate) fn header_end(&self) -> u64 {
        u64::from(self.header_clusters).saturating_mul(self.geometry.cluster_bytes())
    }

    /// Where the L1 table ends.
    pub(crate) const fn l1_end(&self) -> u64 {
        self.l1_offset.saturating_add(self.geometry.table_bytes())
    }

    /// Whether `len` bytes of tables or data may start at `offset` in a file that ends at `end`.
    pub(crate) fn check_offset(&self, offset: u64, len: u64, end: u64) -> Result<(), CorruptKind> {
        if !self.geometry.is_aligned(offset) {
            return Err(CorruptKind::Misaligned(offset));
        }
        let is_inside = offset >= self.header_end()
            && offset.checked_add(len).is_some_and(|last| last <= end.min(spec::MAX_FILE_BYTES));
        if is_inside { Ok(()) } else { Err(CorruptKind::OutsideFile(offset)) }
    }
}

fn parse_raw(start: &[u8]) -> Result<RawHeader> {
    let magic = start.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    if magic != Some(spec::MAGIC) {
        return Err(Error::WrongFormat { format: FORMAT });
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

    fn image() -> Vec<u8> {
        let mut header = Header::new(Geometry::new(65536, 4).unwrap(), 1 << 30);
        header.set_backing(Some("base.raw"), true).unwrap();
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(header.encode_name().unwrap().1);
        bytes
    }

    #[test]
    fn a_header_comes_back_as_it_went() {
        let bytes = image();
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.backing.as_deref(), Some("base.raw"));
        assert_eq!(header.backing_format(), Some("raw"));
        assert_eq!(header.encode(), bytes[..Header::RAW_BYTES]);
        assert_eq!(Header::needed_bytes(&bytes).unwrap(), 72);
        assert_eq!((header.header_end(), header.l1_end()), (65536, 5 * 65536));
    }

    #[test]
    fn each_wrong_field_is_named() {
        let patched = |at: usize, with: &[u8]| {
            let mut bytes = image();
            bytes[at..at + with.len()].copy_from_slice(with);
            Header::parse(&bytes).unwrap_err()
        };
        for (at, with, expected) in [
            (4, &[1, 0][..], CorruptKind::ClusterBytes(0x10001)),
            (8, &[3], CorruptKind::TableClusters(3)),
            (40, &[1], CorruptKind::Misaligned(0x10001)),
            (42, &[0], CorruptKind::OutsideFile(0)),
            (47, &[0x80], CorruptKind::OutsideFile(0x8000_0000_0001_0000)),
            (48, &[1], CorruptKind::ImageSize((1 << 30) + 1)),
            (54, &[1], CorruptKind::ImageSize((1 << 48) + (1 << 30))),
            (60, &[0], CorruptKind::BackingName(0)),
            (61, &[0x10], CorruptKind::BackingName(0x1008)),
            (58, &[1], CorruptKind::BackingName(8)),
            (64, &[0xff], CorruptKind::NotUtf8),
        ] {
            assert_eq!(kind_of(&patched(at, with)), Some(&expected), "{at}");
        }
        assert!(matches!(patched(0, b"q"), Error::WrongFormat { format: "qed" }));
        assert!(matches!(
            patched(16, &[9]),
            Error::Unsupported { feature, .. } if feature == "8"
        ));
        let short = Header::parse(&image()[..60]).unwrap_err();
        assert_eq!(kind_of(&short), Some(&CorruptKind::HeaderTruncated));
    }
}
