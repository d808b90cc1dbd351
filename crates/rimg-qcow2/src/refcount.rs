//! Refcounts of 1 to 64 bits in a refcount block.
//!
//! Counts of less than a byte fill each byte from its least significant bit; wider ones are
//! big-endian (Refcount block entry).
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod in_use;

use crate::address::{Geometry, RefcountOrder};
use crate::spec;
use core::ops::Range;
use rimg_core::{num, zeroes};

/// Where the refcount of a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// There is no refcount block for it: the refcount is 0.
    NoBlock,
    /// Table entry `entry` leads to where no block can be: to `block`.
    Wrong { entry: u64, block: u64 },
    /// At `index` within the slice of a refcount block that starts at host offset `slice_at`.
    In { slice_at: u64, index: u64 },
}

/// Finds the refcount of `cluster` through a refcount table whose blocks are cut into slices of
/// `slice_bytes`.
pub(crate) fn place_of(table: &[u64], g: Geometry, slice_bytes: u64, cluster: u64) -> Place {
    let entry = cluster >> g.refcounts_per_block_bits();
    let word = usize::try_from(entry).ok().and_then(|index| table.get(index)).copied();
    let block = word.unwrap_or(0) & spec::REFCOUNT_TABLE_OFFSET_MASK;
    if block == 0 {
        return Place::NoBlock;
    }
    if !g.is_aligned(block) {
        return Place::Wrong { entry, block };
    }
    let in_block = cluster & g.refcounts_per_block().wrapping_sub(1);
    let per_slice = (slice_bytes << 3) >> g.refcount.order();
    let slice = in_block.checked_div(per_slice).unwrap_or(0);
    Place::In {
        slice_at: block.saturating_add(slice.saturating_mul(slice_bytes)),
        index: in_block.saturating_sub(slice.saturating_mul(per_slice)),
    }
}

/// The count at `index`; 0 past the end of `block`.
pub(crate) fn get(block: &[u8], order: RefcountOrder, index: usize) -> u64 {
    match order.order() {
        small @ 0..=2 => {
            let per_byte_bits = 3_u32.wrapping_sub(small);
            let byte = block.get(index >> per_byte_bits).copied().unwrap_or(0);
            (u64::from(byte) >> shift_in_byte(index, small)) & order.max()
        }
        3 => block.get(index).copied().map_or(0, u64::from),
        4 => word::<2>(block, index).map_or(0, |b| u64::from(u16::from_be_bytes(b))),
        5 => word::<4>(block, index).map_or(0, |b| u64::from(u32::from_be_bytes(b))),
        _ => word::<8>(block, index).map_or(0, u64::from_be_bytes),
    }
}

/// Sets the count at `index`, which is inside `block`, to `count`, which fits.
pub(crate) fn set(block: &mut [u8], order: RefcountOrder, index: usize, count: u64) {
    debug_assert!(count <= order.max(), "refcount {count} does not fit");
    let wide = count.to_be_bytes();
    match order.order() {
        small @ 0..=2 => {
            let per_byte_bits = 3_u32.wrapping_sub(small);
            if let Some(byte) = block.get_mut(index >> per_byte_bits) {
                let shift = shift_in_byte(index, small);
                let [.., mask] = (order.max() << shift).to_be_bytes();
                let [.., bits] = (count << shift).to_be_bytes();
                *byte = (*byte & !mask) | (bits & mask);
            }
        }
        wider => {
            let width = 1_usize << wider.wrapping_sub(3);
            let start = index.saturating_mul(width);
            let place = block.get_mut(start..start.saturating_add(width));
            let bytes = wide.get(8_usize.wrapping_sub(width)..);
            if let (Some(place), Some(bytes)) = (place, bytes) {
                place.copy_from_slice(bytes);
            }
        }
    }
}

/// Sets the counts of `range`, which is inside `block`, to `count`, which fits.
pub(crate) fn fill(block: &mut [u8], order: RefcountOrder, range: Range<usize>, count: u64) {
    let Some(shift) = order.order().checked_sub(3) else {
        for index in range {
            set(block, order, index, count);
        }
        return;
    };
    let width = 1_usize << shift;
    let wide = count.to_be_bytes();
    let bytes = range.start.saturating_mul(width)..range.end.saturating_mul(width);
    let one = wide.get(8_usize.wrapping_sub(width)..).unwrap_or_default();
    for place in block.get_mut(bytes).unwrap_or_default().chunks_exact_mut(width) {
        place.copy_from_slice(one);
    }
}

