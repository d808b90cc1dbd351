//! The refcounts on disk, and what they should be.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Subject;
use super::counts::Counts;
use super::pages::{Cell, PAGE_BITS};
use super::report::Report;
use super::tables::{read_words, writer};
use crate::address::Geometry;
use crate::cache::{READ_REFCOUNT_BLOCK, TableCache, read_padded};
use crate::refcount::{self, Place};
use crate::spec;
use core::ops::Range;
use rimg_core::{Error, FindingKind, MetadataBudget, Repair, Result, Storage, num, op};

/// How much memory refcount blocks take while single counts are looked up.
const CACHE_BYTES: u64 = 4 << 20;

/// The refcount table, and its blocks as they are needed.
pub(super) struct Refcounts<'a> {
    file: &'a dyn Storage,
    g: Geometry,
    table: Vec<u64>,
    table_at: u64,
    table_bytes: u64,
    blocks: TableCache,
}

/// What is done about refcounts that are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// They are found.
    Look,
    /// They were found, and are mended as far as is allowed.
    Mend(Repair),
    /// They are what building anew left behind, and nothing to speak of.
    TidyUp,
}

/// What a comparison says of all refcounts together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Verdict {
    /// Clusters in use have no refcount: there may be no place for one.
    pub(super) rebuild: bool,
    /// Some refcounts are not what they should be, or were not, or cannot be known.
    pub(super) differs: bool,
    /// Some are so still.
    pub(super) differs_still: bool,
    /// Some COPIED flags are wrong, though all refcounts are right.
    pub(super) wrong_flags: bool,
}

impl<'a> Refcounts<'a> {
    pub(super) fn read(subject: &Subject<'a>, budget: &mut MetadataBudget) -> Result<Self> {
        let header = &subject.header;
        let g = header.geometry;
        let table_at = header.refcount_table_offset;
        let table_bytes =
            u64::from(header.refcount_table_clusters).saturating_mul(g.cluster_bytes());
        let place = table_at..table_at.saturating_add(table_bytes);
        let op = op::READ_REFCOUNT_TABLE;
        let table = read_words(subject.file, "refcount table", op, place, budget)?;
        let blocks = TableCache::new(g.cluster_bytes(), CACHE_BYTES);
        Ok(Self { file: subject.file, g, table, table_at, table_bytes, blocks })
    }

    /// Counts the references that the refcount structures are themselves. Says whether they are
    /// such that only new ones will do.
    pub(super) fn count(&self, counts: &mut Counts, report: &mut Report<'_>) -> Result<bool> {
        counts.add(self.table_at, self.table_bytes, report)?;
        let mut rebuild = false;
        for (number, entry) in self.table.iter().enumerate() {
            let block = entry & spec::REFCOUNT_TABLE_OFFSET_MASK;
            if entry & spec::REFCOUNT_TABLE_RESERVED != 0 {
                let what = "has reserved bits set";
                let message = format!("ERROR refcount table entry {number} {what}");
                report.add(FindingKind::Corruption, message);
                rebuild = true;
                continue;
            }
            if !self.g.is_aligned(block) {
                let what = "is not cluster aligned; refcount table entry corrupted";
                let message = format!("ERROR refcount block {number} {what}");
                report.add(FindingKind::Corruption, message);
                rebuild = true;
                continue;
            }
            if block == 0 {
                continue;
            }
            let cluster = self.g.cluster_index(block);
            if cluster >= counts.clusters() {
                let what = format!("refcount block {number} is outside image");
                if report.repair() != Repair::All {
                    report.add(FindingKind::Corruption, format!("ERROR {what}"));
                    continue;
                }
                report.add_repaired(FindingKind::Corruption, format!("Repairing {what}"));
                if !self.grow_for(block, counts)? {
                    let message = "ERROR could not resize image: Invalid argument".to_owned();
                    report.tell(FindingKind::Note, message, false);
                    rebuild = true;
                    continue;
                }
            }
            counts.add(block, self.g.cluster_bytes(), report)?;
            let references = counts.of(cluster);
            if references != 1 {
                let message = format!("ERROR refcount block {number} refcount={references}");
                report.add(FindingKind::Corruption, message);
                rebuild = true;
            }
            // One bit cannot say that it is used twice; only here does it matter.
            rebuild |= report.repair() == Repair::All && counts.is_shared(cluster);
        }
        Ok(rebuild)
    }

