//! Conversions of numbers in the encoder's inner loops.
#![expect(clippy::as_conversions, reason = "each says below what it drops, if anything")]

/// The lowest 16 bits.
#[inline(always)]
pub(super) const fn low16(n: usize) -> u16 {
    n as u16
}

/// The lowest 32 bits.
#[inline(always)]
pub(super) const fn low32(n: u64) -> u32 {
    n as u32
}

/// A count or an index within a cluster, which are far below 32 bits.
#[inline(always)]
pub(super) const fn narrow(n: usize) -> u32 {
    debug_assert!(n <= u32::MAX as usize);
    n as u32
}

/// An index of 32 bits: no target of ours has narrower ones.
#[inline(always)]
pub(super) const fn index(n: u32) -> usize {
    n as usize
}

/// Bytes or bits, for sums.
#[inline(always)]
pub(super) const fn wide(n: usize) -> u64 {
    n as u64
}

/// A code length or a symbol of the code length alphabet, at most 255.
#[inline(always)]
pub(super) const fn small(n: usize) -> u8 {
    debug_assert!(n <= u8::MAX as usize);
    n as u8
}
