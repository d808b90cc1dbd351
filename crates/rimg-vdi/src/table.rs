//! Entries of the block map.

use crate::spec::entry;

/// What the block map says of a block of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing: what is below, or zeroes.
    Free,
    /// Zeroes, whatever is below.
    Discarded,
    /// It is this block of the file.
    Block(u32),
}

impl Entry {
    pub(crate) const fn parse(raw: u32) -> Self {
        match raw {
            entry::FREE => Self::Free,
            entry::DISCARDED => Self::Discarded,
            index => Self::Block(index),
        }
    }

    pub(crate) const fn encode(self) -> u32 {
        match self {
            Self::Free => entry::FREE,
            Self::Discarded => entry::DISCARDED,
            Self::Block(index) => index,
        }
    }
}