    /// Where the table and its blocks are.
    pub(super) fn places(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let blocks = self.table.iter().map(|entry| entry & spec::REFCOUNT_TABLE_OFFSET_MASK);
        let cluster = self.g.cluster_bytes();
        let blocks = blocks.filter(|block| *block != 0);
        let blocks = blocks.map(move |block| block..block.saturating_add(cluster));
        let table = self.table_at..self.table_at.saturating_add(self.table_bytes);
        blocks.chain(core::iter::once(table))
    }

    /// Makes the file long enough for a block behind its end: zeroes, as reading it gave before.
    fn grow_for(&self, block: u64, counts: &mut Counts) -> Result<bool> {
        let end = block.saturating_add(self.g.cluster_bytes());
        if end > counts.near_end() || i64::try_from(end).is_err() {
            return Ok(false);
        }
        writer(self.file)?.set_len_bytes(end).map_err(Error::io(op::EXTEND_FILE, end))?;
        counts.grow(end)?;
        Ok(true)
    }

    /// Compares every refcount with the references that were counted. Clusters whose refcount
    /// becomes 0 are given back to the file system where `discard` allows it.
    pub(super) fn compare(
        &mut self,
        counts: &Counts,
        pass: Pass,
        discard: bool,
        report: &mut Report<'_>,
    ) -> Result<Verdict> {
        let g = self.g;
        let mut comparison = Comparison {
            g,
            counts,
            pass,
            verdict: Verdict::default(),
            highest: 0,
            changed: false,
            freed: Vec::new(),
        };
        let bits = g.refcounts_per_block_bits();
        let end = counts.clusters();
        let blocks = end.div_ceil(g.refcounts_per_block());
        let mut bytes = vec![0; num::to_usize(g.cluster_bytes())?];
        for number in 0..blocks {
            let first = number << bits;
            let range = first..first.saturating_add(g.refcounts_per_block()).min(end);
            let entry = usize::try_from(number).ok().and_then(|number| self.table.get(number));
            let block = entry.map_or(0, |entry| entry & spec::REFCOUNT_TABLE_OFFSET_MASK);
            if block == 0 {
                comparison.no_block(range, report);
                continue;
            }
            // No file reaches past what is an offset to the operating system.
            let can_be = g.is_aligned(block) && i64::try_from(block).is_ok();
            if !can_be || read_padded(self.file, &mut bytes, block).is_err() {
                comparison.unknown(range, report);
                continue;
            }
            comparison.block(&mut bytes, range, report)?;
            if core::mem::take(&mut comparison.changed) {
                writer(self.file)?
                    .write_all_at(&bytes, block)
                    .map_err(Error::io(op::WRITE_REFCOUNT_BLOCK, block))?;
            }
            for freed in comparison.freed.drain(..).filter(|_| discard) {
                let start = g.cluster_offset(freed.start);
                let range = start..g.cluster_offset(freed.end).min(counts.file_len());
                writer(self.file)?
                    .discard_at(range)
                    .map_err(Error::io("discard cluster", start))?;
            }
        }
        self.blocks = TableCache::new(g.cluster_bytes(), CACHE_BYTES);
        report.summary.image_end_offset = g.cluster_offset(comparison.highest.saturating_add(1));
        Ok(comparison.verdict)
    }

    /// The refcount of the cluster at host offset `at`; `None` where it cannot be known.
    pub(super) fn at(&mut self, at: u64) -> Result<Option<u64>> {
        let cluster = self.g.cluster_index(at);
        let Some((slice_at, index)) = (match self.place_of(cluster) {
            Place::NoBlock => return Ok(Some(0)),
            Place::Wrong { .. } => None,
            Place::In { slice_at, index } => Some((slice_at, index)),
        }) else {
            return Ok(None);
        };
        if i64::try_from(slice_at).is_err() {
            return Ok(None);
        }
        let Ok(bytes) = self.blocks.slice(self.file, slice_at, READ_REFCOUNT_BLOCK) else {
            return Ok(None);
        };
        Ok(Some(refcount::get(bytes, self.g.refcount, num::to_usize(index)?)))
    }

