//! Walks L1 tables and the L2 tables below them, counting what they refer to.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Subject;
use super::counts::{Counts, Usage};
use super::report::Report;
use super::tables::{Tables, Work, for_each_entry};
use crate::address::Geometry;
use crate::spec;
use crate::table::{Cluster, L2Entry};
use rimg_core::{FindingKind, MetadataBudget, Repair, Result, num};
use std::collections::HashMap;

const TOO_MUCH_WORK: &str = "ERROR tables refer to L2 tables again and again: not all of them were \
                             looked at";

/// An L1 table in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct L1<'a> {
    /// Where it lies in the file.
    pub(super) at: u64,
    pub(super) entries: &'a [u64],
    /// Whether it is the disk's, not a snapshot's.
    pub(super) is_active: bool,
}

/// Counts what tables refer to.
pub(super) struct Walker<'a> {
    g: Geometry,
    has_data_file: bool,
    tables: Tables<'a>,
    work: Work,
    /// Tables of snapshots in which nothing is wrong, and how many more times each has to be
    /// counted: most snapshots share most of their tables.
    again: HashMap<u64, u64>,
    budget: MetadataBudget,
    /// Not everything was looked at.
    pub(super) gave_up: bool,
    /// Entries were mended.
    pub(super) wrote: bool,
}

impl<'a> Walker<'a> {
    pub(super) fn new(subject: &Subject<'a>, file_len: u64) -> Result<Self> {
        let g = subject.header.geometry;
        let mut budget = subject.limits.metadata_budget();
        Ok(Self {
            g,
            has_data_file: subject.header.has(spec::incompatible::DATA_FILE),
            tables: Tables::new(subject.file, file_len, g, &mut budget)?,
            work: Work::for_file(subject.file, file_len)?,
            again: HashMap::new(),
            budget,
            gave_up: false,
            wrote: false,
        })
    }

    /// Whether `bytes` more of tables may be read; when not, says so once.
    pub(super) fn may_read(&mut self, bytes: u64, report: &mut Report<'_>) -> bool {
        if !self.gave_up && !self.work.take(bytes) {
            self.gave_up = true;
            report.add(FindingKind::CheckError, TOO_MUCH_WORK.to_owned());
        }
        !self.gave_up
    }

    /// Counts what an L1 table refers to, and itself.
    pub(super) fn count(
        &mut self,
        l1: L1<'_>,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let bytes = num::to_u64(l1.entries.len()).saturating_mul(8);
        counts.add(l1.at, bytes, report)?;
        let l1_is_there = counts.is_in_file(l1.at.saturating_add(bytes));
        for (index, entry) in l1.entries.iter().enumerate() {
            if *entry == 0 {
                continue;
            }
            if entry & spec::L1_RESERVED != 0 {
                let message = format!("ERROR found L1 entry with reserved bits set: {entry:x}");
                report.add(FindingKind::Corruption, message);
            }
            // Offset 0 with other bits set is the header taken for a table, as QEMU has it.
            let table_at = entry & spec::OFFSET_MASK;
            let usage = match (l1.is_active && table_at != 0, entry & spec::COPIED != 0) {
                (false, _) => Usage::Other,
                (true, true) => Usage::Copied,
                (true, false) => Usage::NotCopied,
            };
            counts.add_times(table_at, self.g.cluster_bytes(), usage, 1, report)?;
            if !self.g.is_aligned(table_at) {
                let what = "Table is not cluster aligned; L1 entry corrupted";
                let message = format!("ERROR l2_offset={table_at:x}: {what}");
                report.add(FindingKind::Corruption, message);
            }
            if table_at >= counts.file_len() {
                continue;
            }
            if !l1.is_active && self.is_known(table_at) {
                continue;
            }
            if !self.may_read(self.g.cluster_bytes(), report) {
                return Ok(());
            }
            let together = self.tables.side_by_side(l1.entries, index);
            let before = report.summary;
            let is_trusted = l1_is_there
                && self.g.is_aligned(table_at)
                && table_at != 0
                && entry & spec::L1_RESERVED == 0;
            self.tables.load(table_at, together)?;
            self.count_table(table_at, is_trusted, l1.is_active, 1, counts, report)?;
            let is_sound = before.corruptions == report.summary.corruptions
                && before.corruptions_fixed == report.summary.corruptions_fixed;
            if !l1.is_active && is_sound {
                self.remember(table_at);
            }
        }
        Ok(())
    }

    /// Counts an L1 table of a snapshot, in which nothing is wrong, `times` times more.
    pub(super) fn count_again(
        &mut self,
        l1: L1<'_>,
        times: u64,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let bytes = num::to_u64(l1.entries.len()).saturating_mul(8);
        counts.add_times(l1.at, bytes, Usage::Other, times, report)?;
        for entry in l1.entries.iter().filter(|entry| **entry != 0) {
            let table_at = entry & spec::OFFSET_MASK;
            counts.add_times(table_at, self.g.cluster_bytes(), Usage::Other, times, report)?;
            if let Some(more) = self.again.get_mut(&table_at) {
                *more = more.saturating_add(times);
                continue;
            }
            if !self.may_read(self.g.cluster_bytes(), report) {
                return Ok(());
            }
            self.tables.load(table_at, 1)?;
            self.count_table(table_at, false, false, times, counts, report)?;
        }
        Ok(())
    }

