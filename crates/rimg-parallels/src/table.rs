//! The BAT: an entry for each cluster of the guest.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::header::Header;
use core::ops::Range;
use rimg_blocks::{Change, Stage};
use rimg_core::num;
use std::collections::BTreeSet;

/// So many entries are written together.
const PAGE_ENTRIES: usize = 1024;

/// All entries, and which of them are newer than in the file.
#[derive(Debug, Default)]
pub(crate) struct Bat {
    entries: Vec<u32>,
    dirty: BTreeSet<usize>,
    /// Pages that were handed out to be written, and may be there or not.
    taken: BTreeSet<usize>,
}

impl Bat {
    /// The entries from the bytes behind the header.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let (entries, _) = bytes.as_chunks::<4>();
        let entries = entries.iter().map(|entry| u32::from_le_bytes(*entry)).collect();
        Self { entries, ..Self::default() }
    }

    pub(crate) fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// The entry of a guest cluster; `None` behind the end of the BAT.
    pub(crate) fn entry(&self, cluster: u64) -> Option<u32> {
        usize::try_from(cluster).ok().and_then(|index| self.entries.get(index)).copied()
    }

    /// Sets the entry of a guest cluster that the BAT has.
    pub(crate) fn set(&mut self, cluster: u64, entry: u32) {
        let Ok(index) = usize::try_from(cluster) else { return };
        if let Some(place) = self.entries.get_mut(index) {
            *place = entry;
            self.dirty.insert(index / PAGE_ENTRIES);
        }
    }

    /// Makes it longer, by entries of nothing, or shorter.
    pub(crate) fn resize(&mut self, len: usize) {
        let old = self.entries.len();
        self.entries.resize(len, 0);
        let pages = len.div_ceil(PAGE_ENTRIES);
        self.dirty.extend(old / PAGE_ENTRIES..if len > old { pages } else { 0 });
        self.dirty.retain(|page| *page < pages);
        self.taken.retain(|page| *page < pages);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        let len = self.entries.len();
        self.entries.fill(0);
        self.dirty.extend(0..len.div_ceil(PAGE_ENTRIES));
    }

    /// What was taken before was written.
    pub(crate) fn written(&mut self) {
        self.taken.clear();
    }

    /// Hands out what has to be written.
    pub(crate) fn take(&mut self) -> Stage {
        let pages = core::mem::take(&mut self.dirty);
        let stage = pages.iter().map(|page| self.page(*page)).collect();
        self.taken.extend(pages);
        stage
    }

    /// What was taken was not written.
    pub(crate) fn write_failed(&mut self) {
        self.dirty.append(&mut self.taken);
    }

    pub(crate) fn dirty_bytes(&self) -> usize {
        self.dirty.len().saturating_mul(PAGE_ENTRIES).saturating_mul(4)
    }

    fn page(&self, page: usize) -> Change {
        let start = page.saturating_mul(PAGE_ENTRIES);
        let end = start.saturating_add(PAGE_ENTRIES).min(self.entries.len());
        let range: Range<usize> = start..end;
        let entries = self.entries.get(range).unwrap_or_default();
        let bytes = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        Change::Write { at: Header::entry_at(num::to_u64(start)), bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_changed_are_handed_out() {
        let mut bat = Bat::parse(&[0; 2050 * 4]);
        bat.set(1025, 7);
        bat.set(9999, 7);
        assert_eq!(bat.dirty_bytes(), 4096);
        let mut expected = vec![0; 4096];
        expected[4] = 7;
        let stage = [Change::Write { at: 64 + 4096, bytes: expected }];
        assert_eq!(bat.take(), stage);
        assert_eq!(bat.take(), []);
        bat.write_failed();
        assert_eq!(bat.take(), stage);
        bat.written();
        bat.write_failed();
        assert_eq!(bat.take(), []);
        bat.resize(2052);
        assert_eq!(bat.take(), [Change::Write { at: 64 + 8192, bytes: vec![0; 16] }]);
        bat.set(2051, 1);
        bat.resize(1);
        assert_eq!((bat.take(), bat.entry(0), bat.entry(1)), (Vec::new(), Some(0), None));
    }
}
