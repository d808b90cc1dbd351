//! Geometry, and what a disk's size has to do with it.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::spec::SECTOR_BYTES;

/// Cylinders, heads, and sectors per track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) cylinders: u16,
    pub(crate) heads: u8,
    pub(crate) sectors: u8,
}

impl Geometry {
    /// The largest there is: it says that the disk is at least so large.
    pub(crate) const MAX: Self = Self { cylinders: 65_535, heads: 16, sectors: 255 };

    /// The geometry of a disk of so many sectors, which holds no more than them ("Appendix: CHS
    /// Calculation").
    pub(crate) fn for_sectors(sectors: u64) -> Self {
        let total = u32::try_from(sectors).unwrap_or(u32::MAX).min(MAX_SECTORS);
        let (mut per_track, mut heads);
        let mut tracks;
        if total > 65_535 * 16 * 63 {
            (per_track, heads) = (255, 16);
            tracks = total / 255;
        } else {
            per_track = 17;
            tracks = total / 17;
            heads = tracks.saturating_add(1023) / 1024;
            heads = heads.max(4);
            if tracks >= heads.saturating_mul(1024) || heads > 16 {
                (per_track, heads) = (31, 16);
                tracks = total / 31;
            }
            if tracks >= heads.saturating_mul(1024) {
                (per_track, heads) = (63, 16);
                tracks = total / 63;
            }
        }
        let cylinders = tracks.checked_div(heads).unwrap_or(0);
        Self {
            // None is larger than that of `MAX`.
            cylinders: u16::try_from(cylinders).unwrap_or(u16::MAX),
            heads: u8::try_from(heads).unwrap_or(u8::MAX),
            sectors: u8::try_from(per_track).unwrap_or(u8::MAX),
        }
    }

    /// The smallest geometry that holds a disk of so many sectors; `None` when there is none.
    pub(crate) fn holding(sectors: u64) -> Option<Self> {
        if sectors == 0 {
            return Some(Self { cylinders: 0, heads: 0, sectors: 0 });
        }
        if sectors > MAX_SECTORS.into() {
            return None;
        }
        // A cylinder has fewer sectors than this; one more holds what the others do not.
        (0..=4080_u64)
            .map(|more| Self::for_sectors(sectors.saturating_add(more)))
            .find(|geometry| geometry.total_sectors() >= sectors)
    }

    /// How many sectors it has.
    pub(crate) fn total_sectors(self) -> u64 {
        let track = u64::from(self.sectors).saturating_mul(self.heads.into());
        track.saturating_mul(self.cylinders.into())
    }

    /// How many bytes it has.
    pub(crate) fn total_bytes(self) -> u64 {
        self.total_sectors().saturating_mul(SECTOR_BYTES)
    }

    pub(crate) fn parse(raw: u32) -> Self {
        let [high, low, heads, sectors] = raw.to_be_bytes();
        Self { cylinders: u16::from_be_bytes([high, low]), heads, sectors }
    }

    pub(crate) fn encode(self) -> u32 {
        let [high, low] = self.cylinders.to_be_bytes();
        u32::from_be_bytes([high, low, self.heads, self.sectors])
    }
}

/// What the largest geometry has.
const MAX_SECTORS: u32 = 65_535 * 16 * 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_as_qemu_img_does() {
        // What qemu-img 10.0.2 makes of these sizes.
        for (size, rounded, raw) in [
            (0, 0, 0),
            (512, 34_816, 0x0001_0411),
            (1_000_448, 1_009_664, 0x001d_0411),
            (3_145_728, 3_168_256, 0x005b_0411),
            (10 << 20, 10_514_432, 0x012e_0411),
            (100 << 20, 104_865_792, 0x03ec_0c11),
            (1 << 30, 1_073_995_776, 0x0821_103f),
            (127 << 30, 136_365_219_840, 0xfeff_10ff_u32),
        ] {
            let geometry = Geometry::holding(size / 512).unwrap();
            assert_eq!((geometry.total_bytes(), geometry.encode()), (rounded, raw), "{size}");
            assert_eq!(Geometry::parse(raw), geometry);
        }
        assert_eq!(Geometry::holding((128 << 30) / 512), None);
    }

    #[test]
    fn a_geometry_holds_what_was_asked_for_and_hardly_more() {
        for sectors in (0..300_000).chain((1..1000).map(|n| n * 267_000 + 13)) {
            let geometry = Geometry::holding(sectors).unwrap();
            let total = geometry.total_sectors();
            assert!(total >= sectors && total < sectors + 4081, "{sectors}: {geometry:?}");
            assert!(Geometry::for_sectors(sectors).total_sectors() <= sectors);
        }
    }
}
