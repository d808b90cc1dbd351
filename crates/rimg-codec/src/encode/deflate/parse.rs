//! A cluster into literals and matches.

use super::super::Level;
use super::block::Block;
use super::matches::{LOOKAHEAD, Matches};
use super::symbols::MIN_LENGTH;

/// Bytes of a block.
///
/// A block with codes of its own costs about 80 bytes, and gains from being of one kind of data.
const BLOCK_LEN: usize = 32 << 10;

/// log2 of the literals in a row after which a step skips another byte, up to [`MAX_SKIP`].
///
/// Where nothing matched for long little is likely to, and searching would take most time there.
const PATIENCE: u32 = 7;
/// Most bytes that a step skips. Long matches are still found behind their first bytes.
const MAX_SKIP: usize = 7;

/// Chooses matches, and where blocks end.
#[derive(Debug)]
pub(super) struct Parser<const WINDOW: usize, const BUCKETS: usize> {
    matches: Matches<WINDOW, BUCKETS>,
    /// A match shorter than this is given up when there is a longer one at the next byte.
    lazy_below: usize,
}

impl<const WINDOW: usize, const BUCKETS: usize> Parser<WINDOW, BUCKETS> {
    pub(super) fn new(level: Level) -> Self {
        let lazy_below = match level {
            Level::Fast => 0,
            Level::Default => 12,
        };
        Self { matches: Matches::new(), lazy_below }
    }

    /// Prepares for another cluster.
    pub(super) fn restart(&mut self) {
        self.matches.restart();
    }

    /// Fills `block` from `start`, which is where the block before ended, and returns its end.
    pub(super) fn parse(&mut self, bytes: &[u8], start: usize, block: &mut Block) -> usize {
        block.clear();
        let search_end = bytes.len().saturating_sub(LOOKAHEAD);
        let block_end = search_end.min(start + BLOCK_LEN);
        let mut at = start;
        let mut literals_start = start;
        while at < block_end {
            let mut found = self.matches.longest(bytes, at);
            if found.length < MIN_LENGTH {
                at += 1 + ((at - literals_start) >> PATIENCE).min(MAX_SKIP);
                continue;
            }
            let mut searched_end = at + 1;
            while found.length < self.lazy_below && searched_end < search_end {
                let next = self.matches.longest(bytes, searched_end);
                searched_end += 1;
                if next.length <= found.length {
                    break;
                }
                at += 1;
                found = next;
            }
            block.add_match(at - literals_start, found);
            at += found.length;
            literals_start = at;
            for covered in searched_end..at.min(search_end) {
                self.matches.insert(bytes, covered);
            }
        }
        // The last few bytes are not searched.
        if at < search_end { at } else { bytes.len() }
    }
}
