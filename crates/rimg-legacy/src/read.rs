//! Reading: what is stored plainly comes straight from the file, what is encoded is decoded into
//! the caller's buffer where he wants all of it, and by way of the cache where he does not.
#![warn(clippy::indexing_slicing)]

use crate::compress::{self, Coding};
use crate::image::{Chunk, LegacyImage, Stored};
use rimg_core::{Error, Result, num};
use std::sync::Arc;

impl LegacyImage {
    /// Reads a range that is not past the end of the disk.
    pub(crate) fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let (mut rest, mut guest) = (buf, at);
        while !rest.is_empty() {
            let chunk = self.map.chunk(self.file.as_ref(), guest)?;
            let skipped = guest.saturating_sub(chunk.guest);
            let left = chunk.len_bytes.saturating_sub(skipped).max(1);
            let len = num::to_usize(left.min(num::to_u64(rest.len())))?;
            let (piece, after) = rest.split_at_mut(len);
            self.read_piece(piece, &chunk, skipped)?;
            guest = guest.saturating_add(num::to_u64(len));
            rest = after;
        }
        Ok(())
    }

    /// Reads a part of a chunk, from `skipped` bytes into it.
    fn read_piece(&self, piece: &mut [u8], chunk: &Chunk, skipped: u64) -> Result<()> {
        match chunk.stored {
            Stored::Zero => {
                piece.fill(0);
                Ok(())
            }
            Stored::Raw(host) => {
                let host = host.saturating_add(skipped);
                self.file.read_exact_at(piece, host).map_err(Error::io("read", host))
            }
            Stored::Encoded { coding, host, len_bytes } => {
                if num::to_u64(piece.len()) == chunk.len_bytes {
                    return self.decode(coding, host, len_bytes, piece);
                }
                let decoded = match self.cache.find(chunk.guest) {
                    Some(decoded) => decoded,
                    None => {
                        let mut decoded = vec![0; num::to_usize(chunk.len_bytes)?];
                        self.decode(coding, host, len_bytes, &mut decoded)?;
                        let decoded: Arc<[u8]> = decoded.into();
                        self.cache.keep(chunk.guest, &decoded);
                        decoded
                    }
                };
                let from = num::to_usize(skipped)?;
                let wanted = decoded.get(from..).and_then(|rest| rest.get(..piece.len()));
                piece.copy_from_slice(wanted.ok_or(Error::Misuse("a chunk is shorter"))?);
                Ok(())
            }
        }
    }

    /// Decodes a chunk. Its lengths were held against bounds when the table was read.
    fn decode(&self, coding: Coding, host: u64, len: u64, decoded: &mut [u8]) -> Result<()> {
        let mut encoded = vec![0; num::to_usize(len)?];
        self.file.read_exact_at(&mut encoded, host).map_err(Error::io("read chunk", host))?;
        compress::decode(coding, &encoded, decoded)
            .map_err(|source| coding.error(host, source.into()))
    }
}
