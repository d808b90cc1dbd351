//! Markers of streams: what the next sectors are.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use crate::spec::{SECTOR_BYTES, marker};
use rimg_core::{Result, on_disk};

on_disk! {
    /// A marker: of metadata where `size` is 0, and of a grain otherwise, whose bytes then begin
    /// at offset 12.
    pub(crate) struct Marker: LittleEndian, 512 bytes {
        /// Sectors of metadata that follow, or the guest's sector that the grain is for.
        value: u64 = 0,
        /// Bytes of compressed data.
        size: u32 = 8,
        /// What the metadata is.
        kind: u32 = 12,
    }
}

/// What stands before a compressed grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GrainMarker {
    /// The guest's sector that the grain is for.
    pub(crate) sector: u64,
    /// Bytes of compressed data.
    pub(crate) size: u32,
}

impl GrainMarker {
    pub(crate) fn parse(bytes: &[u8; 12]) -> Self {
        let mut sector = [0; 8];
        let mut size = [0; 4];
        let (first, second) = bytes.split_at(sector.len());
        sector.copy_from_slice(first);
        size.copy_from_slice(second);
        Self { sector: u64::from_le_bytes(sector), size: u32::from_le_bytes(size) }
    }

    pub(crate) fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let (first, second) = bytes.split_at_mut(8);
        first.copy_from_slice(&self.sector.to_le_bytes());
        second.copy_from_slice(&self.size.to_le_bytes());
        bytes
    }
}

impl Marker {
    /// Before `bytes` of metadata.
    pub(crate) const fn of_metadata(kind: u32, bytes: u64) -> Self {
        Self { value: bytes.div_ceil(SECTOR_BYTES), size: 0, kind }
    }

    /// Refuses everything but the marker of so many sectors of one kind of metadata; `at` is where
    /// it lies.
    pub(crate) fn expect(
        &self,
        kind: u32,
        sectors: u64,
        name: &'static str,
        at: u64,
    ) -> Result<()> {
        if (self.value, self.size, self.kind) == (sectors, 0, kind) {
            return Ok(());
        }
        Err(CorruptKind::Marker(name).at("marker", "type", at.saturating_add(12)))
    }
}

/// The last marker.
pub(crate) const END_OF_STREAM: Marker = Marker { value: 0, size: 0, kind: marker::END_OF_STREAM };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    #[test]
    fn a_grain_marker_survives() {
        let marker = GrainMarker { sector: 0x80, size: 0x0102 };
        assert_eq!(marker.encode(), [0x80, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0]);
        assert_eq!(GrainMarker::parse(&marker.encode()), marker);
    }

    #[test]
    fn another_marker_is_refused() {
        let footer = Marker::of_metadata(marker::FOOTER, 512);
        footer.expect(marker::FOOTER, 1, "a footer", 0).unwrap();
        for wrong in [
            Marker { size: 1, ..footer },
            Marker { value: 2, ..footer },
            Marker { kind: 1, ..footer },
        ] {
            let error = wrong.expect(marker::FOOTER, 1, "a footer", 0).unwrap_err();
            assert_eq!(kind_of(&error), Some(&CorruptKind::Marker("a footer")));
        }
    }
}