    /// Counts what was put off: tables that snapshots share.
    pub(super) fn finish(&mut self, counts: &mut Counts, report: &mut Report<'_>) -> Result<()> {
        let mut again: Vec<(u64, u64)> =
            self.again.drain().filter(|(_, times)| *times > 0).collect();
        again.sort_unstable();
        for (table_at, times) in again {
            if !self.may_read(self.g.cluster_bytes(), report) {
                break;
            }
            self.tables.load(table_at, 1)?;
            self.count_table(table_at, false, false, times, counts, report)?;
        }
        Ok(())
    }

    /// Whether a table was looked at for another snapshot; then it is counted later.
    fn is_known(&mut self, table_at: u64) -> bool {
        match self.again.get_mut(&table_at) {
            Some(times) => {
                *times = times.saturating_add(1);
                true
            }
            None => false,
        }
    }

    /// Remembers a table as far as there is memory; without, it is looked at each time.
    fn remember(&mut self, table_at: u64) {
        const BYTES_PER_TABLE: u64 = 64;
        if self.budget.reserve("tables of snapshots", BYTES_PER_TABLE).is_ok() {
            self.again.insert(table_at, 0);
        }
    }

    /// Counts what the loaded table refers to.
    fn count_table(
        &mut self,
        table_at: u64,
        is_trusted: bool,
        is_active: bool,
        times: u64,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let mut table = TableWalk {
            g: self.g,
            has_data_file: self.has_data_file,
            is_active,
            times,
            run: Run::default(),
            next_contiguous: 0,
            is_trusted,
            misaligned_zeroes: Vec::new(),
        };
        let bytes = self.tables.load(table_at, 1)?;
        table.count(bytes, counts, report)?;
        if !table.misaligned_zeroes.is_empty() {
            self.tables.write(table_at, &table.misaligned_zeroes)?;
            self.wrote = true;
        }
        Ok(())
    }
}

/// Data clusters side by side that are counted together.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    start: u64,
    end: u64,
    is_copied: bool,
}

/// The walk over one table.
struct TableWalk {
    g: Geometry,
    has_data_file: bool,
    is_active: bool,
    times: u64,
    run: Run,
    next_contiguous: u64,
    /// Everything that leads here is as it should be.
    is_trusted: bool,
    /// Preallocated clusters at impossible places become plain zeroes: indices and descriptors.
    misaligned_zeroes: Vec<(usize, u64)>,
}

impl TableWalk {
    fn count(&mut self, table: &[u8], counts: &mut Counts, report: &mut Report<'_>) -> Result<()> {
        for_each_entry(table, self.g, |index, entry| {
            if let Some(run) = self.plain(entry, counts.file_len()) {
                if self.run.end == run.start && self.run.is_copied == run.is_copied {
                    self.run.end = run.end;
                } else {
                    self.end_run(counts, report)?;
                    self.run = run;
                }
                self.add_up(entry, false, report);
                return Ok(());
            }
            self.end_run(counts, report)?;
            let is_compressed = entry.descriptor & spec::COMPRESSED != 0;
            let in_use = if is_compressed {
                self.count_compressed(index, entry, counts, report)?
            } else {
                self.count_standard(index, entry, counts, report)?
            };
            if in_use {
                self.add_up(entry, is_compressed, report);
            }
            Ok(())
        })?;
        self.end_run(counts, report)
    }

    /// The run of one cluster, if the entry is a plain data cluster within the file, as most are.
    fn plain(&self, entry: L2Entry, file_len: u64) -> Option<Run> {
        const ODD: u64 = spec::COMPRESSED | spec::L2_RESERVED | spec::ZERO;
        let cluster = self.g.cluster_bytes();
        let host = entry.descriptor & spec::OFFSET_MASK;
        let end = host.saturating_add(cluster);
        let is_odd = entry.descriptor & ODD != 0
            || host & cluster.wrapping_sub(1) != 0
            || host == 0
            || end > file_len
            || self.has_data_file
            || self.times != 1
            || entry.bitmap >> 32 & entry.bitmap & spec::ALLOCATED_BITS != 0;
        let is_copied = entry.descriptor & spec::COPIED != 0;
        (!is_odd).then_some(Run { start: host, end, is_copied })
    }

    fn end_run(&mut self, counts: &mut Counts, report: &mut Report<'_>) -> Result<()> {
        let run = core::mem::take(&mut self.run);
        if run.start == run.end {
            return Ok(());
        }
        let first = self.g.cluster_index(run.start);
        let clusters = self.g.cluster_index(run.end).saturating_sub(first);
        counts.add_run(first, clusters, self.usage(run.is_copied), report)
    }

