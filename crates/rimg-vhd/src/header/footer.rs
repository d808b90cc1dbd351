//! The footer ("Hard Disk Footer Format"), which also stands at the start of a disk that grows.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::checksum;
use crate::address::Geometry;
use crate::error::{CorruptKind, FORMAT};
use crate::spec::{self, disk_type};
use rimg_core::{Error, Result, Uuid, num, on_disk};

on_disk! {
    /// All fields. The UUID comes in halves.
    struct RawFooter: BigEndian, 512 bytes {
        cookie: u64 = 0,
        features: u32 = 8,
        version: u32 = 12,
        data_offset: u64 = 16,
        timestamp: u32 = 24,
        creator_app: u32 = 28,
        creator_version: u32 = 32,
        creator_host_os: u32 = 36,
        original_size: u64 = 40,
        current_size: u64 = 48,
        geometry: u32 = 56,
        disk_type: u32 = 60,
        checksum: u32 = 64,
        uuid_1: u64 = 68,
        uuid_2: u64 = 76,
        saved_state: u8 = 84,
    }
}

/// What kind of disk it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskType {
    /// The disk's bytes, and then the footer.
    Fixed,
    /// Blocks take space when they are written.
    Dynamic,
    /// The same over a parent.
    Differencing,
}

/// A footer whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    raw: RawFooter,
    pub(crate) disk_type: DiskType,
}

const CHECKSUM: usize = 64;

impl Footer {
    /// Whether a footer could begin here.
    pub(crate) fn has_cookie(bytes: &[u8]) -> bool {
        bytes.starts_with(&spec::FOOTER_COOKIE.to_be_bytes())
    }

    /// Reads the footer at `offset` of the file.
    pub(crate) fn parse(bytes: &[u8; RawFooter::SIZE_BYTES], offset: u64) -> Result<Self> {
        if !Self::has_cookie(bytes) {
            return Err(Error::WrongFormat { format: FORMAT });
        }
        let raw = RawFooter::parse(bytes);
        let at = |field| offset.saturating_add(field);
        let wanted = checksum(bytes, CHECKSUM);
        if raw.checksum != wanted {
            let kind = CorruptKind::Checksum { found: raw.checksum, wanted };
            return Err(kind.at("footer", "checksum", at(RawFooter::offset_of("checksum"))));
        }
        if raw.version >> 16 != spec::VERSION >> 16 {
            let kind = CorruptKind::Version(raw.version);
            return Err(kind.at("footer", "version", at(RawFooter::offset_of("version"))));
        }
        let disk_type = match raw.disk_type {
            disk_type::FIXED => DiskType::Fixed,
            disk_type::DYNAMIC => DiskType::Dynamic,
            disk_type::DIFFERENCING => DiskType::Differencing,
            other => {
                let offset = at(RawFooter::offset_of("disk_type"));
                return Err(CorruptKind::DiskType(other).at("footer", "disk_type", offset));
            }
        };
        Ok(Self { raw, disk_type })
    }

    /// The footer of a new image.
    pub(crate) fn new(disk_type: DiskType, uuid: Uuid, timestamp: u32) -> Self {
        let [uuid_1, uuid_2] = halves(uuid);
        let raw = RawFooter {
            cookie: spec::FOOTER_COOKIE,
            features: spec::FEATURES,
            version: spec::VERSION,
            data_offset: match disk_type {
                DiskType::Fixed => spec::NOWHERE,
                DiskType::Dynamic | DiskType::Differencing => spec::FOOTER_BYTES,
            },
            timestamp,
            creator_version: spec::CREATOR_VERSION,
            creator_host_os: spec::CREATOR_HOST_OS,
            disk_type: match disk_type {
                DiskType::Fixed => disk_type::FIXED,
                DiskType::Dynamic => disk_type::DYNAMIC,
                DiskType::Differencing => disk_type::DIFFERENCING,
            },
            uuid_1,
            uuid_2,
            ..RawFooter::default()
        };
        Self { raw, disk_type }
    }

    /// Of a new disk of so many bytes, which are the whole truth, or those of its geometry.
    pub(crate) fn with_size(mut self, size_bytes: u64, geometry: Option<Geometry>) -> Self {
        self.raw.original_size = size_bytes;
        self.raw.current_size = size_bytes;
        let creator = if geometry.is_some() { spec::CREATOR_GEOMETRY } else { spec::CREATOR_SIZE };
        self.raw.creator_app = u32::from_be_bytes(creator);
        self.raw.geometry = geometry.unwrap_or(Geometry::MAX).encode();
        self
    }

