//! From guest offsets to places: walks L1 and L2 tables, joining what is alike.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::CorruptKind;
use crate::image::{Qcow2Image, State};
use crate::table::{Cluster, L1Entry, L2Entry, Sub};
use core::ops::Range;
use rimg_core::{Error, Result, num};

/// Where a run of guest bytes lies, as this image alone sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Contiguous in the data file from `host`.
    Data { host: u64 },
    /// (The rest of) one compressed cluster.
    Compressed { host: u64, len: u64 },
    /// Zeroes, with space at `host` if there is some.
    Zero { host: Option<u64> },
    /// In the image below, with space at `host` if there is some.
    Backing { host: Option<u64> },
}

impl Place {
    /// Whether `next`, `by` bytes later, goes on where this one is.
    fn continues(self, by: u64, next: Self) -> bool {
        match (self, next) {
            (Self::Data { host }, Self::Data { host: next })
            | (Self::Zero { host: Some(host) }, Self::Zero { host: Some(next) })
            | (Self::Backing { host: Some(host) }, Self::Backing { host: Some(next) }) => {
                host.checked_add(by) == Some(next)
            }
            (Self::Zero { host: None }, Self::Zero { host: None })
            | (Self::Backing { host: None }, Self::Backing { host: None }) => true,
            _ => false,
        }
    }
}

/// A run of guest bytes in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// In bytes; never 0.
    pub(crate) len: u64,
    pub(crate) place: Place,
}

impl Qcow2Image {
    /// The longest run at the start of `range`, which is not empty and within the disk.
    pub(crate) fn run_at(&self, state: &mut State, range: Range<u64>) -> Result<Run> {
        let mut run: Option<Run> = None;
        let mut at = range.start;
        while at < range.end {
            let next = match self.run_in_slice(state, at..range.end) {
                // What is wrong further on is said when it is asked for.
                Err(_) if run.is_some() => break,
                next => next?,
            };
            match &mut run {
                None => run = Some(next),
                Some(run) if run.place.continues(run.len, next.place) => {
                    run.len = run.len.saturating_add(next.len);
                }
                Some(_) => break,
            }
            at = at.saturating_add(next.len);
            if matches!(next.place, Place::Compressed { .. }) {
                break;
            }
        }
        run.ok_or(Error::Misuse("empty range"))
    }

    /// As [`run_at`](Self::run_at), as far as one slice of an L2 table says, or as far as no L1
    /// entry leads anywhere.
    fn run_in_slice(&self, state: &mut State, range: Range<u64>) -> Result<Run> {
        let g = self.geometry;
        let Some(table) = self.l2_table(state, g.l1_index(range.start))? else {
            let len = self.unmapped_len(state, &range);
            return Ok(Run { len, place: Place::Backing { host: None } });
        };
        let slice_bytes = state.l2.slice_bytes();
        let in_table = g.l2_index(range.start).saturating_mul(g.l2_entry_bytes());
        let slice_at = table.saturating_add(num::align_down(in_table, slice_bytes));
        let in_slice = num::to_usize(in_table & slice_bytes.wrapping_sub(1))?;
        let slice = state.l2.slice(self.file.as_ref(), slice_at, "read L2 table")?;
        let entries = slice.get(in_slice..).unwrap_or_default();
        let walk = Walk {
            g,
            entries,
            entries_at: slice_at.saturating_add(num::to_u64(in_slice)),
            range,
            has_data_file: self.has_data_file(),
        };
        walk.run()
    }

    /// Where the L2 table for L1 entry `index` is.
    pub(crate) fn l2_table(&self, state: &State, index: u64) -> Result<Option<u64>> {
        let Some(entry) = usize::try_from(index).ok().and_then(|index| state.l1.get(index)) else {
            return Ok(None);
        };
        L1Entry(*entry).table(self.geometry).map_err(|kind| {
            let at = state.header.l1_offset.saturating_add(index.saturating_mul(8));
            kind.at("L1 table", "entry", at)
        })
    }

    /// How far no L1 entry leads anywhere, from the start of `range` on.
    fn unmapped_len(&self, state: &State, range: &Range<u64>) -> u64 {
        let g = self.geometry;
        let coverage = g.l2_coverage_bytes();
        let first = g.l1_index(range.start);
        let last = g.l1_index(range.end.saturating_sub(1));
        let rest = usize::try_from(first.saturating_add(1))
            .ok()
            .and_then(|next| state.l1.get(next..))
            .unwrap_or_default();
        // Masked or not: an entry that is wrong ends the run, and is reported when it is reached.
        let more = num::to_u64(rest.iter().take_while(|entry| **entry == 0).count());
        let unmapped_last = first.saturating_add(more).min(last);
        let end = unmapped_last.saturating_add(1).saturating_mul(coverage).min(range.end);
        end.saturating_sub(range.start)
    }
}

/// A walk over the entries of a slice.
struct Walk<'a> {
    g: Geometry,
    /// The bytes of the slice, from the first entry on.
    entries: &'a [u8],
    /// Where they lie in the file.
    entries_at: u64,
    range: Range<u64>,
    has_data_file: bool,
}

