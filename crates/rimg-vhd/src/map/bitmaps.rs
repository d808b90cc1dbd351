//! The bitmaps of blocks: which of their sectors are there.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::spec::SECTOR_BYTES;
use core::ops::Range;
use rimg_core::{Error, Result, Storage, num};
use std::collections::{BTreeMap, BTreeSet};

/// How many bytes of bitmaps are kept in memory.
const CACHE_BYTES: u64 = 1 << 20;

/// What is known of bitmaps.
#[derive(Debug, Default)]
pub(super) struct Bitmaps {
    /// Blocks that are there as a whole.
    full: BTreeSet<u64>,
    /// Bitmaps of others.
    partial: BTreeMap<u64, Vec<u8>>,
    partial_bytes: u64,
}

/// Where a bitmap lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) bytes: u64,
}

impl Bitmaps {
    /// All of the block is there.
    pub(super) fn set_full(&mut self, block: u64) {
        self.partial.remove(&block);
        self.full.insert(block);
    }

    /// What was known of the block is not true any more.
    pub(super) fn forget(&mut self, block: u64) {
        self.partial.remove(&block);
        self.full.remove(&block);
    }

    /// Whether the sectors at the start of `range` of the block are there, and how many bytes of
    /// `range` are the same in that.
    pub(super) fn run(
        &mut self,
        file: &dyn Storage,
        block: u64,
        place: Place,
        range: Range<u64>,
    ) -> Result<(bool, u64)> {
        let all = range.end.saturating_sub(range.start);
        if self.full.contains(&block) {
            return Ok((true, all));
        }
        if !self.partial.contains_key(&block) {
            let mut bitmap = vec![0; num::to_usize(place.bytes)?];
            let read = file.read_exact_at(&mut bitmap, place.at);
            read.map_err(Error::io("read block bitmap", place.at))?;
            if bitmap.iter().all(|byte| *byte == 0xff) {
                self.full.insert(block);
                return Ok((true, all));
            }
            self.partial_bytes = self.partial_bytes.saturating_add(place.bytes);
            if self.partial_bytes > CACHE_BYTES {
                self.partial.clear();
                self.partial_bytes = place.bytes;
            }
            self.partial.insert(block, bitmap);
        }
        let bitmap = self.partial.get(&block).map_or(&[][..], Vec::as_slice);
        let first = range.start / SECTOR_BYTES;
        let is_there = bit(bitmap, first);
        let mut end = first.saturating_add(1);
        while end.saturating_mul(SECTOR_BYTES) < range.end && bit(bitmap, end) == is_there {
            end = end.saturating_add(1);
        }
        let end = end.saturating_mul(SECTOR_BYTES).min(range.end);
        Ok((is_there, end.saturating_sub(range.start)))
    }
}

/// The bit of a sector: the highest of a byte comes first.
fn bit(bitmap: &[u8], sector: u64) -> bool {
    let byte = num::to_usize(sector / 8).ok().and_then(|byte| bitmap.get(byte));
    byte.is_some_and(|byte| byte & 0x80_u8.wrapping_shr(low_bits(sector)) != 0)
}

fn low_bits(sector: u64) -> u32 {
    u32::try_from(sector % 8).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_storage::MemoryStorage;

    #[test]
    fn runs_follow_the_bits_from_the_highest() {
        let mut bytes = vec![0; 512];
        bytes[..3].copy_from_slice(&[0b1110_0000, 0, 0b0000_0001]);
        let file = MemoryStorage::from(bytes);
        let place = Place { at: 0, bytes: 512 };
        let mut bitmaps = Bitmaps::default();
        let mut run = |range| bitmaps.run(&file, 0, place, range).unwrap();
        assert_eq!(run(0..4096 * 3), (true, 3 * 512));
        assert_eq!(run(100..4096), (true, 3 * 512 - 100));
        assert_eq!(run(3 * 512..4096 * 3), (false, 20 * 512));
        assert_eq!(run(23 * 512 + 5..4096 * 3), (true, 507));
        bitmaps.set_full(0);
        assert_eq!(bitmaps.run(&file, 0, place, 0..4096).unwrap(), (true, 4096));
    }
}
