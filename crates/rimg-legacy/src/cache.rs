//! Chunks that were decoded and may be wanted again: those at the borders of what is read.

use rimg_core::num;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// So many bytes are kept at most, one chunk aside.
const MAX_BYTES: u64 = 16 << 20;

/// Decoded chunks by where they start on the disk, the one that was used last in front. The lock is
/// never held while something is decoded: who is at the same chunk decodes it, too.
#[derive(Debug, Default)]
pub(crate) struct ChunkCache {
    chunks: Mutex<VecDeque<(u64, Arc<[u8]>)>>,
}

impl ChunkCache {
    pub(crate) fn find(&self, guest: u64) -> Option<Arc<[u8]>> {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let place = chunks.iter().position(|(start, _)| *start == guest)?;
        let found = chunks.remove(place)?;
        let decoded = Arc::clone(&found.1);
        chunks.push_front(found);
        Some(decoded)
    }

    pub(crate) fn keep(&self, guest: u64, decoded: &Arc<[u8]>) {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.retain(|(start, _)| *start != guest);
        chunks.push_front((guest, Arc::clone(decoded)));
        let mut bytes = 0_u64;
        let mut kept = 0_usize;
        for (_, chunk) in chunks.iter() {
            bytes = bytes.saturating_add(num::to_u64(chunk.len()));
            if kept > 0 && bytes > MAX_BYTES {
                break;
            }
            kept = kept.saturating_add(1);
        }
        chunks.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let cache = ChunkCache::default();
        let chunk = |byte| Arc::<[u8]>::from(vec![byte; 7 << 20]);
        for guest in 0..3 {
            cache.keep(guest, &chunk(u8::try_from(guest).unwrap()));
            assert!(cache.find(0).is_some(), "used each time");
        }
        assert!(cache.find(1).is_none());
        assert_eq!(cache.find(2).map(|chunk| chunk[0]), Some(2));
        // One is kept, however large it is.
        cache.keep(9, &Arc::from(vec![9; 20 << 20]));
        assert!(cache.find(9).is_some() && cache.find(2).is_none());
    }
}
