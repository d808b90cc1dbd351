//! Going over all tables, and who uses which cluster of the file.

use crate::error::CorruptKind;
use crate::header::Header;
use crate::map::{L1, L2};
use crate::table::L2Entry;
use core::fmt::Display;
use rimg_blocks::{EntryOrder, Table, TableCache};
use rimg_core::{CheckSummary, Error, Finding, FindingKind, MetadataBudget, Result, Storage, num};
use std::sync::Arc;

/// What is known of an image's clusters so far.
pub(super) struct Walk<'a> {
    header: &'a Header,
    pub(super) tables: TableCache,
    pub(super) used: Used,
    /// Those of them that are no guest data.
    pub(super) metadata: Used,
    pub(super) summary: CheckSummary,
    found: &'a mut dyn FnMut(&Finding),
}

/// One bit for each cluster of the file.
#[derive(Debug, Clone)]
pub(super) struct Used {
    words: Vec<u64>,
    /// How many clusters the file has.
    pub(super) clusters: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        file: &Arc<dyn Storage>,
        header: &'a Header,
        budget: &mut MetadataBudget,
        found: &'a mut dyn FnMut(&Finding),
    ) -> Result<Self> {
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        let g = header.geometry;
        let clusters = g.cluster_of(len);
        let bytes = clusters.div_ceil(64).saturating_mul(8);
        budget.reserve("clusters in use", bytes.saturating_mul(2))?;
        let none = Used { words: vec![0; num::to_usize(bytes / 8)?], clusters };
        let summary = CheckSummary {
            total_clusters: g.clusters_for(header.size_bytes),
            ..CheckSummary::default()
        };
        Ok(Self {
            header,
            tables: TableCache::new(Arc::clone(file), EntryOrder::LittleEndian),
            used: none.clone(),
            metadata: none,
            summary,
            found,
        })
    }

    /// Looks at everything; forgets entries that lead nowhere, if `mends`.
    pub(super) fn go(&mut self, mends: bool) -> Result<()> {
        let g = self.header.geometry;
        self.take_metadata(0, g.cluster_of(self.header.header_end()), &"The header");
        self.take_metadata(
            g.cluster_of(self.header.l1_offset),
            g.table_clusters(),
            &"The L1 table",
        );
        let l1 = self.l1();
        self.each(&l1, &mut |walk, index, at| {
            if walk.check_offset(at, g.table_bytes()).is_err() {
                return walk.mend(&l1, index, at, mends);
            }
            let is_new = walk.used.is_free(g.cluster_of(at));
            let what = format_args!("L1 entry {index}: the L2 table at {at:#x}");
            walk.take_metadata(g.cluster_of(at), g.table_clusters(), &what);
            // What was looked at before is not looked at again: there may be many of them.
            if is_new { walk.check_table(at, mends) } else { Ok(()) }
        })?;
        let leaks = self.used.clusters.saturating_sub(self.used.count());
        self.summary.leaks = leaks;
        if leaks > 0 {
            let message = format!("Leaked: {leaks} clusters of the file are used by nothing");
            self.tell(FindingKind::Leak, message, false);
        }
        Ok(())
    }

    fn check_table(&mut self, at: u64, mends: bool) -> Result<()> {
        let g = self.header.geometry;
        let table = Table { at, entries: g.table_entries(), level: L2 };
        let mut expected = None;
        self.each(&table, &mut |walk, index, raw| {
            let L2Entry::Data(host) = L2Entry::parse(raw) else { return Ok(()) };
            walk.summary.allocated_clusters = walk.summary.allocated_clusters.saturating_add(1);
            if expected.is_some_and(|expected| expected != host) {
                let fragmented = &mut walk.summary.fragmented_clusters;
                *fragmented = fragmented.saturating_add(1);
            }
            expected = Some(host.saturating_add(g.cluster_bytes()));
            if walk.check_offset(host, g.cluster_bytes()).is_err() {
                return walk.mend(&table, index, host, mends);
            }
            if walk.used.take(g.cluster_of(host), 1) > 0 {
                let place = format_args!("entry {index} of the L2 table at {:#x}", table.at);
                walk.twice(1, &format_args!("the cluster at {host:#x} of {place}"));
            }
            Ok(())
        })
    }

    fn take_metadata(&mut self, first: u64, count: u64, what: &dyn Display) {
        self.metadata.take(first, count);
        let taken = self.used.take(first, count);
        if taken > 0 {
            self.twice(taken, what);
        }
    }

    /// Clusters that something else uses already count for one each.
    fn twice(&mut self, clusters: u64, what: &dyn Display) {
        self.summary.corruptions = self.summary.corruptions.saturating_add(clusters);
        let message = format!("ERROR {what} is in use already ({clusters} of its clusters)");
        self.tell(FindingKind::Corruption, message, false);
    }

    fn mend(&mut self, table: &Table, index: u64, leads: u64, mends: bool) -> Result<()> {
        let (verb, at) = (if mends { "Repairing" } else { "ERROR" }, table.at);
        let message =
            format!("{verb} entry {index} of the table at {at:#x}: {leads:#x} is no cluster");
        self.tell(FindingKind::Corruption, message, mends);
        let summary = &mut self.summary;
        if mends {
            summary.corruptions_fixed = summary.corruptions_fixed.saturating_add(1);
            self.tables.set(table, index, L2Entry::Unallocated.encode())
        } else {
            summary.corruptions = summary.corruptions.saturating_add(1);
            Ok(())
        }
    }

    fn tell(&mut self, kind: FindingKind, message: String, repaired: bool) {
        (self.found)(&Finding { kind, message, repaired, wordless_in_qemu: true });
    }

    fn check_offset(&self, at: u64, len: u64) -> Result<(), CorruptKind> {
        let end = self.header.geometry.cluster_start(self.used.clusters);
        self.header.check_offset(at, len, end)
    }

    pub(super) const fn l1(&self) -> Table {
        let entries = self.header.geometry.table_entries();
        Table { at: self.header.l1_offset, entries, level: L1 }
    }

    /// Shows all entries of a table that are not 0.
    pub(super) fn each(
        &mut self,
        table: &Table,
        show: &mut dyn FnMut(&mut Self, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut index = 0;
        let mut found = Vec::new();
        while index < table.entries {
            let mut at = index;
            let shown = self.tables.entries(table, index, |entry| {
                if entry != 0 {
                    found.push((at, entry));
                }
                at = at.saturating_add(1);
                true
            })?;
            for (index, entry) in found.drain(..) {
                show(self, index, entry)?;
            }
            index = index.saturating_add(shown);
        }
        Ok(())
    }
}

