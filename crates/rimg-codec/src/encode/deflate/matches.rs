//! Where bytes repeat.
//!
//! Positions are kept as their lowest 16 bits. A window is smaller than what those count, so the
//! distance back to a position follows from a wrapping subtraction. Should an entry be so old that
//! this wraps, the distance is merely one to other bytes, and bytes are always compared. Nothing
//! has to be moved when a cluster is longer than 64 KiB.

use super::num::{index, low16, low32};
use super::symbols::MAX_LENGTH;

/// Bytes that have to follow a position for it to be searched or inserted.
pub(super) const LOOKAHEAD: usize = 8;

/// A multiplier that spreads bytes over the high bits (the golden ratio).
const SPREAD: u32 = 0x9e37_79b1;

/// log2 of the entries by three bytes.
const BITS3: u32 = 12;

/// Bytes that occurred before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Match {
    pub(super) length: usize,
    pub(super) distance: usize,
}

/// Tables of the positions before the current one.
///
/// With a window of 4 KiB they take 24 KiB, so that they stay in the first-level cache.
#[derive(Debug)]
pub(super) struct Matches<const WINDOW: usize, const BUCKETS: usize> {
    /// Of each hash of four bytes, the last position in the low half and the one before it.
    last4: Box<[u32; BUCKETS]>,
    /// Of each hash of three bytes, the last position that was searched.
    last3: Box<[u16; 1 << BITS3]>,
}

impl<const WINDOW: usize, const BUCKETS: usize> Matches<WINDOW, BUCKETS> {
    pub(super) fn new() -> Self {
        const { assert!(WINDOW <= 1 << 15 && BUCKETS.is_power_of_two()) };
        Self { last4: Box::new([0; BUCKETS]), last3: Box::new([0; 1 << BITS3]) }
    }

    /// Forgets all positions.
    pub(super) fn restart(&mut self) {
        self.last4.fill(0);
        self.last3.fill(0);
    }

    /// Inserts `at`, which [`LOOKAHEAD`] bytes follow.
    #[inline(always)]
    pub(super) fn insert(&mut self, bytes: &[u8], at: usize) {
        let bucket = &mut self.last4[Self::hash4(low32(load64(bytes, at)))];
        *bucket = *bucket << 16 | u32::from(low16(at));
    }

    /// Inserts `at`, which [`LOOKAHEAD`] bytes follow, and returns the longest match found there.
    ///
    /// When its length is below the shortest of the format there is none.
    #[inline(always)]
    pub(super) fn longest(&mut self, bytes: &[u8], at: usize) -> Match {
        let here = load64(bytes, at);
        let near3 = std::mem::replace(&mut self.last3[hash3(low32(here))], low16(at));
        let bucket = &mut self.last4[Self::hash4(low32(here))];
        let [first, second] = [*bucket & 0xffff, *bucket >> 16].map(|kept| low16(index(kept)));
        *bucket = *bucket << 16 | u32::from(low16(at));

        let farthest = at.min(WINDOW);
        let [first, second, near3] = [first, second, near3]
            .map(|candidate| Attempt::new(bytes, at, here, candidate, farthest));
        let best = first.max(second).max(near3);
        let mut found = Match { length: best.common(), distance: best.distance() };
        if found.length == LOOKAHEAD {
            let longest = (bytes.len() - at).min(MAX_LENGTH);
            found.length = common_length(bytes, at - found.distance, at, longest);
            if second.common() == LOOKAHEAD && found.length < longest {
                let distance = second.distance();
                let length = common_length(bytes, at - distance, at, longest);
                if length > found.length {
                    found = Match { length, distance };
                }
            }
        }
        found
    }

    #[inline(always)]
    fn hash4(four: u32) -> usize {
        index(four.wrapping_mul(SPREAD) >> (32 - BUCKETS.ilog2()))
    }
}

#[inline(always)]
fn hash3(four: u32) -> usize {
    index((four << 8).wrapping_mul(SPREAD) >> (32 - BITS3))
}

/// What a candidate is worth: the bytes it has in common, and among equals how near it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Attempt(u32);

impl Attempt {
    #[inline(always)]
    fn new(bytes: &[u8], at: usize, here: u64, candidate: u16, farthest: usize) -> Self {
        let distance = low16(at).wrapping_sub(candidate);
        // No branches: whether a candidate is any good cannot be predicted.
        let from = at.saturating_sub(usize::from(distance));
        let differ = load64(bytes, from) ^ here;
        let common = differ.trailing_zeros() / 8;
        let valid = usize::from(distance).wrapping_sub(1) < farthest;
        let score = common << 16 | u32::from(!distance);
        Self(score & u32::from(valid).wrapping_neg())
    }

    #[inline(always)]
    fn common(self) -> usize {
        index(self.0 >> 16)
    }

    #[inline(always)]
    fn distance(self) -> usize {
        usize::from(!low16(index(self.0)))
    }
}

/// Length of what `from` and `at` have in common, given that it is [`LOOKAHEAD`] or more.
#[inline(always)]
fn common_length(bytes: &[u8], from: usize, at: usize, longest: usize) -> usize {
    let here = &bytes[at..][..longest];
    let there = &bytes[from..][..longest];
    let mut length = LOOKAHEAD;
    while let (Some(a), Some(b)) = (
        here.get(length..).and_then(<[u8]>::first_chunk),
        there.get(length..).and_then(<[u8]>::first_chunk),
    ) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return length + index(differ.trailing_zeros() / 8);
        }
        length += size_of::<u64>();
    }
    while length < longest && here[length] == there[length] {
        length += 1;
    }
    length
}

#[inline(always)]
fn load64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a range of eight bytes"))
}
