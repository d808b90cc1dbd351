//! How often each cluster of the file is referred to.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::pages::{Cell, Pages};
use super::report::Report;
use crate::address::Geometry;
use core::ops::Range;
use rimg_core::{FindingKind, MetadataBudget, Result};

/// A file does not grow by more while it is repaired, in bytes.
const NEAR_BYTES: u64 = 1 << 30;

/// Nor by more clusters: each has a refcount, which takes time and room in the file.
const NEAR_CLUSTERS: u64 = 1 << 16;

/// Who refers to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// A table of the disk, with COPIED set.
    Copied,
    /// A table of the disk, with COPIED clear.
    NotCopied,
    /// Anything that has no COPIED flag, or one that nobody relies on.
    Other,
}

/// Counts of references.
#[derive(Debug)]
pub(super) struct Counts {
    g: Geometry,
    file_len: u64,
    /// The length that the file had when the repair began.
    first_len: u64,
    /// How many clusters the file has, or has once the references to the cluster behind its end
    /// are fulfilled.
    clusters: u64,
    pages: Pages,
    /// Where references to what is behind the end of the file end, those far behind left out.
    stray_end: u64,
    /// A COPIED flag could not be noted: it is of a reference to nowhere.
    stray_flags: bool,
}

impl Counts {
    /// Counters for the clusters of a file of `file_len` bytes, all 0.
    pub(super) fn new(g: Geometry, file_len: u64, budget: MetadataBudget) -> Result<Self> {
        let clusters = g.clusters_for(file_len);
        let pages = Pages::new(clusters.saturating_add(1), budget)?;
        Ok(Self {
            g,
            file_len,
            first_len: file_len,
            clusters,
            pages,
            stray_end: file_len,
            stray_flags: false,
        })
    }

    /// How many clusters there are to compare: those of the file, and the one behind its end if
    /// there is a reference to it.
    pub(super) const fn clusters(&self) -> u64 {
        self.clusters
    }

    /// The length of the file in bytes.
    pub(super) const fn file_len(&self) -> u64 {
        self.file_len
    }

    /// So long, in bytes, the file may become in one pass of a repair; the next, which counts anew,
    /// begins with the length that the file has then.
    pub(super) fn near_end(&self) -> u64 {
        let more = NEAR_CLUSTERS.saturating_mul(self.g.cluster_bytes()).min(NEAR_BYTES);
        self.first_len.saturating_add(more)
    }

    /// Takes notice that the file has become longer.
    pub(super) fn grow(&mut self, file_len: u64) -> Result<()> {
        let clusters = self.g.clusters_for(file_len);
        self.pages.grow(clusters.saturating_add(1))?;
        self.file_len = self.file_len.max(file_len);
        self.clusters = self.clusters.max(clusters);
        Ok(())
    }

    /// Where wrong references that are not too far off end.
    pub(super) const fn stray_end(&self) -> u64 {
        self.stray_end
    }

    pub(super) const fn set_stray_end(&mut self, stray_end: u64) {
        self.stray_end = stray_end;
    }

    /// The first cluster that no reference leads to, not even a wrong one from not too far behind
    /// the end of the file.
    pub(super) fn untouched_from(&self) -> u64 {
        self.clusters.max(self.g.clusters_for(self.stray_end))
    }

    pub(super) const fn pages(&self) -> &Pages {
        &self.pages
    }

    pub(super) const fn has_stray_flags(&self) -> bool {
        self.stray_flags
    }

    /// A flag that cannot be noted with a cluster has to be looked at again.
    pub(super) const fn note_stray_flag(&mut self) {
        self.stray_flags = true;
    }

    /// Counts a reference of no particular kind to every cluster that `bytes` from `at` touch.
    pub(super) fn add(&mut self, at: u64, bytes: u64, report: &mut Report<'_>) -> Result<()> {
        self.add_times(at, bytes, Usage::Other, 1, report)
    }

