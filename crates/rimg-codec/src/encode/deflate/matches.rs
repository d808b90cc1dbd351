//! Where bytes repeat.
//!
//! Positions are kept as their lowest 16 bits. A window is far smaller than what those count, so
//! the distance to a position follows from a wrapping subtraction; should an entry be so old that
//! the subtraction wraps, the distance is merely that of other bytes, and bytes are always
//! compared. Nothing has to be moved when a cluster is longer than 64 KiB.

use super::symbols::{MAX_LENGTH, MIN_LENGTH};

/// Bytes that have to follow a position for it to be searched or inserted.
pub(super) const LOOKAHEAD: usize = 8;

/// A multiplier that spreads bytes over the high bits (the golden ratio).
const SPREAD: u32 = 0x9e37_79b1;

/// log2 of the entries by four bytes.
const BITS4: u32 = 13;
/// log2 of the entries by three bytes.
const BITS3: u32 = 12;

/// How far to search.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Earlier positions to look at.
    pub(super) depth: u32,
    /// A length that is good enough to stop at.
    pub(super) nice: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Match {
    pub(super) length: usize,
    pub(super) distance: usize,
}

/// Tables of the positions before the current one.
#[derive(Debug)]
pub(super) struct Matches<const WINDOW: usize> {
    /// Of each hash of four bytes, the last position.
    last4: Box<[u16; 1 << BITS4]>,
    /// Of each hash of three bytes, the last position.
    last3: Box<[u16; 1 << BITS3]>,
    /// Of each position, modulo the window, the one before it with the same hash of four bytes.
    before: Box<[u16; WINDOW]>,
}

impl<const WINDOW: usize> Matches<WINDOW> {
    pub(super) fn new() -> Self {
        const { assert!(WINDOW.is_power_of_two() && WINDOW <= 1 << 15) };
        Self {
            last4: Box::new([0; 1 << BITS4]),
            last3: Box::new([0; 1 << BITS3]),
            before: Box::new([0; WINDOW]),
        }
    }

    /// Forgets all positions.
    pub(super) fn restart(&mut self) {
        // `before` is only read at positions which were inserted since.
        self.last4.fill(0);
        self.last3.fill(0);
    }

    /// Inserts `at`, which [`LOOKAHEAD`] bytes follow.
    #[inline(always)]
    pub(super) fn insert(&mut self, bytes: &[u8], at: usize) {
        let four = load32(bytes, at);
        self.last3[hash3(four)] = low16(at);
        let last = &mut self.last4[hash4(four)];
        self.before[at % WINDOW] = *last;
        *last = low16(at);
    }

    /// Inserts `at`, which [`LOOKAHEAD`] bytes follow, and returns the longest match there that
    /// is longer than `shorter`.
    #[inline(always)]
    pub(super) fn longest(
        &mut self,
        bytes: &[u8],
        at: usize,
        shorter: usize,
        effort: Effort,
    ) -> Option<Match> {
        let four = load32(bytes, at);
        let near3 = std::mem::replace(&mut self.last3[hash3(four)], low16(at));
        let mut candidate = std::mem::replace(&mut self.last4[hash4(four)], low16(at));
        self.before[at % WINDOW] = candidate;

        let farthest = at.min(WINDOW);
        let longest = (bytes.len() - at).min(MAX_LENGTH);
        let mut best = None;
        let mut length = shorter;
        if length < MIN_LENGTH {
            let distance = back(at, near3);
            if distance.wrapping_sub(1) < farthest
                && (load32(bytes, at - distance) ^ four) << 8 == 0
            {
                length = MIN_LENGTH;
                best = Some(Match { length, distance });
            }
        }
        let mut nearer = 0;
        for _ in 0..effort.depth {
            let distance = back(at, candidate);
            if distance <= nearer || distance > farthest || length >= longest {
                break;
            }
            let from = at - distance;
            let tail = length.max(MIN_LENGTH) - MIN_LENGTH;
            if load32(bytes, from + tail) == load32(bytes, at + tail)
                && load32(bytes, from) == four
            {
                let found = common_length(bytes, from, at, longest);
                if found > length {
                    length = found;
                    best = Some(Match { length, distance });
                    if length >= effort.nice {
                        break;
                    }
                }
            }
            nearer = distance;
            candidate = self.before[from % WINDOW];
        }
        best
    }
}

/// Distance from `at` back to a position of which the lowest 16 bits are kept.
#[inline(always)]
fn back(at: usize, kept: u16) -> usize {
    usize::from(low16(at).wrapping_sub(kept))
}

/// Length of what `from` and `at` have in common, given that it is at least four.
#[inline(always)]
fn common_length(bytes: &[u8], from: usize, at: usize, longest: usize) -> usize {
    let here = &bytes[at..][..longest];
    let there = &bytes[from..][..longest];
    let mut length = 4;
    while let (Some(a), Some(b)) = (
        here.get(length..).and_then(<[u8]>::first_chunk),
        there.get(length..).and_then(<[u8]>::first_chunk),
    ) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return length + (differ.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    while length < longest && here[length] == there[length] {
        length += 1;
    }
    length
}

#[inline(always)]
fn hash4(four: u32) -> usize {
    (four.wrapping_mul(SPREAD) >> (32 - BITS4)) as usize
}

#[inline(always)]
fn hash3(four: u32) -> usize {
    ((four << 8).wrapping_mul(SPREAD) >> (32 - BITS3)) as usize
}

#[inline(always)]
fn load32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[inline(always)]
fn low16(at: usize) -> u16 {
    at as u16
}
