//! The header: bytes to a checked [`Header`] and back.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod extension;
mod feature;
pub(crate) mod rewrite;

pub(crate) use extension::Extension;
pub(crate) use feature::FeatureKind;

use crate::address::{ClusterBits, Geometry, RefcountOrder};
use crate::error::{CorruptKind, FORMAT};
use crate::spec;
use rimg_core::{Error, Result, num, on_disk};

on_disk! {
    /// The fields that every version has.
    pub(crate) struct RawHeaderV2: BigEndian, 72 bytes {
        magic: u32 = 0,
        version: u32 = 4,
        backing_file_offset: u64 = 8,
        backing_file_size: u32 = 16,
        cluster_bits: u32 = 20,
        size: u64 = 24,
        crypt_method: u32 = 32,
        l1_size: u32 = 36,
        l1_table_offset: u64 = 40,
        refcount_table_offset: u64 = 48,
        refcount_table_clusters: u32 = 56,
        nb_snapshots: u32 = 60,
        snapshots_offset: u64 = 64,
    }
}

on_disk! {
    /// What version 3 adds. Offsets count from the start of the file less 72.
    pub(crate) struct RawHeaderV3: BigEndian, 40 bytes {
        incompatible_features: u64 = 0,
        compatible_features: u64 = 8,
        autoclear_features: u64 = 16,
        refcount_order: u32 = 24,
        header_length: u32 = 28,
        compression_type: u8 = 32,
    }
}

/// Where a field of the header lies in the file.
pub(crate) mod offset {
    use super::{RawHeaderV2, RawHeaderV3};
    use rimg_core::num;

    const fn v3(field: &str) -> u64 {
        RawHeaderV3::offset_of(field).wrapping_add(num::to_u64(RawHeaderV2::SIZE_BYTES))
    }
    pub(crate) const INCOMPATIBLE: u64 = v3("incompatible_features");
    pub(crate) const AUTOCLEAR: u64 = v3("autoclear_features");
    pub(crate) const REFCOUNT_ORDER: u64 = v3("refcount_order");
    pub(crate) const HEADER_LENGTH: u64 = v3("header_length");
    pub(crate) const COMPRESSION_TYPE: u64 = v3("compression_type");
    pub(crate) const SIZE: u64 = RawHeaderV2::offset_of("size");
    pub(crate) const CRYPT_METHOD: u64 = RawHeaderV2::offset_of("crypt_method");
    pub(crate) const L1_SIZE: u64 = RawHeaderV2::offset_of("l1_size");
    pub(crate) const SNAPSHOT_COUNT: u64 = RawHeaderV2::offset_of("nb_snapshots");
    pub(crate) const SNAPSHOTS: u64 = RawHeaderV2::offset_of("snapshots_offset");
    pub(crate) const REFCOUNT_TABLE: u64 = RawHeaderV2::offset_of("refcount_table_offset");
}

/// A header whose every field is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// 2 or 3.
    pub(crate) version: u32,
    pub(crate) geometry: Geometry,
    pub(crate) size_bytes: u64,
    pub(crate) crypt_method: u32,
    pub(crate) l1_entries: u32,
    pub(crate) l1_offset: u64,
    pub(crate) refcount_table_offset: u64,
    pub(crate) refcount_table_clusters: u32,
    pub(crate) snapshot_count: u32,
    pub(crate) snapshots_offset: u64,
    pub(crate) incompatible: u64,
    pub(crate) compatible: u64,
    pub(crate) autoclear: u64,
    pub(crate) header_bytes: u32,
    pub(crate) compression_type: u8,
    pub(crate) backing_name: Option<String>,
    pub(crate) extensions: Vec<Extension>,
}

impl Header {
    /// How many bytes of a file [`Header::cluster_bits`] wants to see.
    pub(crate) const MIN_BYTES: usize = RawHeaderV2::SIZE_BYTES;

    /// The cluster size, which says how much of the file [`Header::parse`] wants to see.
    pub(crate) fn cluster_bits(start: &[u8]) -> Result<ClusterBits> {
        let raw = fixed_fields(start)?;
        ClusterBits::new(raw.cluster_bits).map_err(header("cluster_bits"))
    }

