//! How often each cluster of the file is referred to.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::{Report, index};
use crate::address::Geometry;
use rimg_core::{FindingKind, MetadataBudget, Result};
use std::collections::HashMap;

/// Counts of references. Nearly all are 0 or 1, so a byte is enough for each; the few larger ones
/// go on in a map.
#[derive(Debug)]
pub(super) struct Counts {
    g: Geometry,
    file_len: u64,
    /// How many clusters the file has, or has once the references to the cluster behind its end
    /// are fulfilled.
    clusters: u64,
    /// One for each cluster of the file, and one for the cluster behind its end.
    small: Vec<u8>,
    large: HashMap<u64, u64>,
}

impl Counts {
    /// Counters for the clusters of a file of `file_len` bytes, all 0.
    pub(super) fn new(g: Geometry, file_len: u64, budget: &mut MetadataBudget) -> Result<Self> {
        let clusters = g.clusters_for(file_len);
        let small = budget.buffer("reference counts", clusters.saturating_add(1))?;
        Ok(Self { g, file_len, clusters, small, large: HashMap::new() })
    }

    /// How many clusters there are to compare: those of the file, and the one behind its end if
    /// there is a reference to it.
    pub(super) const fn clusters(&self) -> u64 {
        self.clusters
    }

    /// Counts a reference to every cluster that `bytes` from `at` touch.
    pub(super) fn add(&mut self, at: u64, bytes: u64, report: &mut Report<'_>) {
        if bytes == 0 {
            return;
        }
        let end = at.saturating_add(bytes);
        if end.saturating_sub(self.file_len) >= self.g.cluster_bytes() {
            let message = format!(
                "ERROR: counting reference for region exceeding the end of the file by one \
                 cluster or more: offset {at:#x} size {bytes:#x}"
            );
            report.add(FindingKind::Corruption, message);
            return;
        }
        let last = self.g.cluster_index(end.saturating_sub(1));
        for cluster in self.g.cluster_index(at)..=last {
            self.add_one(cluster, report);
        }
    }

    fn add_one(&mut self, cluster: u64, report: &mut Report<'_>) {
        self.clusters = self.clusters.max(cluster.saturating_add(1));
        if self.of(cluster) >= self.g.refcount.max() {
            let at = self.g.cluster_offset(cluster);
            let message = format!(
                "ERROR: overflow cluster offset={at:#x}\n\
                 Use qemu-img amend to increase the refcount entry width or qemu-img convert to \
                 create a clean copy if the image cannot be opened for writing"
            );
            report.add(FindingKind::Corruption, message);
            return;
        }
        match self.small.get_mut(index(cluster)) {
            Some(count) if *count < u8::MAX => *count = count.saturating_add(1),
            Some(_) => {
                let more = self.large.entry(cluster).or_insert(0);
                *more = more.saturating_add(1);
            }
            // Further out than `add` lets through.
            None => {}
        }
    }

    /// How many references `cluster` has.
    pub(super) fn of(&self, cluster: u64) -> u64 {
        match self.small.get(index(cluster)) {
            Some(&u8::MAX) => {
                let more = self.large.get(&cluster).copied().unwrap_or(0);
                more.saturating_add(u8::MAX.into())
            }
            Some(&count) => count.into(),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{ClusterBits, RefcountOrder};
    use rimg_core::{CheckSummary, Finding, Limits};

    fn counts(file_len: u64) -> Counts {
        let g = Geometry {
            cluster: ClusterBits::new(9).unwrap(),
            extended_l2: false,
            zero_flag: true,
            refcount: RefcountOrder::new(4).unwrap(),
        };
        Counts::new(g, file_len, &mut Limits::default().metadata_budget()).unwrap()
    }

    #[test]
    fn many_references_are_counted_past_a_byte() {
        let mut counts = counts(4 * 512);
        let mut found = |finding: &Finding| panic!("{finding:?}");
        let mut report = Report { found: &mut found, summary: CheckSummary::default() };
        for _ in 0..1000 {
            counts.add(512, 1, &mut report);
        }
        counts.add(600, 600, &mut report);
        assert_eq!([0, 1, 2, 3].map(|cluster| counts.of(cluster)), [0, 1001, 1, 0]);
    }

    #[test]
    fn only_regions_a_cluster_behind_the_end_are_refused() {
        let mut counts = counts(3 * 512 + 1);
        let mut messages = Vec::new();
        let mut found = |finding: &Finding| messages.push(finding.message.clone());
        let mut report = Report { found: &mut found, summary: CheckSummary::default() };
        counts.add(3 * 512, 512, &mut report);
        counts.add(4 * 512, 512, &mut report);
        counts.add(u64::MAX, 512, &mut report);
        assert_eq!(report.summary.corruptions, 2);
        assert_eq!(counts.of(3), 1);
        assert!(messages[0].ends_with("offset 0x800 size 0x200"), "{messages:?}");
    }
}