impl Walk<'_> {
    fn run(&self) -> Result<Run> {
        let mut run = self.run_in_cluster(0, self.range.start)?;
        if matches!(run.place, Place::Compressed { .. }) {
            return Ok(run);
        }
        let mut index = 0;
        loop {
            let at = self.range.start.saturating_add(run.len);
            if at >= self.range.end {
                break;
            }
            // The cluster of `at` may still be the one before: a run can end within.
            if self.g.is_aligned(at) {
                index = index_from(self.g, self.range.start, at);
                let blank = self.blank_entries(index, run.place);
                if blank > 0 {
                    let to = at
                        .saturating_add(blank.saturating_mul(self.g.cluster_bytes()))
                        .min(self.range.end);
                    run.len = to.saturating_sub(self.range.start);
                    continue;
                }
                if index.saturating_mul(num::to_usize(self.g.l2_entry_bytes())?)
                    >= self.entries.len()
                {
                    break;
                }
            }
            // As in `run_at`: an error is for who asks of what is wrong.
            let Ok(next) = self.run_in_cluster(index, at) else { break };
            if !run.place.continues(run.len, next.place) {
                break;
            }
            run.len = run.len.saturating_add(next.len);
        }
        Ok(run)
    }

    /// How many entries from `index` on are 0 all over, if that continues `place`.
    fn blank_entries(&self, index: usize, place: Place) -> u64 {
        if place != (Place::Backing { host: None }) {
            return 0;
        }
        let width = if self.g.extended_l2 { 16 } else { 8 };
        let bytes = self.entries.get(index.saturating_mul(width)..).unwrap_or_default();
        let (blocks, _) = bytes.as_chunks::<256>();
        let blank_blocks = blocks
            .iter()
            .take_while(|block| block.iter().fold(0, |seen, byte| seen | byte) == 0)
            .count();
        let rest = bytes.get(blank_blocks.saturating_mul(256)..).unwrap_or_default();
        let blank_rest =
            rest.chunks_exact(width).take_while(|entry| entry.iter().all(|b| *b == 0)).count();
        let entries = (blank_blocks.saturating_mul(256).checked_div(width).unwrap_or(0))
            .saturating_add(blank_rest);
        num::to_u64(entries)
    }

    /// The run from guest offset `at` to at most the end of its cluster, entry `index`.
    fn run_in_cluster(&self, index: usize, at: u64) -> Result<Run> {
        let g = self.g;
        let entry = entry_at(self.entries, index, g);
        let entry_bytes = g.l2_entry_bytes();
        let wrong = |kind: CorruptKind| {
            let entry_at = num::to_u64(index).saturating_mul(entry_bytes);
            kind.at("L2 table", "entry", self.entries_at.saturating_add(entry_at))
        };
        let in_cluster = g.in_cluster(at);
        let cluster_left =
            g.cluster_bytes().saturating_sub(in_cluster).min(self.range.end.saturating_sub(at));
        let identity = self.has_data_file.then(|| g.cluster_start(at));
        let cluster = entry.cluster(g, identity).map_err(wrong)?;
        let host = match cluster {
            Cluster::Compressed { host, len } => {
                return Ok(Run { len: cluster_left, place: Place::Compressed { host, len } });
            }
            Cluster::Standard { host, .. } => Some(host.saturating_add(in_cluster)),
            Cluster::Unallocated => None,
        };
        let first =
            u32::try_from(in_cluster.checked_div(g.subcluster_bytes()).unwrap_or(0)).unwrap_or(0);
        let (sub, run) = entry.sub(g, first).map_err(wrong)?;
        let run_end = u64::from(first.saturating_add(run)).saturating_mul(g.subcluster_bytes());
        let len = run_end.saturating_sub(in_cluster).min(cluster_left);
        let place = match (sub, host) {
            (Sub::Data, Some(host)) => Place::Data { host },
            (Sub::Data, None) => return Err(wrong(CorruptKind::SubclusterBitmap(entry.bitmap))),
            (Sub::Zero, host) => Place::Zero { host },
            (Sub::Unallocated, host) => Place::Backing { host },
        };
        Ok(Run { len, place })
    }
}

fn index_from(g: Geometry, start: u64, at: u64) -> usize {
    let clusters = g.cluster_index(at).saturating_sub(g.cluster_index(start));
    usize::try_from(clusters).unwrap_or(usize::MAX)
}

/// Entry `index` of the L2 entries in `bytes`; blank past their end.
pub(crate) fn entry_at(bytes: &[u8], index: usize, g: Geometry) -> L2Entry {
    let word = |at: usize| {
        bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_be_bytes(*b))
    };
    if g.extended_l2 {
        let at = index.saturating_mul(16);
        L2Entry { descriptor: word(at), bitmap: word(at.saturating_add(8)) }
    } else {
        L2Entry { descriptor: word(index.saturating_mul(8)), bitmap: 0 }
    }
}
