//! Headers of extents: hosted sparse ones and their footers here, ESXi's in the modules.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

pub(crate) mod cowd;
pub(crate) mod marker;
pub(crate) mod sesparse;

use crate::address::Geometry;
use crate::error::CorruptKind;
use crate::spec::{SECTOR_BYTES, sparse};
use core::ops::Range;
use rimg_core::{Result, on_disk};

const STRUCTURE: &str = "sparse extent header";

on_disk! {
    /// `SparseExtentHeader` as it lies on disk; offsets and sizes are in sectors.
    pub(crate) struct RawHeader: LittleEndian, 512 bytes {
        magic: u32 = 0,
        version: u32 = 4,
        flags: u32 = 8,
        capacity: u64 = 12,
        grain_size: u64 = 20,
        descriptor_offset: u64 = 28,
        descriptor_size: u64 = 36,
        gtes_per_gt: u32 = 44,
        rgd_offset: u64 = 48,
        gd_offset: u64 = 56,
        overhead: u64 = 64,
        unclean_shutdown: u8 = 72,
        single_end_of_line: u8 = 73,
        non_end_of_line: u8 = 74,
        double_end_of_line_1: u8 = 75,
        double_end_of_line_2: u8 = 76,
        compress_algorithm: u16 = 77,
    }
}

/// A header whose fields are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SparseHeader {
    /// As it lies on disk, to be written again.
    pub(crate) raw: RawHeader,
    pub(crate) geometry: Geometry,
    /// Where the grain directory starts, in bytes; `None`: the footer says.
    pub(crate) gd: Option<u64>,
    /// Where the redundant grain directory starts, in bytes.
    pub(crate) rgd: Option<u64>,
    /// It comes from the end of the file.
    pub(crate) is_footer: bool,
}

impl SparseHeader {
    /// Reads and checks a header that lies `at` in its file.
    pub(crate) fn parse(bytes: &[u8; 512], at: u64) -> Result<Self> {
        let raw = RawHeader::parse(bytes);
        let wrong = |kind: CorruptKind, field: &'static str, offset: u64| {
            Err(kind.at(STRUCTURE, field, at.saturating_add(offset)))
        };
        if raw.magic != sparse::MAGIC {
            return wrong(CorruptKind::Magic(raw.magic.into()), "magicNumber", 0);
        }
        if raw.version == 0 || raw.version > sparse::MAX_VERSION {
            let offset = RawHeader::offset_of("version");
            return wrong(CorruptKind::Version(raw.version.into()), "version", offset);
        }
        if !raw.grain_size.is_power_of_two() || raw.grain_size > sparse::MAX_GRAIN_SECTORS {
            let offset = RawHeader::offset_of("grain_size");
            return wrong(CorruptKind::GrainSize(raw.grain_size), "grainSize", offset);
        }
        if raw.gtes_per_gt == 0 || raw.gtes_per_gt > sparse::GTES_PER_GT {
            let offset = RawHeader::offset_of("gtes_per_gt");
            return wrong(CorruptKind::TableEntries(raw.gtes_per_gt), "numGTEsPerGT", offset);
        }
        let compressed = raw.flags & sparse::flag::COMPRESSED != 0;
        let known = match raw.compress_algorithm {
            sparse::compression::NONE => !compressed,
            sparse::compression::DEFLATE => true,
            _ => false,
        };
        if !known {
            let offset = RawHeader::offset_of("compress_algorithm");
            let kind = CorruptKind::Compression(raw.compress_algorithm);
            return wrong(kind, "compressAlgorithm", offset);
        }
        // File offsets have 63 bits.
        let size_bytes = raw.capacity.checked_mul(SECTOR_BYTES).filter(|size| *size >> 63 == 0);
        let Some(size_bytes) = size_bytes else {
            let offset = RawHeader::offset_of("capacity");
            return wrong(CorruptKind::Capacity(raw.capacity), "capacity", offset);
        };
        let lines = [
            raw.single_end_of_line,
            raw.non_end_of_line,
            raw.double_end_of_line_1,
            raw.double_end_of_line_2,
        ];
        if raw.flags & sparse::flag::END_OF_LINE_TEST != 0 && lines != sparse::END_OF_LINE_TEST {
            let offset = RawHeader::offset_of("single_end_of_line");
            return wrong(CorruptKind::EndOfLine(lines), "singleEndLineChar", offset);
        }
        let place = |sector: u64, field: &'static str, offset: u64| {
            let place = sector.checked_mul(SECTOR_BYTES).filter(|place| *place >> 63 == 0);
            place.map_or_else(|| wrong_place(sector, field, at.saturating_add(offset)), Ok)
        };
        let gd = match raw.gd_offset {
            sparse::GD_AT_END => None,
            sector => Some(place(sector, "gdOffset", RawHeader::offset_of("gd_offset"))?),
        };
        let rgd = match raw.rgd_offset {
            0 => None,
            _ if raw.flags & sparse::flag::REDUNDANT_TABLES == 0 => None,
            sector => Some(place(sector, "rgdOffset", RawHeader::offset_of("rgd_offset"))?),
        };
        place(raw.overhead, "overHead", RawHeader::offset_of("overhead"))?;
        let geometry = Geometry {
            size_bytes,
            grain_bits: raw.grain_size.trailing_zeros().saturating_add(9),
            gtes_per_gt: raw.gtes_per_gt,
        };
        Ok(Self { raw, geometry, gd, rgd, is_footer: false })
    }

    /// Whether the header is of a file that only carries a descriptor.
    pub(crate) const fn is_only_descriptor(&self) -> bool {
        self.raw.capacity == 0 && self.raw.descriptor_offset != 0
    }

    pub(crate) const fn is_compressed(&self) -> bool {
        self.raw.flags & sparse::flag::COMPRESSED != 0
    }

    pub(crate) const fn has_markers(&self) -> bool {
        self.raw.flags & sparse::flag::MARKERS != 0
    }

    pub(crate) const fn has_zeroed_grains(&self) -> bool {
        self.raw.flags & sparse::flag::ZEROED_GRAINS != 0
    }

    /// Where metadata ends and grains begin, in bytes.
    pub(crate) const fn overhead_bytes(&self) -> u64 {
        self.raw.overhead.saturating_mul(SECTOR_BYTES)
    }

    /// Where the descriptor lies, in bytes.
    pub(crate) fn descriptor(&self) -> Option<Range<u64>> {
        let start = self.raw.descriptor_offset.checked_mul(SECTOR_BYTES)?;
        let end = start.checked_add(self.raw.descriptor_size.checked_mul(SECTOR_BYTES)?)?;
        (start > 0 && start < end).then_some(start..end)
    }
}

