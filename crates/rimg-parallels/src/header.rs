//! The header: the first 64 bytes of the file. The BAT follows.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod extension;

pub(crate) use extension::{Extension, Keeping};

use crate::error::{CorruptKind, FORMAT};
use crate::spec::{self, SECTOR_BYTES};
use rimg_core::{Error, Result, num};

rimg_core::on_disk! {
    /// Header.
    struct RawHeader: LittleEndian, 64 bytes {
        magic_0: u64 = 0,
        magic_1: u64 = 8,
        version: u32 = 16,
        heads: u32 = 20,
        cylinders: u32 = 24,
        tracks: u32 = 28,
        nb_bat_entries: u32 = 32,
        nb_sectors_low: u32 = 36,
        nb_sectors_high: u32 = 40,
        in_use: u32 = 44,
        data_off: u32 = 48,
        flags: u32 = 52,
        ext_off_low: u32 = 56,
        ext_off_high: u32 = 60,
    }
}

/// A header that makes sense by itself; offsets were not compared with the length of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// What BAT entries count.
    pub(crate) unit: Unit,
    heads: u32,
    cylinders: u32,
    /// Sectors in a cluster; not 0, and less than 2^22.
    cluster_sectors: u32,
    pub(crate) bat_entries: u32,
    sectors: u64,
    pub(crate) in_use: u32,
    /// In sectors, as it stands there.
    pub(crate) data_off: u32,
    pub(crate) flags: u32,
    /// In sectors; 0 for none.
    pub(crate) ext_off: u64,
}

/// What BAT entries count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Sectors,
    Clusters,
}

impl Header {
    pub(crate) const BYTES: usize = RawHeader::SIZE_BYTES;

    /// The header of a new image; `None` where clusters of this size are too many.
    pub(crate) fn new(cluster_sectors: u32, sectors: u64) -> Option<Self> {
        let cylinders = sectors / spec::SECTORS_PER_CYLINDER;
        let mut header = Self {
            unit: Unit::Clusters,
            heads: spec::HEADS,
            cylinders: u32::try_from(cylinders).unwrap_or(u32::MAX),
            cluster_sectors,
            bat_entries: 0,
            sectors: 0,
            in_use: spec::CLOSED_WITHOUT_EXTENSION,
            data_off: 0,
            flags: 0,
            ext_off: 0,
        };
        header.bat_entries = header.entries_for(sectors)?;
        header.sectors = sectors;
        header.data_off = header.default_data_off();
        Some(header)
    }

    /// Whether a file that starts so may be an image.
    pub(crate) fn is_magic(start: &[u8]) -> bool {
        let version = start.get(16..).and_then(|rest| rest.first_chunk());
        unit_of(start).is_some()
            && version.is_some_and(|version| u32::from_le_bytes(*version) == spec::VERSION)
    }

