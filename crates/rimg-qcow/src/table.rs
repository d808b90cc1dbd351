//! Entries of L2 tables.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::spec;

/// What an L2 entry says of its cluster. Nothing is known of offsets yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum L2Entry {
    /// See the backing file, or zeroes where there is none.
    Unallocated,
    /// The cluster lies here in the file.
    Data(u64),
    /// The cluster is compressed, to so many bytes.
    Compressed { host: u64, len_bytes: u64 },
}

impl L2Entry {
    pub(crate) fn parse(raw: u64, g: Geometry) -> Self {
        if raw == 0 {
            Self::Unallocated
        } else if raw & spec::COMPRESSED == 0 {
            Self::Data(raw)
        } else {
            let bits = g.encoded_offset_bits();
            let host = raw & low_bits(bits);
            Self::Compressed { host, len_bytes: (raw & !spec::COMPRESSED) >> bits }
        }
    }

    pub(crate) fn encode(self, g: Geometry) -> u64 {
        match self {
            Self::Unallocated => 0,
            Self::Data(host) => host,
            Self::Compressed { host, len_bytes } => {
                spec::COMPRESSED | len_bytes << g.encoded_offset_bits() | host
            }
        }
    }
}

/// The largest offset that an entry of a compressed cluster can hold.
pub(crate) fn max_encoded_offset(g: Geometry) -> u64 {
    low_bits(g.encoded_offset_bits())
}

const fn low_bits(bits: u8) -> u64 {
    (1_u64 << bits).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_went() {
        let g = Geometry::new(12, 9).unwrap();
        let compressed = L2Entry::parse(0x80a8_0000_0000_2200, g);
        assert_eq!(compressed, L2Entry::Compressed { host: 0x2200, len_bytes: 21 });
        for raw in [0, 1, 0x5000, 0x80a8_0000_0000_2200, u64::MAX] {
            assert_eq!(L2Entry::parse(raw, g).encode(g), raw);
        }
    }
}