fn wrong_place(sector: u64, field: &'static str, offset: u64) -> Result<u64> {
    Err(CorruptKind::OutOfRange(sector).at(STRUCTURE, field, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;
    use rimg_core::{Error, HostOffset, Location};

    /// The header of qemu-img's images.
    pub(crate) fn header() -> RawHeader {
        RawHeader {
            magic: sparse::MAGIC,
            version: 1,
            flags: 3,
            capacity: 9766,
            grain_size: 128,
            descriptor_offset: 1,
            descriptor_size: 20,
            gtes_per_gt: 512,
            rgd_offset: 21,
            gd_offset: 26,
            overhead: 128,
            unclean_shutdown: 0,
            single_end_of_line: b'\n',
            non_end_of_line: b' ',
            double_end_of_line_1: b'\r',
            double_end_of_line_2: b'\n',
            compress_algorithm: 0,
        }
    }

    #[test]
    fn a_header_is_read() {
        let parsed = SparseHeader::parse(&header().encode(), 0).unwrap();
        assert_eq!(parsed.geometry.size_bytes, 5_000_192);
        assert_eq!(parsed.geometry.grain_bytes(), 65_536);
        assert_eq!((parsed.gd, parsed.rgd), (Some(26 * 512), Some(21 * 512)));
        assert_eq!(parsed.descriptor(), Some(512..21 * 512));
        assert_eq!(parsed.overhead_bytes(), 65_536);
        assert!(!parsed.is_compressed() && !parsed.has_markers() && !parsed.has_zeroed_grains());
        let streamed =
            RawHeader { gd_offset: u64::MAX, rgd_offset: 0, flags: 0x3_0001, ..header() };
        let streamed = RawHeader { version: 3, compress_algorithm: 1, ..streamed };
        let parsed = SparseHeader::parse(&streamed.encode(), 0).unwrap();
        assert_eq!((parsed.gd, parsed.rgd), (None, None));
        assert!(parsed.is_compressed() && parsed.has_markers());
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Case = (fn(&mut RawHeader), CorruptKind, &'static str, u64);
        let cases: &[Case] = &[
            (|h| h.magic = 1, CorruptKind::Magic(1), "magicNumber", 0),
            (|h| h.version = 4, CorruptKind::Version(4), "version", 4),
            (|h| h.version = 0, CorruptKind::Version(0), "version", 4),
            (|h| h.grain_size = 0, CorruptKind::GrainSize(0), "grainSize", 20),
            (|h| h.grain_size = 100, CorruptKind::GrainSize(100), "grainSize", 20),
            (|h| h.grain_size = 1 << 40, CorruptKind::GrainSize(1 << 40), "grainSize", 20),
            (|h| h.gtes_per_gt = 0, CorruptKind::TableEntries(0), "numGTEsPerGT", 44),
            (|h| h.gtes_per_gt = 513, CorruptKind::TableEntries(513), "numGTEsPerGT", 44),
            (|h| h.capacity = 1 << 55, CorruptKind::Capacity(1 << 55), "capacity", 12),
            (|h| h.gd_offset = 1 << 60, CorruptKind::OutOfRange(1 << 60), "gdOffset", 56),
            (|h| h.rgd_offset = 1 << 55, CorruptKind::OutOfRange(1 << 55), "rgdOffset", 48),
            (|h| h.overhead = 1 << 63, CorruptKind::OutOfRange(1 << 63), "overHead", 64),
            (|h| h.compress_algorithm = 2, CorruptKind::Compression(2), "compressAlgorithm", 77),
            (|h| h.flags |= 1 << 16, CorruptKind::Compression(0), "compressAlgorithm", 77),
            (
                |h| h.double_end_of_line_1 = b'\n',
                CorruptKind::EndOfLine(*b"\n \n\n"),
                "singleEndLineChar",
                73,
            ),
        ];
        for (change, kind, field, offset) in cases {
            let mut raw = header();
            change(&mut raw);
            let error = SparseHeader::parse(&raw.encode(), 1024).unwrap_err();
            assert_eq!(kind_of(&error), Some(kind));
            let Error::Corrupt { at, .. } = &error else { panic!("{error}") };
            let offset = HostOffset(1024 + offset);
            assert_eq!(*at, Location { structure: STRUCTURE, field, offset });
        }
    }
}