/// How many counts from the start of `range` on are 0, up to the first that is not.
pub(crate) fn zero_prefix(block: &[u8], order: RefcountOrder, range: Range<usize>) -> usize {
    let Some(shift) = order.order().checked_sub(3) else {
        let len = range.len();
        return range.take_while(|index| get(block, order, *index) == 0).count().min(len);
    };
    let bytes = range.start << shift..range.end << shift;
    let bytes = block.get(bytes).unwrap_or_default();
    let (blocks, _) = bytes.as_chunks::<256>();
    let zero_blocks = blocks.iter().take_while(|block| zeroes::is_zero(*block)).count();
    let sure = zero_blocks.saturating_mul(256);
    let rest = bytes.get(sure..).unwrap_or_default();
    let more = rest.iter().take_while(|byte| **byte == 0).count();
    sure.saturating_add(more) >> shift
}

fn shift_in_byte(index: usize, small_order: u32) -> u32 {
    let per_byte = 8_u32 >> small_order;
    let within = num::to_u64(index) & u64::from(per_byte.wrapping_sub(1));
    // At most 7.
    u32::try_from(within << small_order).unwrap_or(0)
}

fn word<const N: usize>(block: &[u8], index: usize) -> Option<[u8; N]> {
    let start = index.checked_mul(N)?;
    block.get(start..)?.first_chunk::<N>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_keeps_neighbours() {
        for order in 0..=6 {
            let order = RefcountOrder::new(order).unwrap();
            let mut block = vec![0xff; 64];
            let entries: usize = 512 >> order.order();
            for index in 0..entries {
                let value = (num::to_u64(index) * 0x9e37_79b9) & order.max();
                let before = index.checked_sub(1).map(|i| get(&block, order, i));
                set(&mut block, order, index, value);
                assert_eq!(get(&block, order, index), value, "{order:?} {index}");
                assert_eq!(index.checked_sub(1).map(|i| get(&block, order, i)), before);
                if index + 1 < entries {
                    assert_eq!(get(&block, order, index + 1), order.max());
                }
            }
            assert_eq!(get(&block, order, entries), 0, "past the end");
        }
    }

    #[test]
    fn ranges_are_filled_and_found_as_single_counts_are() {
        for order in 0..=6 {
            let order = RefcountOrder::new(order).unwrap();
            let entries: usize = (2048 * 8) >> order.order();
            let (start, end) = (entries / 3, entries / 2);
            let mut one_by_one = vec![0; 2048];
            (start..end).for_each(|index| set(&mut one_by_one, order, index, order.max()));
            let mut filled = vec![0; 2048];
            fill(&mut filled, order, start..end, order.max());
            assert_eq!(filled, one_by_one, "{order:?}");
            assert_eq!(zero_prefix(&filled, order, 0..entries), start, "{order:?}");
            assert_eq!(zero_prefix(&filled, order, 1..start - 1), start - 2, "{order:?}");
            assert_eq!(zero_prefix(&filled, order, start..entries), 0, "{order:?}");
            assert_eq!(zero_prefix(&filled, order, end..entries), entries - end, "{order:?}");
        }
    }

    #[test]
    fn places_are_found_in_slices() {
        let g = Geometry {
            cluster: crate::address::ClusterBits::new(17).unwrap(),
            extended_l2: false,
            zero_flag: true,
            refcount: RefcountOrder::new(4).unwrap(),
        };
        // A block of 128 KiB holds 65,536 counts, a slice of it half of them.
        let table = [0x4_0000, 0, 0x6_0200];
        let of = |cluster| place_of(&table, g, 0x1_0000, cluster);
        assert_eq!(of(5), Place::In { slice_at: 0x4_0000, index: 5 });
        assert_eq!(of(0x8003), Place::In { slice_at: 0x5_0000, index: 3 });
        assert_eq!(of(0x1_0000), Place::NoBlock);
        assert_eq!(of(0x2_0000), Place::Wrong { entry: 2, block: 0x6_0200 });
        assert_eq!(of(u64::MAX), Place::NoBlock);
    }

    #[test]
    fn sub_byte_counts_start_at_the_least_significant_bit() {
        let order = RefcountOrder::new(1).unwrap();
        let mut block = [0; 1];
        set(&mut block, order, 0, 1);
        set(&mut block, order, 3, 2);
        assert_eq!(block, [0b1000_0001]);
    }
}
