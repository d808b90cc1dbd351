//! Which parts of the block map changed.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::spec::ENTRY_BYTES;
use core::ops::Range;
use rimg_blocks::{Change, Stage};
use rimg_core::{Result, num};
use std::collections::BTreeSet;

/// So many entries are written together: a sector of them.
const PAGE_ENTRIES: u64 = 128;

/// Pieces of the block map that are newer than on disk.
#[derive(Debug, Default)]
pub(super) struct DirtyPages(BTreeSet<u64>);

impl DirtyPages {
    pub(super) fn add(&mut self, block: u64) {
        self.0.insert(block / PAGE_ENTRIES);
    }

    pub(super) fn add_all(&mut self, blocks: Range<u64>) {
        self.0.extend(blocks.start / PAGE_ENTRIES..blocks.end.div_ceil(PAGE_ENTRIES));
    }

    pub(super) fn add_those_of(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// The map has only so many blocks now.
    pub(super) fn end_at(&mut self, blocks: u64) {
        self.0.split_off(&blocks.div_ceil(PAGE_ENTRIES));
    }

    pub(super) fn len_bytes(&self) -> usize {
        let page = num::to_usize(PAGE_ENTRIES.saturating_mul(ENTRY_BYTES)).unwrap_or(usize::MAX);
        self.0.len().saturating_mul(page)
    }

    /// The writes for a map that begins at `map_offset`, neighbours as one.
    pub(super) fn changes(&self, entries: &[u32], map_offset: u64) -> Result<Stage> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for &page in &self.0 {
            match runs.last_mut() {
                Some(run) if run.end == page => run.end = page.saturating_add(1),
                _ => runs.push(page..page.saturating_add(1)),
            }
        }
        let mut changes = Vec::new();
        for run in runs {
            let first = run.start.saturating_mul(PAGE_ENTRIES);
            let end = run.end.saturating_mul(PAGE_ENTRIES).min(num::to_u64(entries.len()));
            let at = map_offset.saturating_add(first.saturating_mul(ENTRY_BYTES));
            let entries = entries.get(num::to_usize(first)?..num::to_usize(end)?);
            changes.push(Change::Write { at, bytes: encode(entries.unwrap_or_default()) });
        }
        Ok(changes)
    }
}

/// Entries as they are on disk.
fn encode(entries: &[u32]) -> Vec<u8> {
    entries.iter().flat_map(|raw| raw.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_pages_are_written_as_one_and_the_last_ends_with_the_map() {
        let entries: Vec<u32> = (0..400).collect();
        let mut dirty = DirtyPages::default();
        for block in [5, 260, 390] {
            dirty.add(block);
        }
        assert_eq!(dirty.len_bytes(), 3 * 512);
        let changes = dirty.changes(&entries, 1000).unwrap();
        assert_eq!(
            changes,
            [
                Change::Write { at: 1000, bytes: encode(&entries[..128]) },
                Change::Write { at: 1000 + 1024, bytes: encode(&entries[256..]) },
            ]
        );
        dirty.end_at(256);
        assert_eq!(dirty.len_bytes(), 512);
    }
}