    /// Whether the refcount of a cluster has a place.
    pub(super) fn has_place(&self, cluster: u64) -> bool {
        matches!(self.place_of(cluster), Place::In { .. })
    }

    /// Writes the refcounts of `clusters` as they are counted.
    pub(super) fn write(&mut self, clusters: Range<u64>, counts: &Counts) -> Result<()> {
        for cluster in clusters {
            let Place::In { slice_at, index } = self.place_of(cluster) else { continue };
            let slice = self.blocks.slice_mut(self.file, slice_at, READ_REFCOUNT_BLOCK)?;
            let count = counts.of(cluster);
            refcount::set(slice, self.g.refcount, num::to_usize(index)?, count);
            let file = writer(self.file)?;
            self.blocks.write_dirty(|bytes, at| {
                file.write_all_at(bytes, at).map_err(Error::io(op::WRITE_REFCOUNT_BLOCK, at))
            })?;
        }
        Ok(())
    }

    fn place_of(&self, cluster: u64) -> Place {
        refcount::place_of(&self.table, self.g, self.blocks.slice_bytes(), cluster)
    }
}

/// A comparison under way.
struct Comparison<'a> {
    g: Geometry,
    counts: &'a Counts,
    pass: Pass,
    verdict: Verdict,
    /// The last cluster that is in use.
    highest: u64,
    /// The block that is looked at was changed.
    changed: bool,
    /// Clusters in it that became free.
    freed: Vec<Range<u64>>,
}

impl Comparison<'_> {
    /// Clusters whose refcount cannot be known.
    fn unknown(&mut self, range: Range<u64>, report: &mut Report<'_>) {
        for cluster in range {
            let message = format!("Can't get refcount for cluster {cluster}: Input/output error");
            self.verdict.differs = true;
            self.verdict.differs_still = true;
            match self.pass {
                Pass::Look => report.add(FindingKind::CheckError, message),
                _ => report.tell(FindingKind::CheckError, message, false),
            }
        }
    }

    /// Clusters whose refcount is 0 as there is no block.
    fn no_block(&mut self, range: Range<u64>, report: &mut Report<'_>) {
        let mut from = range.start;
        while let Some(cluster) = self.counts.pages().next_used(from, range.end) {
            self.cluster(cluster, 0, report);
            from = cluster.saturating_add(1);
        }
    }

    /// The clusters of one block.
    fn block(
        &mut self,
        bytes: &mut [u8],
        range: Range<u64>,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let page_end = (at >> PAGE_BITS).saturating_add(1) << PAGE_BITS;
            let end = range.end.min(page_end);
            if self.g.refcount.order() == 4
                && let Some(words) = self.counts.pages().narrow_words(at)
            {
                self.narrow(words, bytes, range.start, at..end, report)?;
            } else {
                self.one_by_one(bytes, range.start, at..end, report)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Refcounts of 16 bits against a page where nearly all are 0 or 1: 32 at a time.
    fn narrow(
        &mut self,
        words: &[u64],
        bytes: &mut [u8],
        block_first: u64,
        range: Range<u64>,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let end = (at | 31).saturating_add(1).min(range.end);
            let in_page = at & (1_u64 << PAGE_BITS).wrapping_sub(1);
            let word = words.get(num::to_usize(in_page >> 5)?).copied().unwrap_or(0);
            let start = num::to_usize(at.saturating_sub(block_first))?.saturating_mul(2);
            let chunk = bytes.get(start..).and_then(<[u8]>::first_chunk::<64>);
            match chunk {
                Some(chunk) if end.saturating_sub(at) == 32 && are_same(word, chunk) => {
                    if word != 0 {
                        let last = u64::from(63_u32.saturating_sub(word.leading_zeros()) / 2);
                        self.highest = at.saturating_add(last);
                    }
                }
                _ => self.one_by_one(bytes, block_first, at..end, report)?,
            }
            at = end;
        }
        Ok(())
    }

    fn one_by_one(
        &mut self,
        bytes: &mut [u8],
        block_first: u64,
        range: Range<u64>,
        report: &mut Report<'_>,
    ) -> Result<()> {
        for cluster in range {
            let index = num::to_usize(cluster.saturating_sub(block_first))?;
            let refcount = refcount::get(bytes, self.g.refcount, index);
            if let Some(right) = self.cluster(cluster, refcount, report) {
                refcount::set(bytes, self.g.refcount, index, right);
                self.changed = true;
                if right == 0 {
                    self.free(cluster);
                }
            }
        }
        Ok(())
    }

    /// Compares one refcount. Returns what it is to become.
    fn cluster(&mut self, cluster: u64, refcount: u64, report: &mut Report<'_>) -> Option<u64> {
        let cell = self.counts.cell(cluster);
        let references = cell.count;
        if refcount > 0 || references > 0 {
            self.highest = cluster;
        }
        if refcount == references {
            self.verdict.wrong_flags |= flags_are_wrong(cell);
            return None;
        }
        self.verdict.differs = true;
        let (kind, word) = if refcount > references {
            (FindingKind::Leak, "Leaked")
        } else {
            (FindingKind::Corruption, "ERROR")
        };
        self.verdict.rebuild |= refcount == 0;
        let numbers = format!("cluster {cluster} refcount={refcount} reference={references}");
        match self.pass {
            Pass::TidyUp => report.tell(kind, format!("Repairing {numbers}"), true),
            Pass::Mend(repair) if repair == Repair::All || kind == FindingKind::Leak => {
                report.mend(kind, format!("Repairing {numbers}"));
            }
            Pass::Mend(_) => {
                self.verdict.differs_still = true;
                report.tell(kind, format!("{word} {numbers}"), false);
                return None;
            }
            Pass::Look => {
                self.verdict.differs_still = true;
                report.add(kind, format!("{word} {numbers}"));
                return None;
            }
        }
        Some(references)
    }

    fn free(&mut self, cluster: u64) {
        let end = cluster.saturating_add(1);
        match self.freed.last_mut() {
            Some(last) if last.end == cluster => last.end = end,
            _ => self.freed.push(cluster..end),
        }
    }
}

