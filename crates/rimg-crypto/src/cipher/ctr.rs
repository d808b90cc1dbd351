//! Counter mode (NIST SP 800-38A, section 6.5): what is encrypted is a counter, which starts with
//! the sector's vector and counts from its last byte on. Encrypting and decrypting are the same.

use super::blocks::{self, Block, block, number};
use super::{BLOCK_BYTES, Direction, SECTOR_BYTES, Wide};
use rimg_core::num;

/// So many bytes are encrypted at a time: whole sectors.
const BATCH_BYTES: usize = 4096;

impl Wide {
    pub(super) fn ctr(&self, data: &mut [u8], sector: u64) {
        let blocks_per_sector = self.sector_bytes / BLOCK_BYTES;
        let mut vectors = [Block::default(); BATCH_BYTES / 512];
        let mut stream = [Block::default(); BATCH_BYTES / BLOCK_BYTES];
        let mut sector = sector;
        for batch in data.chunks_mut(BATCH_BYTES) {
            let sectors = batch.len() / self.sector_bytes;
            let vectors = vectors.get_mut(..sectors).unwrap_or_default();
            self.vectors(vectors, sector);
            for (vector, stream) in vectors.iter().zip(stream.chunks_exact_mut(blocks_per_sector)) {
                let mut counter = number(vector).swap_bytes();
                for place in stream {
                    *place = block(counter.swap_bytes());
                    counter = counter.wrapping_add(1);
                }
            }
            let used = batch.len() / BLOCK_BYTES;
            let stream = stream.get_mut(..used).unwrap_or_default();
            self.data.run(stream, Direction::Encrypt);
            for (place, mask) in blocks::blocks(batch).iter_mut().zip(&*stream) {
                *place = block(number(place) ^ number(mask));
            }
            sector = sector.wrapping_add(num::to_u64(BATCH_BYTES) / SECTOR_BYTES);
        }
    }
}
