//! Which clusters of the data area are in use. New ones go where the first free one is, as QEMU
//! puts them.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use core::ops::Range;
use rimg_core::{MetadataBudget, Result, num};

/// The data area, cut into clusters.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Where the first one starts in the file.
    base: u64,
    cluster_bytes: u64,
    /// One bit for each cluster that is in use; behind the end none is.
    words: Vec<u64>,
    /// No slot before this is free.
    hint: u64,
}

impl Slots {
    /// Nothing is in use. `reach` is the end of what may be.
    pub(crate) fn new(
        base: u64,
        cluster_bytes: u64,
        reach: u64,
        budget: &mut MetadataBudget,
    ) -> Result<Self> {
        let slots = reach.saturating_sub(base).div_ceil(cluster_bytes);
        let words = slots.div_ceil(64);
        budget.reserve("clusters in use", words.saturating_mul(8))?;
        Ok(Self { base, cluster_bytes, words: vec![0; num::to_usize(words)?], hint: 0 })
    }

    /// Notes that the cluster at `host` is in use, or whatever lies there. Says whether nothing of
    /// it was before.
    pub(crate) fn take(&mut self, host: u64) -> bool {
        let mut is_new = true;
        for slot in self.slots_of(host) {
            let (index, bit) = place(slot);
            if index >= self.words.len() {
                self.words.resize(index.saturating_add(1), 0);
            }
            if let Some(word) = self.words.get_mut(index) {
                is_new &= *word & bit == 0;
                *word |= bit;
            }
        }
        is_new
    }

    /// Notes that nothing before `end` is free.
    pub(crate) fn take_all_before(&mut self, end: u64) {
        self.hint = self.hint.max(end.saturating_sub(self.base).div_ceil(self.cluster_bytes));
    }

    pub(crate) fn give_back(&mut self, host: u64) {
        for slot in self.slots_of(host) {
            let (index, bit) = place(slot);
            if let Some(word) = self.words.get_mut(index) {
                *word &= !bit;
            }
        }
    }

    /// Takes the first free cluster from `least` on.
    pub(crate) fn first_free(&mut self, least: u64) -> u64 {
        let first = least.saturating_sub(self.base).div_ceil(self.cluster_bytes).max(self.hint);
        let mut slot = first;
        loop {
            let (index, bit) = place(slot);
            match self.words.get(index) {
                Some(&u64::MAX) if bit == 1 => slot = slot.saturating_add(64),
                Some(word) if word & bit != 0 => slot = slot.saturating_add(1),
                _ => break,
            }
        }
        let host = self.base.saturating_add(slot.saturating_mul(self.cluster_bytes));
        self.take(host);
        host
    }

    /// The slots that a cluster at `host` lies in: one, or two where it lies askew.
    fn slots_of(&self, host: u64) -> Range<u64> {
        let start = host.saturating_sub(self.base);
        let end = host.saturating_add(self.cluster_bytes).saturating_sub(self.base);
        // Never 0: a header without it is refused.
        let bytes = self.cluster_bytes.max(1);
        start.checked_div(bytes).unwrap_or(0)..end.div_ceil(bytes)
    }
}

fn place(slot: u64) -> (usize, u64) {
    let index = usize::try_from(slot / 64).unwrap_or(usize::MAX);
    (index, 1_u64.checked_shl(u32::try_from(slot % 64).unwrap_or(0)).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_core::Limits;

    #[test]
    fn the_first_gap_is_filled_first() {
        let mut budget = Limits::default().metadata_budget();
        let mut slots = Slots::new(1024, 512, 4096, &mut budget).unwrap();
        assert!(slots.take(1024) && slots.take(2048) && !slots.take(1024));
        assert_eq!(slots.first_free(0), 1536);
        assert_eq!(slots.first_free(0), 2560);
        slots.give_back(1024);
        assert_eq!(slots.first_free(1025), 3072);
        assert_eq!(slots.first_free(0), 1024);
        // One that lies askew takes two.
        assert!(slots.take(4096 + 100));
        assert_eq!((slots.first_free(0), slots.first_free(0)), (3584, 5120));
        slots.take_all_before(1 << 20);
        assert_eq!(slots.first_free(0), 1 << 20);
    }

    #[test]
    fn full_words_are_skipped() {
        let mut budget = Limits::default().metadata_budget();
        let mut slots = Slots::new(0, 1, 0, &mut budget).unwrap();
        for host in 0..200 {
            assert_eq!(slots.first_free(0), host);
        }
    }
}
