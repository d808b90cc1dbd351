//! Which clusters hold metadata: nothing else may be written there, whatever an image's tables and
//! refcounts say.

use crate::address::Geometry;
use core::ops::Range;
use std::collections::BTreeSet;

/// Clusters that hold the header or tables in use, as far as they are known without reading more
/// than the top-level tables: not the L2 tables of snapshots.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// What was there when the image was opened, sorted: there may be millions.
    opened: Vec<u64>,
    /// Those of `opened` that are free now.
    left: BTreeSet<u64>,
    /// What came later.
    added: BTreeSet<u64>,
    /// Clusters that two tables claim. Writing one of them would damage the other.
    contested: BTreeSet<u64>,
    /// The L2 tables of snapshots, sorted, when they are looked after. The active tree may lead
    /// to some of them as well.
    kept: Vec<u64>,
}

impl Guard {
    /// How much memory one cluster that is there at opening takes, in bytes.
    pub(super) const BYTES_EACH: u64 = 8;

    /// Guards the tables of an image that is being opened, which may be wrong about them.
    pub(super) fn new(mut clusters: Vec<u64>) -> Self {
        clusters.sort_unstable();
        let pairs = clusters.iter().zip(clusters.iter().skip(1));
        let contested = pairs.filter(|(a, b)| a == b).map(|(cluster, _)| *cluster).collect();
        clusters.dedup();
        Self { opened: clusters, contested, ..Self::default() }
    }

    /// Guards a new table.
    pub(crate) fn add(&mut self, clusters: Range<u64>) {
        self.added.extend(clusters);
    }

    /// A table is no more.
    pub(crate) fn remove(&mut self, clusters: Range<u64>) {
        for cluster in clusters {
            if self.contested.remove(&cluster) {
                // The other one is still there.
                continue;
            }
            if !self.added.remove(&cluster) && self.opened.binary_search(&cluster).is_ok() {
                self.left.insert(cluster);
            }
        }
    }

    /// Guards the L2 tables of snapshots, which stay whatever becomes of the active ones.
    pub(crate) fn keep(&mut self, mut clusters: Vec<u64>) {
        clusters.sort_unstable();
        clusters.dedup();
        self.kept = clusters;
    }

    /// The first guarded one of `clusters`.
    pub(crate) fn first_in(&self, clusters: Range<u64>) -> Option<u64> {
        let kept = self.kept.partition_point(|cluster| *cluster < clusters.start);
        let kept = self.kept.get(kept).filter(|cluster| **cluster < clusters.end);
        let from = self.opened.partition_point(|cluster| *cluster < clusters.start);
        let opened = self.opened.get(from..).unwrap_or_default();
        let opened = opened
            .iter()
            .take_while(|cluster| **cluster < clusters.end)
            .find(|cluster| !self.left.contains(cluster));
        let added = self.added.range(clusters).next();
        opened.into_iter().chain(added).chain(kept).min().copied()
    }

    /// Whether the cluster at `host` holds metadata, so that guest data has no place there.
    pub(crate) fn holds_table(&self, g: Geometry, host: u64) -> bool {
        let cluster = g.cluster_index(host);
        self.first_in(cluster..cluster.saturating_add(1)).is_some()
    }

    /// Whether two tables share the cluster at `host`, so that changing one damages the other.
    pub(crate) fn is_contested(&self, g: Geometry, host: u64) -> bool {
        self.contested.contains(&g.cluster_index(host))
    }

    /// Whether the cluster at `host` is an L2 table of a snapshot, which nobody changes.
    pub(crate) fn is_kept(&self, g: Geometry, host: u64) -> bool {
        self.kept.binary_search(&g.cluster_index(host)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guarded_clusters_are_found_wherever_they_lie_in_a_run() {
        let mut guard = Guard::new(vec![64, 63]);
        guard.add(130..131);
        assert_eq!(guard.first_in(0..63), None);
        assert_eq!(guard.first_in(0..64), Some(63));
        assert_eq!(guard.first_in(64..1000), Some(64));
        assert_eq!(guard.first_in(65..1000), Some(130));
        assert_eq!(guard.first_in(131..u64::MAX), None);
        guard.remove(63..131);
        assert_eq!(guard.first_in(0..1000), None);
        guard.add(64..65);
        assert_eq!(guard.first_in(0..1000), Some(64));
    }

    #[test]
    fn the_tables_of_snapshots_stay_guarded_when_the_active_ones_go() {
        let mut guard = Guard::new(vec![5, 6]);
        guard.keep(vec![9, 6, 6]);
        guard.remove(5..7);
        assert_eq!(guard.first_in(0..100), Some(6));
        assert_eq!(guard.first_in(7..100), Some(9));
        assert_eq!(guard.first_in(10..100), None);
    }

    #[test]
    fn what_two_tables_claim_stays_guarded_when_one_goes() {
        let mut guard = Guard::new(vec![5, 6, 6, 7]);
        assert_eq!(guard.contested, BTreeSet::from([6]));
        guard.remove(5..7);
        assert_eq!(guard.first_in(0..100), Some(6));
        guard.remove(6..8);
        assert_eq!(guard.first_in(0..100), None);
    }
}
