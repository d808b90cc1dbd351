//! Entries of L1 and L2 tables.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

/// What an L2 entry says of its cluster (Data cluster offsets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum L2Entry {
    /// See the backing file, or zeroes where there is none.
    Unallocated,
    /// Zeroes, whatever the backing file holds.
    Zero,
    /// The cluster lies here in the file; nothing is known of the offset yet.
    Data(u64),
}

impl L2Entry {
    pub(crate) const fn parse(raw: u64) -> Self {
        match raw {
            0 => Self::Unallocated,
            1 => Self::Zero,
            host => Self::Data(host),
        }
    }

    pub(crate) const fn encode(self) -> u64 {
        match self {
            Self::Unallocated => 0,
            Self::Zero => 1,
            Self::Data(host) => host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_went() {
        for raw in [0, 1, 2, 0x5_0000, u64::MAX] {
            assert_eq!(L2Entry::parse(raw).encode(), raw);
        }
        assert_eq!(L2Entry::parse(1), L2Entry::Zero);
    }
}