impl Used {
    /// Notes that `count` clusters from `first` on are used. Says how many were before.
    pub(super) fn take(&mut self, first: u64, count: u64) -> u64 {
        let mut taken = 0_u64;
        for cluster in first..first.saturating_add(count).min(self.clusters) {
            taken = taken.saturating_add(u64::from(!self.is_free(cluster)));
            if let Some(word) = self.word(cluster) {
                *word |= 1 << (cluster % 64);
            }
        }
        taken
    }

    pub(super) fn give_back(&mut self, first: u64, count: u64) {
        for cluster in first..first.saturating_add(count) {
            if let Some(word) = self.word(cluster) {
                *word &= !(1 << (cluster % 64));
            }
        }
    }

    pub(super) fn is_free(&self, cluster: u64) -> bool {
        let word = usize::try_from(cluster / 64).ok().and_then(|index| self.words.get(index));
        word.is_none_or(|word| word & (1 << (cluster % 64)) == 0)
    }

    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The end of the last cluster that is used.
    pub(super) fn end(&self) -> u64 {
        let mut words = self.words.iter().rev().zip((0..num::to_u64(self.words.len())).rev());
        let last = words.find(|(word, _)| **word != 0);
        last.map_or(0, |(word, index)| {
            let behind = u64::from(word.leading_zeros());
            index.saturating_mul(64).saturating_add(64).saturating_sub(behind)
        })
    }

    fn word(&mut self, cluster: u64) -> Option<&mut u64> {
        usize::try_from(cluster / 64).ok().and_then(|index| self.words.get_mut(index))
    }
}
