//! XTS (IEEE 1619): every block is masked, before and after the cipher, with the sector's tweak
//! times a power of α.
//!
//! The masks of several sectors are made first. Then the cipher has many blocks that do not depend
//! on each other, which is where its speed comes from.

use super::blocks::{self, Block, block, number};
use super::{BLOCK_BYTES, Direction, SECTOR_BYTES, Wide};
use rimg_core::num;
use zeroize::Zeroize as _;

/// So many bytes are encrypted at a time: whole sectors, and few enough to stay in the first cache.
const BATCH_BYTES: usize = 4096;
const BATCH_BLOCKS: usize = BATCH_BYTES / BLOCK_BYTES;
/// The most sectors that a batch has.
const BATCH_SECTORS: usize = BATCH_BYTES / 512;

impl Wide {
    pub(super) fn xts(&self, data: &mut [u8], sector: u64, direction: Direction) {
        let blocks_per_sector = self.sector_bytes / BLOCK_BYTES;
        let mut tweaks = [Block::default(); BATCH_SECTORS];
        let mut masks = [0_u128; BATCH_BLOCKS];
        let mut sector = sector;
        for batch in data.chunks_mut(BATCH_BYTES) {
            let sectors = batch.len() / self.sector_bytes;
            let tweaks = tweaks.get_mut(..sectors).unwrap_or_default();
            self.vectors(tweaks, sector);
            for (tweak, masks) in tweaks.iter().zip(masks.chunks_exact_mut(blocks_per_sector)) {
                let mut mask = number(tweak);
                for place in masks {
                    *place = mask;
                    mask = times_alpha(mask);
                }
            }
            let blocks = blocks::blocks(batch);
            apply(blocks, &masks);
            self.data.run(blocks, direction);
            apply(blocks, &masks);
            sector = sector.wrapping_add(num::to_u64(BATCH_BYTES) / SECTOR_BYTES);
        }
        masks.zeroize();
        for tweak in &mut tweaks {
            tweak.zeroize();
        }
    }
}

fn apply(blocks: &mut [Block], masks: &[u128]) {
    for (place, mask) in blocks.iter_mut().zip(masks) {
        *place = block(number(place) ^ mask);
    }
}

/// Multiplication by α in the field of 2^128 elements, modulo x^128 + x^7 + x^2 + x + 1.
const fn times_alpha(mask: u128) -> u128 {
    const REDUCTION: u128 = 0x87;
    let carry = 0_u128.wrapping_sub(mask >> 127);
    (mask << 1) ^ (REDUCTION & carry)
}
