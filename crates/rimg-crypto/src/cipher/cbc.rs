//! Cipher block chaining (NIST SP 800-38A, section 6.2). Within a sector every block waits for the
//! one before when encrypting, so sectors are encrypted side by side.

use super::blocks::{self, Block, block, number};
use super::{BLOCK_BYTES, Direction, SECTOR_BYTES, Wide};
use rimg_core::num;

/// So many sectors are encrypted side by side.
const LANES: usize = 16;
/// So many bytes are decrypted at a time: whole sectors.
const BATCH_BYTES: usize = 4096;

impl Wide {
    pub(super) fn cbc_encrypt(&self, data: &mut [u8], sector: u64) {
        let blocks_per_sector = self.sector_bytes / BLOCK_BYTES;
        let group_bytes = self.sector_bytes.saturating_mul(LANES);
        let mut lanes = [Block::default(); LANES];
        let mut sector = sector;
        for group in data.chunks_mut(group_bytes) {
            let sectors = group.len() / self.sector_bytes;
            let lanes = lanes.get_mut(..sectors).unwrap_or_default();
            self.vectors(lanes, sector);
            let blocks = blocks::blocks(group);
            for index in 0..blocks_per_sector {
                let column = || (index..).step_by(blocks_per_sector);
                for (lane, at) in lanes.iter_mut().zip(column()) {
                    let plain = blocks.get(at).map_or(0, number);
                    *lane = block(number(lane) ^ plain);
                }
                self.data.run(lanes, Direction::Encrypt);
                for (lane, at) in lanes.iter().zip(column()) {
                    if let Some(place) = blocks.get_mut(at) {
                        *place = *lane;
                    }
                }
            }
            sector = sector.wrapping_add(num::to_u64(group.len()) / SECTOR_BYTES);
        }
    }

    pub(super) fn cbc_decrypt(&self, data: &mut [u8], sector: u64) {
        let blocks_per_sector = self.sector_bytes / BLOCK_BYTES;
        let mut vectors = [Block::default(); BATCH_BYTES / 512];
        let mut masks = [Block::default(); BATCH_BYTES / BLOCK_BYTES];
        let mut sector = sector;
        for batch in data.chunks_mut(BATCH_BYTES) {
            let sectors = batch.len() / self.sector_bytes;
            let vectors = vectors.get_mut(..sectors).unwrap_or_default();
            self.vectors(vectors, sector);
            let blocks = blocks::blocks(batch);
            // What each block is combined with: the vector, or the encrypted block before.
            for (vector, (masks, blocks)) in vectors.iter().zip(
                masks
                    .chunks_exact_mut(blocks_per_sector)
                    .zip(blocks.chunks_exact(blocks_per_sector)),
            ) {
                let before = core::iter::once(vector).chain(blocks);
                for (mask, before) in masks.iter_mut().zip(before) {
                    *mask = *before;
                }
            }
            self.data.run(blocks, Direction::Decrypt);
            for (place, mask) in blocks.iter_mut().zip(&masks) {
                *place = block(number(place) ^ number(mask));
            }
            sector = sector.wrapping_add(num::to_u64(BATCH_BYTES) / SECTOR_BYTES);
        }
    }
}