    pub(crate) fn parse(start: &[u8]) -> Result<Self> {
        let unit = unit_of(start).ok_or(Error::WrongFormat { format: FORMAT })?;
        let Some(bytes) = start.first_chunk() else {
            return Err(CorruptKind::HeaderTruncated.at("header", "magic", 0));
        };
        let raw = RawHeader::parse(bytes);
        if raw.version != spec::VERSION {
            return Err(Error::WrongFormat { format: FORMAT });
        }
        if raw.tracks == 0 || u64::from(raw.tracks) >= spec::MAX_CLUSTER_BYTES / SECTOR_BYTES {
            let kind = CorruptKind::ClusterSectors(raw.tracks);
            return Err(kind.at("header", "tracks", RawHeader::offset_of("tracks")));
        }
        if u64::from(raw.nb_bat_entries) > spec::MAX_BAT_ENTRIES {
            let kind = CorruptKind::CatalogTooLarge(raw.nb_bat_entries);
            let at = RawHeader::offset_of("nb_bat_entries");
            return Err(kind.at("header", "nb_bat_entries", at));
        }
        let sectors = match unit {
            Unit::Sectors => u64::from(raw.nb_sectors_low),
            Unit::Clusters => join(raw.nb_sectors_low, raw.nb_sectors_high),
        };
        if sectors > (1 << 63) / SECTOR_BYTES {
            let at = RawHeader::offset_of("nb_sectors_low");
            return Err(CorruptKind::DiskSize(sectors).at("header", "nb_sectors", at));
        }
        Ok(Self {
            unit,
            heads: raw.heads,
            cylinders: raw.cylinders,
            cluster_sectors: raw.tracks,
            bat_entries: raw.nb_bat_entries,
            sectors,
            in_use: raw.in_use,
            data_off: raw.data_off,
            flags: raw.flags,
            ext_off: join(raw.ext_off_low, raw.ext_off_high),
        })
    }

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let magic = match self.unit {
            Unit::Sectors => spec::MAGIC_SECTORS,
            Unit::Clusters => spec::MAGIC_CLUSTERS,
        };
        let (nb_sectors_low, nb_sectors_high) = split(self.sectors);
        let (ext_off_low, ext_off_high) = split(self.ext_off);
        let raw = RawHeader {
            version: spec::VERSION,
            heads: self.heads,
            cylinders: self.cylinders,
            tracks: self.cluster_sectors,
            nb_bat_entries: self.bat_entries,
            nb_sectors_low,
            nb_sectors_high,
            in_use: self.in_use,
            data_off: self.data_off,
            flags: self.flags,
            ext_off_low,
            ext_off_high,
            ..RawHeader::default()
        };
        let mut bytes = raw.encode();
        for (to, from) in bytes.iter_mut().zip(magic) {
            *to = from;
        }
        bytes
    }

    pub(crate) const fn size_bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR_BYTES)
    }

    /// The size of a cluster in bytes: any number of sectors.
    pub(crate) fn cluster_bytes(&self) -> u64 {
        u64::from(self.cluster_sectors).saturating_mul(SECTOR_BYTES)
    }

    /// Where a BAT entry leads, in bytes.
    pub(crate) fn host_of(&self, entry: u32) -> u64 {
        u64::from(entry).saturating_mul(self.unit_bytes())
    }

    /// The BAT entry that leads to `host`; `None` where none can.
    pub(crate) fn entry_for(&self, host: u64) -> Option<u32> {
        let is_there = host.is_multiple_of(self.unit_bytes());
        u32::try_from(host.checked_div(self.unit_bytes())?).ok().filter(|_| is_there)
    }

    pub(crate) fn unit_bytes(&self) -> u64 {
        match self.unit {
            Unit::Sectors => SECTOR_BYTES,
            Unit::Clusters => self.cluster_bytes(),
        }
    }

    /// Where the BAT ends.
    pub(crate) fn bat_end(&self) -> u64 {
        bat_end(self.bat_entries)
    }

    /// Where a BAT entry lies.
    pub(crate) fn entry_at(index: u64) -> u64 {
        num::to_u64(Self::BYTES).saturating_add(index.saturating_mul(4))
    }

    /// Where the data area starts, in bytes, if the header can be believed.
    pub(crate) fn data_start(&self) -> u64 {
        let is_good = self.data_off != 0 && self.data_off_fits();
        let data_off = if is_good { self.data_off } else { self.default_data_off() };
        u64::from(data_off).saturating_mul(SECTOR_BYTES)
    }

    /// Whether the data area starts behind the BAT, and at a cluster or later where the BAT counts
    /// clusters; where the header of the older kind says nothing, it does.
    pub(crate) fn data_off_fits(&self) -> bool {
        match (self.data_off, self.unit) {
            (0, unit) => unit == Unit::Sectors,
            (sectors, _) => sectors >= self.default_data_off(),
        }
    }

    /// Where the data area starts when nobody says otherwise, in sectors.
    pub(crate) fn default_data_off(&self) -> u32 {
        let end = self.bat_end().div_ceil(self.unit_bytes()).saturating_mul(self.unit_bytes());
        u32::try_from(end / SECTOR_BYTES).unwrap_or(u32::MAX)
    }

    /// The same image with a disk of another size; `None` where the format has none such.
    pub(crate) fn resized(&self, size_bytes: u64) -> Option<Self> {
        let sectors = size_bytes / SECTOR_BYTES;
        if !size_bytes.is_multiple_of(SECTOR_BYTES)
            || (self.unit == Unit::Sectors && u32::try_from(sectors).is_err())
        {
            return None;
        }
        Some(Self { bat_entries: self.entries_for(sectors)?, sectors, ..*self })
    }

    fn entries_for(&self, sectors: u64) -> Option<u32> {
        let entries = sectors.div_ceil(u64::from(self.cluster_sectors));
        u32::try_from(entries).ok().filter(|_| entries <= spec::MAX_BAT_ENTRIES)
    }

    /// Whether the Format Extension is that of the disk as it is.
    pub(crate) const fn has_extension(&self) -> bool {
        self.ext_off != 0 && self.in_use == spec::CLOSED
    }
}