    /// Whether the beginning of a first cluster has all that [`Header::parse`] looks at in it.
    pub(crate) fn ends_within(start: &[u8]) -> Result<bool> {
        let raw = fixed_fields(start)?;
        let v3 = version_3_fields(&raw, start)?;
        let name_end = raw.backing_file_offset.saturating_add(raw.backing_file_size.into());
        Ok(name_end <= num::to_u64(start.len()) && extension::ends_within(start, v3.header_length))
    }

    /// Reads a header from the first cluster of a file, or from all of a shorter one; where
    /// [`Header::ends_within`] says so, from the beginning of it.
    pub(crate) fn parse(start: &[u8]) -> Result<Self> {
        let parsed = Self::parse_for_check(start)?;
        parsed.validate_for_use()?;
        Ok(parsed)
    }

    /// As [`parse`](Self::parse), but lets through what a check reports and repairs: a missing
    /// refcount table, and a snapshot table that is too long or nowhere.
    pub(crate) fn parse_for_check(start: &[u8]) -> Result<Self> {
        let raw = fixed_fields(start)?;
        let cluster = ClusterBits::new(raw.cluster_bits).map_err(header("cluster_bits"))?;
        let v3 = version_3_fields(&raw, start)?;
        if u64::from(v3.header_length) > cluster.bytes() || v3.header_length % 8 != 0 {
            let kind = CorruptKind::HeaderLength(v3.header_length);
            return Err(kind.at("header", "header_length", offset::HEADER_LENGTH));
        }
        let refcount = RefcountOrder::new(v3.refcount_order)
            .map_err(|kind| kind.at("header", "refcount_order", offset::REFCOUNT_ORDER))?;
        let extended_l2 = v3.incompatible_features & spec::incompatible::EXTENDED_L2 != 0;
        let geometry = Geometry {
            cluster,
            extended_l2,
            zero_flag: raw.version >= 3 && !extended_l2,
            refcount,
        };
        let backing_name = backing_name(&raw, start, cluster)?;
        let extensions_end = match raw.backing_file_offset {
            0 => cluster.bytes(),
            name => name.min(cluster.bytes()),
        };
        let extensions = extension::parse_all(start, v3.header_length, extensions_end)?;
        let parsed = Self {
            version: raw.version,
            geometry,
            size_bytes: raw.size,
            crypt_method: raw.crypt_method,
            l1_entries: raw.l1_size,
            l1_offset: raw.l1_table_offset,
            refcount_table_offset: raw.refcount_table_offset,
            refcount_table_clusters: raw.refcount_table_clusters,
            snapshot_count: raw.nb_snapshots,
            snapshots_offset: raw.snapshots_offset,
            incompatible: v3.incompatible_features,
            compatible: v3.compatible_features,
            autoclear: v3.autoclear_features,
            header_bytes: v3.header_length,
            compression_type: v3.compression_type,
            backing_name,
            extensions,
        };
        parsed.refuse_unknown_features()?;
        parsed.validate()?;
        Ok(parsed)
    }

    /// The bytes of the header, its extensions and the backing file's name.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when they do not fit into a cluster.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&[0; RawHeaderV2::SIZE_BYTES]);
        if self.version >= 3 {
            let v3 = RawHeaderV3 {
                incompatible_features: self.incompatible,
                compatible_features: self.compatible,
                autoclear_features: self.autoclear,
                refcount_order: self.geometry.refcount.order(),
                header_length: self.header_bytes,
                compression_type: self.compression_type,
            };
            bytes.extend_from_slice(&v3.encode());
        }
        bytes.resize(num::to_usize(u64::from(self.header_bytes))?, 0);
        extension::encode_all(&self.extensions, &mut bytes);
        let mut raw = RawHeaderV2 {
            magic: spec::MAGIC,
            version: self.version,
            backing_file_offset: 0,
            backing_file_size: 0,
            cluster_bits: self.geometry.cluster.bits(),
            size: self.size_bytes,
            crypt_method: self.crypt_method,
            l1_size: self.l1_entries,
            l1_table_offset: self.l1_offset,
            refcount_table_offset: self.refcount_table_offset,
            refcount_table_clusters: self.refcount_table_clusters,
            nb_snapshots: self.snapshot_count,
            snapshots_offset: self.snapshots_offset,
        };
        if let Some(name) = &self.backing_name {
            raw.backing_file_offset = num::to_u64(bytes.len());
            raw.backing_file_size = u32::try_from(name.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(name.as_bytes());
        }
        if num::to_u64(bytes.len()) > self.geometry.cluster_bytes()
            || raw.backing_file_size > spec::MAX_BACKING_NAME_BYTES
        {
            return Err(Error::InvalidOption {
                option: "backing_file",
                reason: "Backing file name too long".into(),
            });
        }
        if let Some(start) = bytes.first_chunk_mut() {
            *start = raw.encode();
        }
        Ok(bytes)
    }

