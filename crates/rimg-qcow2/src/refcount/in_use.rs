//! How many clusters of the file are in use.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::cache::{READ_REFCOUNT_BLOCK, read_padded};
use crate::image::Qcow2Image;
use crate::{refcount, spec};
use rimg_core::{Error, Result, num, op};

/// How much of the refcount table is read at a time, in bytes.
const TABLE_PIECE_BYTES: u64 = 64 << 10;

impl Qcow2Image {
    /// How many clusters within the file have a refcount on disk that is not 0; no more are looked
    /// for when there are `most`. Refcount blocks that cannot be are left out.
    pub(crate) fn count_in_use(&self, most: u64) -> Result<u64> {
        let g = self.geometry;
        let (table_at, table_bytes) = {
            let state = self.lock()?;
            let clusters = u64::from(state.header.refcount_table_clusters);
            (state.header.refcount_table_offset, clusters.saturating_mul(g.cluster_bytes()))
        };
        let len = self.file.len_bytes().map_err(Error::io("read file length", 0))?;
        let mut left = g.clusters_for(len);
        let mut block = vec![0; num::to_usize(g.cluster_bytes())?];
        let mut count = 0_u64;
        let mut done = 0;
        while done < table_bytes && left > 0 && count < most {
            let at = table_at.saturating_add(done);
            let piece_bytes = table_bytes.saturating_sub(done).min(TABLE_PIECE_BYTES);
            let mut piece = vec![0; num::to_usize(piece_bytes)?];
            read_padded(self.file.as_ref(), &mut piece, at)
                .map_err(Error::io(op::READ_REFCOUNT_TABLE, at))?;
            let (entries, _) = piece.as_chunks::<8>();
            for entry in entries {
                let block_at = u64::from_be_bytes(*entry) & spec::REFCOUNT_TABLE_OFFSET_MASK;
                let covered = left.min(g.refcounts_per_block());
                left = left.saturating_sub(covered);
                if block_at == 0 || !g.is_aligned(block_at) || covered == 0 || count >= most {
                    continue;
                }
                read_padded(self.file.as_ref(), &mut block, block_at)
                    .map_err(Error::io(READ_REFCOUNT_BLOCK, block_at))?;
                let in_use = (0..num::to_usize(covered)?)
                    .filter(|index| refcount::get(&block, g.refcount, *index) != 0);
                count = count.saturating_add(num::to_u64(in_use.count()));
            }
            done = done.saturating_add(piece_bytes);
        }
        Ok(count.min(most))
    }
}
