//! Number conversions whose safety is argued once, here.

use crate::{Error, Result};

/// A length in memory as a `u64`.
#[must_use]
#[expect(clippy::as_conversions, reason = "no platform has a usize wider than 64 bits")]
pub const fn to_u64(n: usize) -> u64 {
    n as u64
}

/// A `u64` as a length in memory.
///
/// # Errors
/// [`Error::Limit`] where the address space is smaller.
pub fn to_usize(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::Limit {
        what: "length in memory",
        needed: n,
        limit: to_u64(usize::MAX),
    })
}

/// The largest multiple of `align` (a power of two) that is at most `n`.
#[must_use]
pub const fn align_down(n: u64, align: u64) -> u64 {
    n & !(align.wrapping_sub(1))
}

/// The smallest multiple of `align` (a power of two) that is at least `n`, or `None` past the end
/// of the 64-bit space.
#[must_use]
pub const fn align_up(n: u64, align: u64) -> Option<u64> {
    match n.checked_add(align.wrapping_sub(1)) {
        Some(sum) => Some(align_down(sum, align)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligning_up_does_not_wrap() {
        assert_eq!(align_up(u64::MAX, 512), None);
        assert_eq!(align_up(513, 512), Some(1024));
        assert_eq!(align_up(512, 512), Some(512));
        assert_eq!(align_down(1023, 512), 512);
    }
}
