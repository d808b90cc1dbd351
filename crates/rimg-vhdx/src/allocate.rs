//! Finding room in the file.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::unsupported;
use crate::spec;
use core::ops::Range;
use rimg_blocks::{Freed, Place};
use rimg_core::{Result, num};
use std::collections::BTreeMap;

/// The parts of the file that nobody uses; all bounds are whole megabytes.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Starts and ends of the gaps, which do not touch each other.
    free: BTreeMap<u64, u64>,
    /// Nobody uses anything from here on.
    end: u64,
    /// How long the file may be: what lies behind reads as zeroes once it is part of the file.
    file_end: u64,
}

impl Space {
    /// What `used` leaves of a file that is `file_bytes` long. `used` may be in any order.
    pub(crate) fn around(mut used: Vec<Range<u64>>, file_bytes: u64) -> Self {
        used.sort_unstable_by_key(|range| range.start);
        let mut free = BTreeMap::new();
        let mut end = spec::HEADER_SECTION_BYTES;
        for range in used {
            let start = num::align_down(range.start, spec::ALIGN_BYTES);
            if end < start {
                free.insert(end, start);
            }
            let used_to = num::align_up(range.end, spec::ALIGN_BYTES).unwrap_or(u64::MAX);
            end = end.max(used_to);
        }
        let file_end = num::align_up(file_bytes, spec::ALIGN_BYTES).unwrap_or(u64::MAX);
        if end < file_end {
            free.insert(end, file_end);
            end = file_end;
        }
        Self { free, end, file_end }
    }

    /// A place of `len` bytes, whole megabytes: the first gap that is large enough.
    pub(crate) fn take(&mut self, len: u64) -> Result<Place> {
        let fits = |(start, end): (&u64, &u64)| {
            (end.saturating_sub(*start) >= len).then_some((*start, *end))
        };
        let Some((start, end)) = self.free.iter().find_map(fits) else {
            return self.take_end(len);
        };
        self.free.remove(&start);
        let rest = start.saturating_add(len);
        if rest < end {
            self.free.insert(rest, end);
        }
        Ok(Place { host: start, is_zeroed: start >= self.file_end })
    }

    /// A place behind everything.
    fn take_end(&mut self, len: u64) -> Result<Place> {
        let host = self.end;
        let end = host.saturating_add(len);
        if end > spec::MAX_FILE_BYTES {
            return Err(unsupported("a file of more than 2^62 bytes"));
        }
        self.end = end;
        let is_zeroed = host >= self.file_end;
        self.file_end = self.file_end.max(end);
        Ok(Place { host, is_zeroed })
    }

    /// A place behind everything that reads as zeroes.
    pub(crate) fn take_zeroed(&mut self, len: u64) -> Result<Place> {
        if self.end < self.file_end {
            let gap = Freed { host: self.end, len_bytes: self.file_end.saturating_sub(self.end) };
            self.end = self.file_end;
            self.give(gap);
        }
        self.take_end(len)
    }

    /// Gives a part back. What was cut off is no gap.
    pub(crate) fn give(&mut self, freed: Freed) {
        let mut start = freed.host;
        let mut end = start.saturating_add(freed.len_bytes).min(self.end);
        if start >= end {
            return;
        }
        if let Some((before, before_end)) = self.free.range(..start).next_back()
            && *before_end == start
        {
            start = *before;
        }
        if let Some(behind_end) = self.free.remove(&end) {
            end = behind_end;
        }
        self.free.insert(start, end);
    }

    /// Makes what lies from `end` on no part of the file any more.
    pub(crate) fn cut(&mut self, end: u64) {
        self.free.retain(|start, _| *start < end);
        if let Some((_, last)) = self.free.range_mut(..end).next_back() {
            *last = (*last).min(end);
        }
        self.end = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn place(host: u64, is_zeroed: bool) -> Place {
        Place { host: host << 20, is_zeroed }
    }

    #[test]
    fn gaps_are_filled_before_the_file_grows() {
        let used = vec![9 * MIB..10 * MIB, MIB..4 * MIB, 6 * MIB..8 * MIB];
        let mut space = Space::around(used, 11 * MIB + 5);
        assert_eq!(space.take(2 * MIB).unwrap(), place(4, false));
        assert_eq!(space.take(2 * MIB).unwrap(), place(10, false));
        assert_eq!(space.take(2 * MIB).unwrap(), place(12, true));
        assert_eq!(space.take(MIB).unwrap(), place(8, false));
        assert_eq!(space.take(MIB).unwrap(), place(14, true));
        for host in [4, 12, 8, 5, 13] {
            space.give(Freed { host: host << 20, len_bytes: MIB });
        }
        assert_eq!(space.take(2 * MIB).unwrap(), place(4, false));
        assert_eq!(space.take(2 * MIB).unwrap(), place(12, false));
        assert_eq!(space.take(MIB).unwrap(), place(8, false));
        assert_eq!(space.take_zeroed(MIB).unwrap(), place(15, true));
    }

    #[test]
    fn what_was_cut_off_is_not_known_to_be_zeroes() {
        let mut space = Space::around(vec![MIB..2 * MIB, 2 * MIB..4 * MIB], 8 * MIB);
        space.cut(6 * MIB);
        assert_eq!(space.take(2 * MIB).unwrap(), place(4, false));
        assert_eq!(space.take(MIB).unwrap(), place(6, false));
        assert_eq!(space.take_zeroed(MIB).unwrap(), place(8, true));
        assert_eq!(space.take(MIB).unwrap(), place(7, false));
        // Who gives it back later does not make it two gaps.
        let mut space = Space::around(vec![MIB..2 * MIB, 2 * MIB..8 * MIB], 8 * MIB);
        space.cut(4 * MIB);
        space.give(Freed { host: 3 * MIB, len_bytes: 3 * MIB });
        let hosts = [(); 4].map(|()| space.take(MIB).unwrap().host / MIB);
        assert_eq!(hosts, [3, 4, 5, 6]);
    }

    #[test]
    fn no_file_becomes_longer_than_files_are() {
        let mut space = Space::around(vec![MIB..2 * MIB, MIB..u64::MAX - 5], MIB);
        assert!(space.take(MIB).is_err());
    }
}
