//! Which clusters hold metadata: nothing else may be written there, whatever an image's tables and
//! refcounts say.

use crate::address::Geometry;
use core::ops::Range;
use std::collections::{BTreeSet, HashMap};

/// Clusters that hold the header or tables in use, as far as they are known without reading more
/// than the top-level tables: not the L2 tables of snapshots.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// 64 clusters a word.
    words: HashMap<u64, u64>,
    /// Clusters that two tables claim. Writing one of them would damage the other.
    contested: BTreeSet<u64>,
}

impl Guard {
    /// Enters a table that was there when the image was opened. The image may be wrong about it.
    pub(super) fn enter(&mut self, clusters: Range<u64>) {
        for cluster in clusters {
            if !self.set(cluster) {
                self.contested.insert(cluster);
            }
        }
    }

    /// Enters a new table.
    pub(crate) fn add(&mut self, clusters: Range<u64>) {
        for cluster in clusters {
            self.set(cluster);
        }
    }

    /// A table is no more.
    pub(crate) fn remove(&mut self, clusters: Range<u64>) {
        for cluster in clusters {
            if self.contested.remove(&cluster) {
                // The other one is still there.
                continue;
            }
            if let Some(word) = self.words.get_mut(&(cluster >> 6)) {
                *word &= !bit(cluster);
            }
        }
    }

    /// The first guarded one of `clusters`.
    pub(crate) fn first_in(&self, clusters: Range<u64>) -> Option<u64> {
        let mut at = clusters.start;
        while at < clusters.end {
            let word = self.words.get(&(at >> 6)).copied().unwrap_or(0);
            let left = word >> (at & 63);
            let found = at.saturating_add(u64::from(left.trailing_zeros()));
            if left != 0 && found < clusters.end {
                return Some(found);
            }
            at = (at | 63).saturating_add(1);
        }
        None
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

    /// Says whether it was not set before.
    fn set(&mut self, cluster: u64) -> bool {
        let word = self.words.entry(cluster >> 6).or_insert(0);
        let is_new = *word & bit(cluster) == 0;
        *word |= bit(cluster);
        is_new
    }
}

const fn bit(cluster: u64) -> u64 {
    1 << (cluster & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guarded_clusters_are_found_wherever_they_lie_in_a_run() {
        let mut guard = Guard::default();
        guard.add(130..131);
        guard.add(63..65);
        assert_eq!(guard.first_in(0..63), None);
        assert_eq!(guard.first_in(0..64), Some(63));
        assert_eq!(guard.first_in(64..1000), Some(64));
        assert_eq!(guard.first_in(65..1000), Some(130));
        assert_eq!(guard.first_in(131..u64::MAX >> 40), None);
        guard.remove(130..131);
        assert_eq!(guard.first_in(65..1000), None);
    }

    #[test]
    fn what_two_tables_claim_stays_guarded_when_one_goes() {
        let mut guard = Guard::default();
        guard.enter(5..7);
        guard.enter(6..8);
        assert_eq!(guard.contested, BTreeSet::from([6]));
        guard.remove(5..7);
        assert_eq!(guard.first_in(0..100), Some(6));
    }
}