    /// Counts `times` references to every cluster that `bytes` from `at` touch. The kind is that
    /// of the reference to the first: a region that is not aligned touches another.
    pub(super) fn add_times(
        &mut self,
        at: u64,
        bytes: u64,
        usage: Usage,
        times: u64,
        report: &mut Report<'_>,
    ) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let end = at.saturating_add(bytes);
        if !self.is_in_file(end) {
            self.stray_flags |= usage != Usage::Other;
            if end <= self.near_end() {
                self.stray_end = self.stray_end.max(end);
            }
            let message = format!(
                "ERROR: counting reference for region exceeding the end of the file by one \
                 cluster or more: offset {at:#x} size {bytes:#x}"
            );
            report.add(FindingKind::Corruption, message);
            return Ok(());
        }
        let first = self.g.cluster_index(at);
        let last = self.g.cluster_index(end.saturating_sub(1));
        self.add_one(first, usage, times, report)?;
        for cluster in first.saturating_add(1)..=last {
            self.add_one(cluster, Usage::Other, times, report)?;
        }
        Ok(())
    }

    /// Counts a reference of this kind to each of `clusters` clusters of the file from `first` on.
    pub(super) fn add_run(
        &mut self,
        first: u64,
        clusters: u64,
        usage: Usage,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let end = first.saturating_add(clusters);
        let cell = Cell {
            count: 1,
            copied: usage == Usage::Copied,
            not_copied: usage == Usage::NotCopied,
        };
        let most = self.max_count();
        let mut cluster = first;
        while cluster < end {
            let filled = self.pages.fill(cluster, end, cell)?;
            if filled == cluster {
                // It is in use already, or the cells of its page are wider.
                if !self.pages.add(cluster, cell, most) {
                    self.add_one(cluster, usage, 1, report)?;
                }
                cluster = cluster.saturating_add(1);
            } else {
                cluster = filled;
            }
        }
        Ok(())
    }

    /// Whether a region that ends at `end` is counted: it may reach into the cluster behind the
    /// end of the file.
    pub(super) const fn is_in_file(&self, end: u64) -> bool {
        end.saturating_sub(self.file_len) < self.g.cluster_bytes()
    }

    /// As many references as can be counted.
    fn max_count(&self) -> u64 {
        self.g.refcount.max().min(Cell::MAX)
    }

    fn add_one(
        &mut self,
        cluster: u64,
        usage: Usage,
        times: u64,
        report: &mut Report<'_>,
    ) -> Result<()> {
        self.clusters = self.clusters.max(cluster.saturating_add(1));
        let mut cell = self.pages.get(cluster);
        let most = self.max_count();
        if times > most.saturating_sub(cell.count) {
            let at = self.g.cluster_offset(cluster);
            let message = format!("ERROR: overflow cluster offset={at:#x}");
            report.add(FindingKind::Corruption, message);
        }
        // Counted on, to be seen where it matters that there are several.
        cell.count = cell.count.saturating_add(times).min(Cell::MAX);
        cell.copied |= usage == Usage::Copied;
        cell.not_copied |= usage == Usage::NotCopied;
        self.pages.set(cluster, cell)
    }

    /// How many references `cluster` has, as far as a refcount can say.
    pub(super) fn of(&self, cluster: u64) -> u64 {
        self.cell(cluster).count
    }

    /// What is known of `cluster`, its count as far as a refcount can say.
    pub(super) fn cell(&self, cluster: u64) -> Cell {
        let cell = self.pages.get(cluster);
        Cell { count: cell.count.min(self.g.refcount.max()), ..cell }
    }

    /// Whether `cluster` has more than one reference, even if no refcount could say so.
    pub(super) fn is_shared(&self, cluster: u64) -> bool {
        self.pages.get(cluster).count > 1
    }

    /// The first `clusters` clusters in a row from `from` on that nothing refers to.
    pub(super) fn first_free(&self, from: u64, clusters: u64) -> u64 {
        let mut first = from;
        let mut at = from;
        // Nothing behind the clusters of the file is referred to.
        while at.saturating_sub(first) < clusters && at < self.clusters {
            at = at.saturating_add(1);
            if self.of(at.saturating_sub(1)) != 0 {
                first = at;
            }
        }
        first
    }

    /// Counts a new use of `clusters` free clusters from `first` on; the file may end before.
    pub(super) fn take(&mut self, first: u64, clusters: u64) -> Result<()> {
        let end = first.saturating_add(clusters);
        self.pages.grow(end)?;
        self.clusters = self.clusters.max(end);
        for cluster in first..end {
            self.pages.set(cluster, Cell { count: 1, ..Cell::default() })?;
        }
        Ok(())
    }

    /// Stops counting a reference to each of `clusters`.
    pub(super) fn release(&mut self, clusters: Range<u64>) -> Result<()> {
        for cluster in clusters {
            let mut cell = self.pages.get(cluster);
            cell.count = cell.count.saturating_sub(1);
            self.pages.set(cluster, cell)?;
        }
        Ok(())
    }

    /// Undoes [`take`](Self::take).
    pub(super) fn give_back(&mut self, first: u64, clusters: u64) -> Result<()> {
        for cluster in first..first.saturating_add(clusters) {
            self.pages.set(cluster, Cell::default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{ClusterBits, RefcountOrder};
    use rimg_core::{Finding, Limits, Repair};

    fn counts(file_len: u64, order: u32) -> Counts {
        let g = Geometry {
            cluster: ClusterBits::new(9).unwrap(),
            extended_l2: false,
            zero_flag: true,
            refcount: RefcountOrder::new(order).unwrap(),
        };
        Counts::new(g, file_len, Limits::default().metadata_budget()).unwrap()
    }

    #[test]
    fn many_references_are_counted_past_a_byte() {
        let mut counts = counts(4 * 512, 4);
        let mut found = |finding: &Finding| panic!("{finding:?}");
        let mut report = Report::new(Repair::Nothing, &mut found);
        for _ in 0..1000 {
            counts.add(512, 1, &mut report).unwrap();
        }
        counts.add(600, 600, &mut report).unwrap();
        assert_eq!([0, 1, 2, 3].map(|cluster| counts.of(cluster)), [0, 1001, 1, 0]);
    }

    #[test]
    fn only_regions_a_cluster_behind_the_end_are_refused() {
        let mut counts = counts(3 * 512 + 1, 4);
        let mut messages = Vec::new();
        let mut found = |finding: &Finding| messages.push(finding.message.clone());
        let mut report = Report::new(Repair::Nothing, &mut found);
        counts.add(3 * 512, 512, &mut report).unwrap();
        counts.add(4 * 512, 512, &mut report).unwrap();
        counts.add(u64::MAX, 512, &mut report).unwrap();
        assert_eq!(report.summary.corruptions, 2);
        assert_eq!(counts.of(3), 1);
        assert!(messages[0].ends_with("offset 0x800 size 0x200"), "{messages:?}");
    }

    #[test]
    fn runs_are_counted_as_single_clusters_are() {
        let mut messages = Vec::new();
        let mut found = |finding: &Finding| messages.push(finding.message.clone());
        let mut report = Report::new(Repair::Nothing, &mut found);
        let mut counts = counts(200_000 * 512, 1);
        for (first, clusters) in
            [(10, 100_000), (90_000, 40_000), (0, 12), (5, 3), (11, 1), (11, 1)]
        {
            counts.add_run(first, clusters, Usage::Copied, &mut report).unwrap();
        }
        for cluster in 0..200_000 {
            let mut wanted = u64::from((10..100_010).contains(&cluster));
            wanted += u64::from((90_000..130_000).contains(&cluster));
            wanted += u64::from(cluster < 12) + u64::from((5..8).contains(&cluster));
            wanted += if cluster == 11 { 2 } else { 0 };
            assert_eq!(counts.of(cluster), wanted.min(3), "{cluster}");
        }
        assert_eq!(messages, ["ERROR: overflow cluster offset=0x1600"]);
        assert_eq!(counts.first_free(0, 1), 130_000);
    }
}