/// Where a BAT of so many entries ends.
fn bat_end(entries: u32) -> u64 {
    Header::entry_at(entries.into())
}

fn unit_of(start: &[u8]) -> Option<Unit> {
    match *start.first_chunk()? {
        spec::MAGIC_SECTORS => Some(Unit::Sectors),
        spec::MAGIC_CLUSTERS => Some(Unit::Clusters),
        _ => None,
    }
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[expect(clippy::as_conversions, reason = "both halves are wanted")]
const fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    #[test]
    fn a_new_header_is_that_of_qemu() {
        let header = Header::new(128, 20480).unwrap();
        let mut expected = b"WithouFreSpacExt\x02\0\0\0\x10\0\0\0\x28\0\0\0\x80\0\0\0".to_vec();
        expected.extend_from_slice(b"\xa0\0\0\0\0\x50\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0\0\0\0");
        expected.extend_from_slice(&[0; 8]);
        assert_eq!(header.encode()[..], expected);
        assert_eq!(Header::parse(&expected).unwrap(), header);
        assert_eq!((header.data_start(), header.size_bytes()), (65536, 10 << 20));
    }

    #[test]
    fn entries_count_sectors_or_clusters() {
        let mut header = Header::new(63, 63).unwrap();
        assert_eq!(header.host_of(2), 2 * 63 * 512);
        assert_eq!((header.entry_for(63 * 512), header.entry_for(512)), (Some(1), None));
        header.unit = Unit::Sectors;
        header.data_off = 0;
        assert_eq!((header.host_of(2), header.entry_for(1536)), (1024, Some(3)));
        assert_eq!(header.data_start(), 512);
    }

    #[test]
    fn each_wrong_field_is_named() {
        let bytes = Header::new(128, 20480).unwrap().encode();
        let patched = |at: usize, with: &[u8]| {
            let mut bytes = bytes;
            bytes[at..at + with.len()].copy_from_slice(with);
            Header::parse(&bytes).unwrap_err()
        };
        for (at, with, expected) in [
            (28, &[0][..], CorruptKind::ClusterSectors(0)),
            (30, &[0x40], CorruptKind::ClusterSectors(0x40_0080)),
            (35, &[0x20], CorruptKind::CatalogTooLarge(0x2000_00a0)),
            (43, &[0x80], CorruptKind::DiskSize(0x8000_0000_0000_5000)),
        ] {
            assert_eq!(kind_of(&patched(at, with)), Some(&expected), "{at}");
        }
        for (at, with) in [(0, &b"w"[..]), (16, &[3])] {
            assert!(matches!(patched(at, with), Error::WrongFormat { format: "parallels" }));
        }
        let short = Header::parse(&bytes[..60]).unwrap_err();
        assert_eq!(kind_of(&short), Some(&CorruptKind::HeaderTruncated));
    }
}
