//! Bits in bytes as the file has them: bit 0 of the first byte is the first (Bitmap data).
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use core::ops::Range;
use rimg_core::{Result, num};

/// Sets the bits of `range`.
pub(crate) fn set(bytes: &mut [u8], range: Range<u64>) -> Result<()> {
    for_bytes(range, |index, mask| {
        if let Some(byte) = bytes.get_mut(index) {
            *byte |= mask;
        }
    })
}

/// Resets the bits of `range`.
pub(crate) fn reset(bytes: &mut [u8], range: Range<u64>) -> Result<()> {
    for_bytes(range, |index, mask| {
        if let Some(byte) = bytes.get_mut(index) {
            *byte &= !mask;
        }
    })
}

/// The first bit of `range` that is 1, or 0 if not `wanted`.
pub(crate) fn find(bytes: &[u8], range: Range<u64>, wanted: bool) -> Result<Option<u64>> {
    let mut at = range.start;
    while at < range.end {
        let byte = bytes.get(num::to_usize(at >> 3)?).copied().unwrap_or(0);
        let byte = if wanted { byte } else { !byte };
        let rest = byte >> (at & 7);
        if rest != 0 {
            let found = at.saturating_add(rest.trailing_zeros().into());
            return Ok((found < range.end).then_some(found));
        }
        at = (at | 7).saturating_add(1);
    }
    Ok(None)
}

/// Calls `change` with every byte that `range` touches, and the bits of it.
fn for_bytes(range: Range<u64>, mut change: impl FnMut(usize, u8)) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        let byte_end = (at | 7).saturating_add(1);
        let end = range.end.min(byte_end);
        let above = u8::MAX << (at & 7);
        let below = u8::MAX >> byte_end.saturating_sub(end).min(7);
        change(num::to_usize(at >> 3)?, above & below);
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_a_plain_list() {
        for start in 0..20 {
            for end in start..20 {
                let mut bytes = [0; 3];
                set(&mut bytes, start..end).unwrap();
                for bit in 0..24 {
                    let is_set = bytes[bit / 8] >> (bit % 8) & 1 == 1;
                    assert_eq!(is_set, (start..end).contains(&num::to_u64(bit)), "{start}..{end}");
                }
                let first = (start < end).then_some(start);
                assert_eq!(find(&bytes, 0..24, true).unwrap(), first);
                assert_eq!(find(&bytes, start..24, false).unwrap(), Some(end));
                assert_eq!(find(&bytes, start..end, false).unwrap(), None);
                reset(&mut bytes, start..end).unwrap();
                assert_eq!(bytes, [0; 3]);
            }
        }
    }
}