    /// Of the same disk with another size, whole sectors.
    pub(crate) fn resized(mut self, size_bytes: u64) -> Self {
        let sectors = num::align_down(size_bytes, spec::SECTOR_BYTES) / spec::SECTOR_BYTES;
        let geometry = Geometry::holding(sectors).unwrap_or(Geometry::MAX);
        self.raw.current_size = size_bytes;
        self.raw.geometry = geometry.encode();
        if self.size_bytes(false) != size_bytes {
            // No geometry says so: the size has to.
            self.raw.creator_app = u32::from_be_bytes(spec::CREATOR_SIZE);
            self.raw.geometry = Geometry::MAX.encode();
        }
        self
    }

    /// The size of the disk in bytes, whole sectors: that of the geometry for images of Virtual PC
    /// and older ones of QEMU, the one in the footer for those of others, and for disks that are
    /// too large for a geometry.
    ///
    /// With `by_size`, the one in the footer for all.
    pub(crate) fn size_bytes(&self, by_size: bool) -> u64 {
        let geometry = self.geometry();
        let creator = self.raw.creator_app.to_be_bytes();
        if !by_size && spec::GEOMETRY_CREATORS.contains(&creator) && geometry != Geometry::MAX {
            geometry.total_bytes()
        } else {
            num::align_down(self.raw.current_size, spec::SECTOR_BYTES)
        }
    }

    /// The size of the disk by its geometry.
    pub(crate) fn geometry(&self) -> Geometry {
        Geometry::parse(self.raw.geometry)
    }

    /// Where the dynamic disk header lies.
    pub(crate) fn data_offset(&self) -> u64 {
        self.raw.data_offset
    }

    /// Seconds since the start of the year 2000.
    pub(crate) fn timestamp(&self) -> u32 {
        self.raw.timestamp
    }

    pub(crate) fn uuid(&self) -> Uuid {
        let both = u128::from(self.raw.uuid_1).wrapping_shl(64) | u128::from(self.raw.uuid_2);
        Uuid(both.to_be_bytes())
    }

    /// The bytes, with their checksum. What the specification reserves is zeroes.
    pub(crate) fn encode(&self) -> [u8; RawFooter::SIZE_BYTES] {
        let sum = checksum(&self.raw.encode(), CHECKSUM);
        RawFooter { checksum: sum, ..self.raw }.encode()
    }
}

fn halves(uuid: Uuid) -> [u64; 2] {
    let (words, _) = uuid.0.as_chunks::<8>();
    let half = |nth: usize| words.get(nth).map_or(0, |word| u64::from_be_bytes(*word));
    [half(0), half(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = Uuid(*b"0123456789abcdef");

    fn footer() -> Footer {
        Footer::new(DiskType::Dynamic, UUID, 7)
            .with_size(10_514_432, Some(Geometry::parse(0x012e_0411)))
    }

    #[test]
    fn a_footer_goes_both_ways_and_its_checksum_guards_it() {
        let bytes = footer().encode();
        let parsed = Footer::parse(&bytes, 0).unwrap();
        assert_eq!(parsed.encode(), bytes);
        assert_eq!((parsed.uuid(), parsed.timestamp()), (UUID, 7));
        assert_eq!(&bytes[28..32], b"qemu");
        for at in 0..512 {
            let mut wrong = bytes;
            wrong[at] ^= 0x40;
            assert!(Footer::parse(&wrong, 0).is_err(), "byte {at}");
        }
    }

    #[test]
    fn who_made_it_decides_which_size_counts() {
        let mut footer = footer();
        footer.raw.current_size = 10 << 20;
        for (creator, size) in [
            (b"qemu", 10_514_432),
            (b"vpc ", 10_514_432),
            (b"qem2", 10 << 20),
            (b"win ", 10 << 20),
            (b"tap\0", 10 << 20),
        ] {
            footer.raw.creator_app = u32::from_be_bytes(*creator);
            assert_eq!(footer.size_bytes(false), size);
            assert_eq!(footer.size_bytes(true), 10 << 20);
        }
        footer.raw.creator_app = u32::from_be_bytes(*b"vpc ");
        footer.raw.geometry = Geometry::MAX.encode();
        assert_eq!(footer.size_bytes(false), 10 << 20);
    }

    #[test]
    fn any_size_can_be_said() {
        let larger = footer().resized(20 << 20);
        assert_eq!(larger.size_bytes(false), 20 << 20);
        assert_eq!(&larger.encode()[28..32], b"qem2");
        let by_geometry = footer().resized(3_168_256);
        assert_eq!(by_geometry.size_bytes(false), 3_168_256);
        assert_eq!(&by_geometry.encode()[28..32], b"qemu");
    }
}