/// Whether a COPIED flag contradicts the refcount, which is what was counted.
const fn flags_are_wrong(cell: Cell) -> bool {
    if cell.count == 1 { cell.not_copied } else { cell.copied }
}

/// Whether 32 refcounts of 16 bits are what 32 narrow cells say, and no flag is wrong.
fn are_same(cells: u64, refcounts: &[u8; 64]) -> bool {
    if cells == 0 {
        return refcounts.iter().fold(0, |seen, byte| seen | byte) == 0;
    }
    // A cell of 1 is a reference without COPIED.
    let low = cells & 0x5555_5555_5555_5555;
    let high = cells >> 1 & 0x5555_5555_5555_5555;
    if low & !high != 0 {
        return false;
    }
    if high == 0x5555_5555_5555_5555 {
        return refcounts.as_chunks::<2>().0 == ONES;
    }
    let (counts, _) = refcounts.as_chunks::<2>();
    counts.iter().enumerate().all(|(index, count)| {
        u64::from(u16::from_be_bytes(*count)) == high >> index.saturating_mul(2) & 1
    })
}

/// 32 refcounts of 1.
const ONES: [[u8; 2]; 32] = [[0, 1]; 32];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_two_at_a_time_are_what_one_at_a_time_are() {
        let mut rng = rimg_testkit::Rng::new(5);
        for turn in 0..20_000 {
            let mut cells = 0_u64;
            let mut counts = [0_u8; 64];
            let mut same = true;
            for index in 0..32 {
                let cell = match turn % 3 {
                    0 => 2,
                    1 => rng.below(2) * 2,
                    _ => rng.below(4),
                };
                let mut count = u64::from(cell != 0);
                if rng.one_in(500) {
                    count = rng.below(3);
                }
                same &= count == u64::from(cell != 0) && cell != 1;
                cells |= cell << (2 * index);
                counts[2 * index + 1] = u8::try_from(count).unwrap();
            }
            assert_eq!(are_same(cells, &counts), same, "{cells:#x} {counts:?}");
        }
    }
}
