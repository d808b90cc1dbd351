//! A cluster into literals and matches.

use super::super::Level;
use super::block::Block;
use super::matches::{Effort, LOOKAHEAD, Matches};
use super::symbols::MIN_LENGTH;

/// Chooses matches, and where blocks end.
#[derive(Debug)]
pub(super) struct Parser<const WINDOW: usize> {
    matches: Matches<WINDOW>,
    effort: Effort,
    /// Matches as long as this are taken without a look at the next position.
    lazy: usize,
}

impl<const WINDOW: usize> Parser<WINDOW> {
    pub(super) fn new(level: Level) -> Self {
        let env = |n: &str, d: usize| std::env::var(n).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
        let (depth, nice, lazy) = match level {
            Level::Fast => (4, 16, 0),
            Level::Default => (env("DEPTH", 8) as u32, env("NICE", 32), env("LAZY", 16)),
            Level::Best => (256, 258, 258),
        };
        Self { matches: Matches::new(), effort: Effort { depth, nice }, lazy }
    }

    /// Prepares for another cluster.
    pub(super) fn restart(&mut self) {
        self.matches.restart();
    }

    /// Fills `block` from `start`, which is where the block before ended, and returns its end.
    pub(super) fn parse(&mut self, bytes: &[u8], start: usize, block: &mut Block) -> usize {
        block.clear();
        let search_end = bytes.len().saturating_sub(LOOKAHEAD);
        let mut at = start;
        while at < search_end {
            if block.is_full(at - start) {
                return at;
            }
            let Some(mut found) = self.matches.longest(bytes, at, MIN_LENGTH - 1, self.effort)
            else {
                block.add_literal(bytes[at]);
                at += 1;
                continue;
            };
            let mut inserted = at + 1;
            while found.length < self.lazy && inserted < search_end {
                let effort = Effort { depth: self.effort.depth / 2, ..self.effort };
                let next = self.matches.longest(bytes, inserted, found.length, effort);
                inserted += 1;
                let Some(next) = next else { break };
                block.add_literal(bytes[at]);
                at += 1;
                found = next;
            }
            block.add_match(found);
            at += found.length;
            for covered in inserted..at.min(search_end) {
                self.matches.insert(bytes, covered);
            }
        }
        for &byte in &bytes[at..] {
            block.add_literal(byte);
        }
        bytes.len()
    }
}
