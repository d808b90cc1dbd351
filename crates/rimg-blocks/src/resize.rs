//! Changing the size of the disk, and dropping all of a layer's data.

use crate::BlockMap;
use crate::engine::Blocks;
use core::ops::Range;
use rimg_core::{Error, ExtentKind, Result, num};

/// By so many blocks at most a disk grows over what lies below, before it is flushed.
const BLOCKS_AT_ONCE: u64 = 1 << 18;

impl<M: BlockMap> Blocks<M> {
    /// Makes the disk `size_bytes` long; new bytes read as zeroes, whatever lies below. All is
    /// durable when it returns. Writers wait meanwhile.
    ///
    /// # Errors
    /// What the map or the storage says. When the change failed half way, every later call fails:
    /// the image has to be opened again, and has the old size then, the new one, or one between.
    pub fn resize(&self, size_bytes: u64) -> Result<()> {
        self.storage_writer()?;
        let claim = self.claim_all();
        let old = self.size_bytes();
        let result = if size_bytes < old {
            self.shrink_claimed(size_bytes)
        } else {
            self.grow_claimed(old, size_bytes)
        };
        self.give_back(claim);
        result
    }

    /// Drops all data of this layer, so that everything comes from below again.
    ///
    /// # Errors
    /// What the map or the storage says.
    pub fn make_empty(&self) -> Result<()> {
        self.storage_writer()?;
        let claim = self.claim_all();
        let size = self.size_bytes();
        let result = self.set_size(0).and_then(|()| self.set_size(size));
        let result = self.whole(result.and_then(|()| self.flush_claimed()));
        self.give_back(claim);
        result
    }

    fn shrink_claimed(&self, size_bytes: u64) -> Result<()> {
        self.flush_claimed()?;
        self.whole(self.set_size(size_bytes).and_then(|()| self.flush_claimed()))
    }

    /// Lets nobody go on with an image after a change of its size that failed half way: what the
    /// map says is not what the file says any more. What is refused is refused before anything
    /// changes.
    fn whole(&self, changed: Result<()>) -> Result<()> {
        if let Err(Error::Io { .. } | Error::Corrupt { .. } | Error::Decode { .. }) = &changed {
            self.lock().is_outdated = true;
        }
        changed
    }

    fn grow_claimed(&self, old: u64, size_bytes: u64) -> Result<()> {
        self.begin(&mut self.lock())?;
        self.zero_tail(old)?;
        let in_the_way = self.lock().map.in_the_way(size_bytes)?;
        for block in in_the_way {
            self.move_claimed(block)?;
        }
        // The old places are free for the tables once nothing durable refers to them, and nobody
        // reads there.
        self.flush_claimed()?;
        self.wait_for_readers();
        let hidden = self.below().map_or(0, |below| below.size_bytes()).min(size_bytes);
        self.whole(self.grow_over_what_lies_below(old, hidden, size_bytes))
    }

    /// Grows to `size_bytes`, with zeroes over what lies below up to `hidden`. A new size must not
    /// be durable before all of its zeroes are, and what is not durable yet has to fit into
    /// memory: so a long way is gone in steps.
    fn grow_over_what_lies_below(&self, old: u64, hidden: u64, size_bytes: u64) -> Result<()> {
        let step = self.block_bytes.saturating_mul(BLOCKS_AT_ONCE);
        let mut at = old;
        loop {
            let is_last = hidden.saturating_sub(at) <= step;
            self.set_size(if is_last { size_bytes } else { at.saturating_add(step) })?;
            // Formats round up.
            let end = self.size_bytes().min(hidden);
            if at < end {
                self.zero_claimed(at..end)?;
            }
            self.flush_claimed()?;
            if is_last {
                return Ok(());
            }
            at = end;
        }
    }

    fn set_size(&self, size_bytes: u64) -> Result<()> {
        let mut state = self.lock();
        let freed = state.map.set_size_bytes(size_bytes)?;
        state.readers.let_go(freed);
        // Formats round to what they can express.
        self.set_size_seen(state.map.size_bytes());
        Ok(())
    }

    /// Zeroes what the last block holds behind the end of the disk: it comes up when the disk
    /// grows.
    fn zero_tail(&self, size: u64) -> Result<()> {
        let Some(tail) = self.tail(size) else { return Ok(()) };
        let last = size.saturating_sub(1);
        let extent = self.lock().map.extent(last..size)?;
        match extent.kind {
            ExtentKind::Data(place) => {
                let host = place.host.0.saturating_add(1);
                let len = tail.end.saturating_sub(tail.start);
                if self.cipher.is_some() {
                    return self.put(&vec![0; num::to_usize(len)?], host, tail.start);
                }
                self.zero_data(host, len)
            }
            ExtentKind::Encoded { .. } => self.move_claimed(last / self.block_bytes),
            _ => Ok(()),
        }
    }

    /// The guest bytes from the end of the disk to the end of its last block.
    fn tail(&self, size: u64) -> Option<Range<u64>> {
        let end = size.div_ceil(self.block_bytes).saturating_mul(self.block_bytes);
        (size < end && size > 0).then_some(size..end)
    }
}
