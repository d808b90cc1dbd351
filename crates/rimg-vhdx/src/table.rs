//! Entries of the block allocation table, to an enum and back (2.5.1).
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;

/// What a payload block is (2.5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Nothing is said of the block: its parent is to be asked, or it reads as zeroes.
    NotPresent,
    /// Its contents are nobody's business, and read as zeroes here.
    Undefined(Reserved),
    /// It reads as zeroes.
    Zero,
    /// The guest gave it back: it reads as zeroes here.
    Unmapped(Reserved),
    /// All of it lies in the file.
    FullyPresent(u64),
    /// Those sectors lie in the file that the sector bitmap says; the parent has the others.
    PartiallyPresent(u64),
}

/// A place in the file that a block may keep though it is not in use; `None` for none.
pub(crate) type Reserved = Option<u64>;

mod state {
    pub(super) const NOT_PRESENT: u64 = 0;
    pub(super) const UNDEFINED: u64 = 1;
    pub(super) const ZERO: u64 = 2;
    pub(super) const UNMAPPED: u64 = 3;
    pub(super) const FULLY_PRESENT: u64 = 6;
    pub(super) const PARTIALLY_PRESENT: u64 = 7;
    /// Bits of an entry.
    pub(super) const MASK: u64 = 7;
}

/// The bits of an entry that are an offset: whole megabytes.
const OFFSET: u64 = !0xf_ffff;

impl Payload {
    pub(crate) const fn parse(entry: u64) -> Result<Self, CorruptKind> {
        let offset = entry & OFFSET;
        let reserved = if offset == 0 { None } else { Some(offset) };
        Ok(match entry & state::MASK {
            state::NOT_PRESENT => Self::NotPresent,
            state::UNDEFINED => Self::Undefined(reserved),
            state::ZERO => Self::Zero,
            state::UNMAPPED => Self::Unmapped(reserved),
            state::FULLY_PRESENT => Self::FullyPresent(offset),
            state::PARTIALLY_PRESENT => Self::PartiallyPresent(offset),
            4 => return Err(CorruptKind::PayloadState(4)),
            _ => return Err(CorruptKind::PayloadState(5)),
        })
    }

    pub(crate) const fn encode(self) -> u64 {
        match self {
            Self::NotPresent => state::NOT_PRESENT,
            Self::Undefined(reserved) => of_reserved(reserved) | state::UNDEFINED,
            Self::Zero => state::ZERO,
            Self::Unmapped(reserved) => of_reserved(reserved) | state::UNMAPPED,
            Self::FullyPresent(offset) => offset & OFFSET | state::FULLY_PRESENT,
            Self::PartiallyPresent(offset) => offset & OFFSET | state::PARTIALLY_PRESENT,
        }
    }

    /// The place that the block has in the file, whether or not it is in use.
    pub(crate) const fn place(self) -> Option<u64> {
        match self {
            Self::NotPresent | Self::Zero => None,
            Self::Undefined(reserved) | Self::Unmapped(reserved) => reserved,
            Self::FullyPresent(offset) | Self::PartiallyPresent(offset) => Some(offset),
        }
    }
}

const fn of_reserved(reserved: Reserved) -> u64 {
    match reserved {
        Some(offset) => offset & OFFSET,
        None => 0,
    }
}

/// The entry of a sector bitmap block that lies there.
pub(crate) const fn encode_bitmap(host: u64) -> u64 {
    host & OFFSET | state::FULLY_PRESENT
}

/// Where a sector bitmap block lies, if it is there (2.5.1.2).
pub(crate) const fn parse_bitmap(entry: u64) -> Result<Option<u64>, CorruptKind> {
    match entry & state::MASK {
        state::NOT_PRESENT => Ok(None),
        state::FULLY_PRESENT => Ok(Some(entry & OFFSET)),
        1 => Err(CorruptKind::BitmapState(1)),
        2 => Err(CorruptKind::BitmapState(2)),
        3 => Err(CorruptKind::BitmapState(3)),
        4 => Err(CorruptKind::BitmapState(4)),
        5 => Err(CorruptKind::BitmapState(5)),
        _ => Err(CorruptKind::BitmapState(7)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_a_state_and_whole_megabytes() {
        for (entry, payload) in [
            (0, Payload::NotPresent),
            (1, Payload::Undefined(None)),
            (2, Payload::Zero),
            (3, Payload::Unmapped(None)),
            (0x30_0003, Payload::Unmapped(Some(3 << 20))),
            (0x30_0001, Payload::Undefined(Some(3 << 20))),
            (0x80_0006, Payload::FullyPresent(8 << 20)),
            (0x80_0007, Payload::PartiallyPresent(8 << 20)),
            (u64::MAX, Payload::PartiallyPresent(!0xf_ffff)),
        ] {
            assert_eq!(Payload::parse(entry), Ok(payload));
            // Bits that are reserved are not kept.
            assert_eq!(payload.encode(), entry & !0xf_fff8);
        }
        assert_eq!(Payload::parse(4), Err(CorruptKind::PayloadState(4)));
        assert_eq!(Payload::parse(0x50_0005), Err(CorruptKind::PayloadState(5)));
    }

    #[test]
    fn bitmaps_are_there_or_not() {
        assert_eq!(parse_bitmap(0), Ok(None));
        assert_eq!(parse_bitmap(0x40_0006), Ok(Some(4 << 20)));
        for state in [1, 2, 3, 4, 5, 7] {
            assert_eq!(parse_bitmap(state.into()), Err(CorruptKind::BitmapState(state)));
        }
    }
}
