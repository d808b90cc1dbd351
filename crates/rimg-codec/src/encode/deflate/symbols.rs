//! The alphabets (RFC 1951 section 3.2.5).

use super::num::{index, narrow, small};

/// Shortest match.
pub(super) const MIN_LENGTH: usize = 3;
/// Longest match.
pub(super) const MAX_LENGTH: usize = 258;

/// Literals, the end of the block and lengths.
pub(super) const LITERALS_AND_LENGTHS: usize = 286;
pub(super) const DISTANCES: usize = 30;
pub(super) const END_OF_BLOCK: usize = 256;
/// The symbol of the shortest match.
pub(super) const FIRST_LENGTH: usize = 257;

/// Of each length from [`MIN_LENGTH`]: its symbol less [`FIRST_LENGTH`].
pub(super) const LENGTH_SLOTS: [u8; 256] = length_slots();

/// Of each length symbol: the shortest length, less [`MIN_LENGTH`].
pub(super) const LENGTH_BASES: [u8; 29] = length_bases();

/// Extra bits of a length symbol.
pub(super) const fn length_extra_bits(slot: usize) -> u32 {
    match slot {
        0..=7 | 28 => 0,
        _ => narrow(slot) / 4 - 1,
    }
}

/// Extra bits of a distance symbol.
pub(super) const fn distance_extra_bits(symbol: usize) -> u32 {
    match symbol {
        0..=1 => 0,
        _ => narrow(symbol) / 2 - 1,
    }
}

/// The symbol of a distance, which is not 0.
///
/// Two symbols share each power of two, so the symbol is twice the logarithm and the bit below
/// the highest one.
#[inline(always)]
pub(super) fn distance_symbol(distance: u32) -> usize {
    let rest = distance.wrapping_sub(1);
    if rest < 2 {
        return index(rest);
    }
    let log = 31 - rest.leading_zeros();
    index(2 * log + (rest >> (log - 1) & 1))
}

const fn length_bases() -> [u8; 29] {
    let mut bases = [0; 29];
    let mut slot = 1;
    while slot < 28 {
        bases[slot] = bases[slot - 1] + (1 << length_extra_bits(slot - 1));
        slot += 1;
    }
    // The longest match has a symbol of its own, in the middle of where 27 would reach.
    bases[28] = 255;
    bases
}

const fn length_slots() -> [u8; 256] {
    let bases = length_bases();
    let mut slots = [0; 256];
    let mut slot = 0;
    let mut length = 0;
    while length < 256 {
        while slot + 1 < 29 && small(length) >= bases[slot + 1] {
            slot += 1;
        }
        slots[length] = small(slot);
        length += 1;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_those_of_the_rfc() {
        let length_symbol = |length: usize| FIRST_LENGTH + usize::from(LENGTH_SLOTS[length - 3]);
        for (length, symbol) in [
            (3, 257),
            (10, 264),
            (11, 265),
            (12, 265),
            (13, 266),
            (130, 280),
            (131, 281),
            (257, 284),
            (258, 285),
        ] {
            assert_eq!(length_symbol(length), symbol, "length {length}");
        }
        for (distance, symbol) in [
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 3),
            (5, 4),
            (6, 4),
            (7, 5),
            (4096, 23),
            (4097, 24),
            (32768, 29),
        ] {
            assert_eq!(distance_symbol(distance), symbol, "distance {distance}");
        }
        assert_eq!((length_extra_bits(8), length_extra_bits(27), length_extra_bits(28)), (1, 5, 0));
        assert_eq!((distance_extra_bits(4), distance_extra_bits(29)), (1, 13));
    }
}