    /// Whether a bit of the incompatible features is set.
    pub(crate) const fn has(&self, incompatible: u64) -> bool {
        self.incompatible & incompatible != 0
    }

    /// The format of the backing file, where the image says it.
    pub(crate) fn backing_format(&self) -> Option<&str> {
        self.extensions.iter().rev().find_map(|extension| match extension {
            Extension::BackingFormat(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The name of the external data file, where the image says it.
    pub(crate) fn data_file_name(&self) -> Option<&str> {
        self.extensions.iter().rev().find_map(|extension| match extension {
            Extension::DataFileName(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Where the LUKS header is, in bytes: offset and length.
    pub(crate) fn encryption_header(&self) -> Option<(u64, u64)> {
        self.extensions.iter().rev().find_map(|extension| match extension {
            Extension::Encryption(data) => {
                let (words, _) = data.as_chunks::<8>();
                let word = |index: usize| words.get(index).map(|word| u64::from_be_bytes(*word));
                Some((word(0)?, word(1)?))
            }
            _ => None,
        })
    }

    fn refuse_unknown_features(&self) -> Result<()> {
        let unknown = self.incompatible & !spec::incompatible::KNOWN;
        if unknown == 0 {
            return Ok(());
        }
        Err(Error::Unsupported {
            format: FORMAT,
            feature: feature::names(&self.extensions, FeatureKind::Incompatible, unknown),
        })
    }

    fn validate(&self) -> Result<()> {
        self.validate_compression()?;
        if self.geometry.extended_l2
            && self.geometry.cluster.bits() < spec::EXTENDED_L2_MIN_CLUSTER_BITS
        {
            let kind = CorruptKind::ExtendedL2ClusterBits;
            return Err(kind.at("header", "incompatible_features", offset::INCOMPATIBLE));
        }
        if self.crypt_method > spec::crypt::LUKS {
            return Err(header("crypt_method")(CorruptKind::CryptMethod(self.crypt_method)));
        }
        self.validate_l1()?;
        self.validate_refcount_table()
    }

    fn validate_for_use(&self) -> Result<()> {
        if self.refcount_table_clusters == 0 {
            return Err(header("refcount_table_clusters")(CorruptKind::NoRefcountTable));
        }
        if self.snapshot_count > spec::MAX_SNAPSHOTS {
            return Err(header("nb_snapshots")(CorruptKind::TooManySnapshots(self.snapshot_count)));
        }
        self.validate_place("snapshots_offset", self.snapshots_offset, 0)
    }

    fn validate_compression(&self) -> Result<()> {
        let fail = |kind: CorruptKind| {
            Err(kind.at("header", "compression_type", offset::COMPRESSION_TYPE))
        };
        let kind = self.compression_type;
        if kind > spec::compression::ZSTD {
            return fail(CorruptKind::CompressionType(kind));
        }
        if (kind != spec::compression::ZLIB) != self.has(spec::incompatible::COMPRESSION_TYPE) {
            return fail(CorruptKind::CompressionTypeBit { kind });
        }
        Ok(())
    }

    fn validate_l1(&self) -> Result<()> {
        let bytes = u64::from(self.l1_entries).saturating_mul(8);
        if bytes > spec::MAX_L1_BYTES {
            return Err(header("l1_size")(CorruptKind::TableTooLarge(bytes)));
        }
        let needed = self.geometry.l1_entries_for(self.size_bytes);
        if needed > spec::MAX_L1_ENTRIES_NEEDED {
            return Err(header("size")(CorruptKind::DiskTooLarge(self.size_bytes)));
        }
        let entries = u64::from(self.l1_entries);
        if entries < needed {
            return Err(header("l1_size")(CorruptKind::L1TooSmall { entries, needed }));
        }
        self.validate_place("l1_table_offset", self.l1_offset, bytes)
    }

    fn validate_refcount_table(&self) -> Result<()> {
        let clusters = u64::from(self.refcount_table_clusters);
        let bytes = clusters.saturating_mul(self.geometry.cluster_bytes());
        if bytes > spec::MAX_REFCOUNT_TABLE_BYTES {
            return Err(header("refcount_table_clusters")(CorruptKind::TableTooLarge(bytes)));
        }
        self.validate_place("refcount_table_offset", self.refcount_table_offset, bytes)
    }

    fn validate_place(&self, field: &'static str, at: u64, bytes: u64) -> Result<()> {
        if !self.geometry.is_aligned(at) {
            return Err(header(field)(CorruptKind::Misaligned(at)));
        }
        match at.checked_add(bytes) {
            Some(end) if i64::try_from(end).is_ok() => Ok(()),
            _ => Err(header(field)(CorruptKind::OutOfRange(at, bytes))),
        }
    }
}

/// Places an error at a field of the version-independent part.
fn header(field: &'static str) -> impl Fn(CorruptKind) -> Error {
    move |kind| kind.at("header", field, RawHeaderV2::offset_of(field))
}

fn fixed_fields(start: &[u8]) -> Result<RawHeaderV2> {
    let truncated = || CorruptKind::HeaderTruncated.at("header", "magic", 0);
    match start.first_chunk::<4>() {
        Some(magic) if u32::from_be_bytes(*magic) == spec::MAGIC => {}
        _ => return Err(Error::WrongFormat { format: FORMAT }),
    }
    let raw = RawHeaderV2::parse(start.first_chunk().ok_or_else(truncated)?);
    if raw.version == 2 || raw.version == 3 {
        Ok(raw)
    } else {
        Err(Error::Unsupported { format: FORMAT, feature: format!("version {}", raw.version) })
    }
}

/// The fields of version 3, or what they mean to a version 2 image.
fn version_3_fields(raw: &RawHeaderV2, start: &[u8]) -> Result<RawHeaderV3> {
    if raw.version == 2 {
        return Ok(RawHeaderV3 {
            refcount_order: 4,
            header_length: spec::HEADER_V2_BYTES,
            ..RawHeaderV3::default()
        });
    }
    let rest = start.get(RawHeaderV2::SIZE_BYTES..).unwrap_or_default();
    let fixed =
        num::to_usize(u64::from(spec::HEADER_V3_BYTES.wrapping_sub(spec::HEADER_V2_BYTES)))?;
    let truncated =
        || CorruptKind::HeaderTruncated.at("header", "header_length", offset::HEADER_LENGTH);
    let mut bytes = [0; RawHeaderV3::SIZE_BYTES];
    for (to, from) in bytes.iter_mut().zip(rest) {
        *to = *from;
    }
    if rest.len() < fixed {
        return Err(truncated());
    }
    let mut v3 = RawHeaderV3::parse(&bytes);
    if v3.header_length < spec::HEADER_V3_BYTES {
        let kind = CorruptKind::HeaderLength(v3.header_length);
        return Err(kind.at("header", "header_length", offset::HEADER_LENGTH));
    }
    if v3.header_length == spec::HEADER_V3_BYTES {
        // What follows such a header is not part of it.
        v3.compression_type = 0;
    }
    Ok(v3)
}

fn backing_name(raw: &RawHeaderV2, start: &[u8], cluster: ClusterBits) -> Result<Option<String>> {
    if raw.backing_file_offset == 0 {
        return Ok(None);
    }
    let len = raw.backing_file_size;
    let wrong = || header("backing_file_offset")(CorruptKind::BackingName(len));
    let end = raw.backing_file_offset.checked_add(u64::from(len)).ok_or_else(wrong)?;
    if len > spec::MAX_BACKING_NAME_BYTES || end > cluster.bytes() {
        return Err(wrong());
    }
    let range = num::to_usize(raw.backing_file_offset)?..num::to_usize(end)?;
    let name = start.get(range).ok_or_else(wrong)?;
    match core::str::from_utf8(name) {
        // A length of 0 is how QEMU's tools read "no backing file" from an offset left behind.
        Ok("") => Ok(None),
        Ok(name) => Ok(Some(name.to_owned())),
        Err(_) => {
            Err(CorruptKind::NotUtf8.at("header", "backing file name", raw.backing_file_offset))
        }
    }
}

#[cfg(test)]
mod tests;