    const fn usage(&self, is_copied: bool) -> Usage {
        match (self.is_active, is_copied) {
            (false, _) => Usage::Other,
            (true, true) => Usage::Copied,
            (true, false) => Usage::NotCopied,
        }
    }

    /// Adds a cluster that is in use to what is said of the disk.
    fn add_up(&mut self, entry: L2Entry, is_compressed: bool, report: &mut Report<'_>) {
        if !self.is_active {
            return;
        }
        let sums = &mut report.summary;
        sums.allocated_clusters = sums.allocated_clusters.saturating_add(1);
        if is_compressed {
            sums.compressed_clusters = sums.compressed_clusters.saturating_add(1);
            // Compressed clusters lie anywhere by their nature.
            sums.fragmented_clusters = sums.fragmented_clusters.saturating_add(1);
            return;
        }
        let host = entry.descriptor & spec::OFFSET_MASK;
        if self.next_contiguous != 0 && host != self.next_contiguous {
            sums.fragmented_clusters = sums.fragmented_clusters.saturating_add(1);
        }
        self.next_contiguous = host.saturating_add(self.g.cluster_bytes());
    }

    /// Says whether the entry takes up space.
    fn count_standard(
        &mut self,
        index: usize,
        entry: L2Entry,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<bool> {
        let g = self.g;
        if entry.descriptor & spec::L2_RESERVED != 0 {
            let descriptor = entry.descriptor;
            let message = format!("ERROR found l2 entry with reserved bits set: {descriptor:x}");
            report.add(FindingKind::Corruption, message);
        }
        let host = entry.descriptor & spec::OFFSET_MASK;
        let is_copied = entry.descriptor & spec::COPIED != 0;
        let is_zero = !g.extended_l2 && entry.descriptor & spec::ZERO != 0;
        let allocated = entry.bitmap & spec::ALLOCATED_BITS;
        // In a data file offset 0 is as good as any.
        let may_be_at_0 = self.has_data_file && is_copied && !is_zero;
        if host == 0 && !may_be_at_0 {
            if allocated != 0 {
                let what = "Unallocated cluster has non-zero subcluster allocation map";
                report.add(FindingKind::Corruption, format!("ERROR: {what}"));
            }
            return Ok(false);
        }
        if entry.bitmap >> 32 & allocated != 0 {
            let what = "Allocated cluster has corrupted subcluster allocation bitmap";
            report.add(FindingKind::Corruption, format!("ERROR offset={host:x}: {what}"));
        }
        if !g.is_aligned(host) {
            let holds_data = if g.extended_l2 { allocated != 0 } else { !is_zero };
            let what = "cluster is not properly aligned; L2 entry corrupted.";
            if holds_data {
                let message = format!("ERROR offset={host:x}: Data {what}");
                report.add(FindingKind::Corruption, message);
            } else if report.repair() == Repair::All && self.may_mend(entry) {
                let message = format!("Repairing offset={host:x}: Preallocated {what}");
                report.add_repaired(FindingKind::Corruption, message);
                // Zeroes stay zeroes without a cluster; subclusters are what their bitmap says.
                let zero = if g.extended_l2 { 0 } else { spec::ZERO };
                self.misaligned_zeroes.push((index, zero));
                return Ok(false);
            } else {
                let message = format!("ERROR offset={host:x}: Preallocated {what}");
                report.add(FindingKind::Corruption, message);
            }
        }
        if self.has_data_file {
            if self.is_active && !is_copied {
                counts.note_stray_flag();
            }
        } else {
            let usage = self.usage(is_copied);
            counts.add_times(host, g.cluster_bytes(), usage, self.times, report)?;
        }
        Ok(true)
    }

    /// What is taken for a table by mistake could be anything, and is left alone.
    const fn may_mend(&self, entry: L2Entry) -> bool {
        self.is_trusted && entry.descriptor & spec::L2_RESERVED == 0
    }

    /// Says whether the entry takes up space.
    fn count_compressed(
        &self,
        index: usize,
        entry: L2Entry,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<bool> {
        let plain = L2Entry { bitmap: 0, ..entry };
        let Ok(Cluster::Compressed { host, len }) = plain.cluster(self.g, None) else {
            return Ok(false);
        };
        if entry.descriptor & spec::COPIED != 0 {
            let what = "copied flag must never be set for compressed clusters";
            report.add(FindingKind::Corruption, format!("ERROR: coffset={host:#x}: {what}"));
        }
        let mut refuse = |what: &str| {
            let descriptor = entry.descriptor & !spec::COPIED;
            let message = format!("ERROR compressed cluster {index} {what}, entry={descriptor:#x}");
            report.add(FindingKind::Corruption, message);
        };
        if self.has_data_file {
            refuse("with data file");
            return Ok(false);
        }
        if entry.bitmap != 0 {
            refuse("with non-zero subcluster allocation bitmap");
            // It is read all the same: what it uses, a leak to QEMU, is not given away.
            if report.repair() == Repair::Nothing {
                return Ok(false);
            }
        }
        counts.add_times(host, len, Usage::Other, self.times, report)?;
        Ok(true)
    }
}
