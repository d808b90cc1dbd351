//! Walks an L1 table and the L2 tables below it.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Report;
use super::counts::Counts;
use super::refcounts::Refcounts;
use crate::address::Geometry;
use crate::cache::read_padded;
use crate::image::Qcow2Image;
use crate::map::entry_at;
use crate::spec;
use crate::table::{Cluster, L2Entry};
use rimg_core::{Error, FindingKind, Result, Storage, num};

/// An L1 table cannot lead to more tables than the file has clusters, unless it leads to some of
/// them again and again: looking at each time would take for ever.
const TOO_MANY_TABLES: &str = "ERROR L1 table refers to more L2 tables than the file has clusters";

/// An L1 table in memory.
pub(super) struct L1<'a> {
    /// Where it lies in the file.
    pub(super) at: u64,
    pub(super) entries: &'a [u64],
    /// Whether it is the disk's, not a snapshot's.
    pub(super) is_active: bool,
}

/// Reads L2 tables one by one into the same memory.
pub(super) struct Walker<'a> {
    file: &'a dyn Storage,
    file_len: u64,
    g: Geometry,
    has_data_file: bool,
    table: Vec<u8>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(image: &'a Qcow2Image, file_len: u64) -> Result<Self> {
        let g = image.geometry;
        let has_data_file = image.lock()?.header.has(spec::incompatible::DATA_FILE);
        Ok(Self { file: image.file.as_ref(), file_len, g, has_data_file, table: Vec::new() })
    }

    /// Counts what an L1 table refers to, and itself.
    pub(super) fn count(
        &mut self,
        l1: &L1<'_>,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<()> {
        counts.add(l1.at, num::to_u64(l1.entries.len()).saturating_mul(8), report);
        let mut tables_left = counts.clusters();
        for entry in l1.entries.iter().filter(|entry| **entry != 0) {
            if entry & spec::L1_RESERVED != 0 {
                let message = format!("ERROR found L1 entry with reserved bits set: {entry:x}");
                report.add(FindingKind::Corruption, message);
            }
            // Offset 0 with other bits set is the header taken for a table, as QEMU has it.
            let table_at = entry & spec::OFFSET_MASK;
            counts.add(table_at, self.g.cluster_bytes(), report);
            if !self.g.is_aligned(table_at) {
                let what = "Table is not cluster aligned; L1 entry corrupted";
                let message = format!("ERROR l2_offset={table_at:x}: {what}");
                report.add(FindingKind::Corruption, message);
            }
            if tables_left == 0 {
                report.add(FindingKind::CheckError, TOO_MANY_TABLES.to_owned());
                return Ok(());
            }
            tables_left = tables_left.saturating_sub(1);
            self.load(table_at)?;
            self.count_table(l1.is_active, counts, report);
        }
        Ok(())
    }

    fn count_table(&self, is_active: bool, counts: &mut Counts, report: &mut Report<'_>) {
        let g = self.g;
        let mut next_contiguous = 0_u64;
        for (index, entry) in self.found() {
            let is_compressed = entry.descriptor & spec::COMPRESSED != 0;
            if !is_compressed && entry.descriptor & spec::L2_RESERVED != 0 {
                let descriptor = entry.descriptor;
                let message =
                    format!("ERROR found l2 entry with reserved bits set: {descriptor:x}");
                report.add(FindingKind::Corruption, message);
            }
            let in_use = if is_compressed {
                self.count_compressed(index, entry, counts, report)
            } else {
                self.count_standard(entry, counts, report)
            };
            if !in_use || !is_active {
                continue;
            }
            let sums = &mut report.summary;
            sums.allocated_clusters = sums.allocated_clusters.saturating_add(1);
            if is_compressed {
                sums.compressed_clusters = sums.compressed_clusters.saturating_add(1);
                // Compressed clusters lie anywhere by their nature.
                sums.fragmented_clusters = sums.fragmented_clusters.saturating_add(1);
                continue;
            }
            let host = entry.descriptor & spec::OFFSET_MASK;
            if next_contiguous != 0 && host != next_contiguous {
                sums.fragmented_clusters = sums.fragmented_clusters.saturating_add(1);
            }
            next_contiguous = host.saturating_add(g.cluster_bytes());
        }
    }

    /// Says whether the entry takes up space.
    fn count_standard(&self, entry: L2Entry, counts: &mut Counts, report: &mut Report<'_>) -> bool {
        let g = self.g;
        let host = entry.descriptor & spec::OFFSET_MASK;
        let is_zero = !g.extended_l2 && entry.descriptor & spec::ZERO != 0;
        let allocated = entry.bitmap & spec::ALLOCATED_BITS;
        // In a data file offset 0 is as good as any.
        let may_be_at_0 = self.has_data_file && self.is_copied(entry) && !is_zero;
        if host == 0 && !may_be_at_0 {
            if allocated != 0 {
                let what = "Unallocated cluster has non-zero subcluster allocation map";
                report.add(FindingKind::Corruption, format!("ERROR: {what}"));
            }
            return false;
        }
        if entry.bitmap >> 32 & allocated != 0 {
            let what = "Allocated cluster has corrupted subcluster allocation bitmap";
            report.add(FindingKind::Corruption, format!("ERROR offset={host:x}: {what}"));
        }
        if !g.is_aligned(host) {
            let holds_data = if g.extended_l2 { allocated != 0 } else { !is_zero };
            let which = if holds_data { "Data" } else { "Preallocated" };
            let what = "cluster is not properly aligned; L2 entry corrupted.";
            report.add(FindingKind::Corruption, format!("ERROR offset={host:x}: {which} {what}"));
        }
        if !self.has_data_file {
            counts.add(host, g.cluster_bytes(), report);
        }
        true
    }

    /// Says whether the entry takes up space.
    fn count_compressed(
        &self,
        index: usize,
        entry: L2Entry,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> bool {
        let plain = L2Entry { bitmap: 0, ..entry };
        let Ok(Cluster::Compressed { host, len }) = plain.cluster(self.g, None) else {
            return false;
        };
        if self.is_copied(entry) {
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
            return false;
        }
        if entry.bitmap != 0 {
            refuse("with non-zero subcluster allocation bitmap");
            return false;
        }
        counts.add(host, len, report);
        true
    }

    /// Compares the COPIED flags of an L1 table, and of the L2 tables below, with refcounts.
    pub(super) fn compare_copied_flags(
        &mut self,
        l1: &L1<'_>,
        refcounts: &mut Refcounts<'_>,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let mut tables_left = self.g.clusters_for(self.file_len);
        for (index, entry) in l1.entries.iter().enumerate() {
            let table_at = entry & spec::OFFSET_MASK;
            if table_at == 0 {
                continue;
            }
            let Some(refcount) = refcounts.at(table_at)? else { continue };
            if (refcount == 1) != (entry & spec::COPIED != 0) {
                let message = format!(
                    "ERROR OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} \
                     refcount={refcount}"
                );
                report.add(FindingKind::Corruption, message);
            }
            if tables_left == 0 {
                return Ok(());
            }
            tables_left = tables_left.saturating_sub(1);
            self.load(table_at)?;
            for (_, entry) in self.found() {
                let host = entry.descriptor & spec::OFFSET_MASK;
                let is_standard = entry.descriptor & spec::COMPRESSED == 0;
                if !is_standard || host == 0 {
                    continue;
                }
                // Nobody counts the clusters of a data file: each belongs to one guest cluster.
                let known = if self.has_data_file { Some(1) } else { refcounts.at(host)? };
                let Some(refcount) = known else { continue };
                if (refcount == 1) != self.is_copied(entry) {
                    let descriptor = entry.descriptor;
                    let message = format!(
                        "ERROR OFLAG_COPIED data cluster: l2_entry={descriptor:x} \
                         refcount={refcount}"
                    );
                    report.add(FindingKind::Corruption, message);
                }
            }
        }
        Ok(())
    }

    fn is_copied(&self, entry: L2Entry) -> bool {
        entry.descriptor & spec::COPIED != 0
    }

    /// Reads the L2 table at `at`; behind the end of the file there is none, and no time is spent
    /// on it: a wrong L1 table can have millions of such entries.
    fn load(&mut self, at: u64) -> Result<()> {
        self.table.clear();
        if at >= self.file_len {
            return Ok(());
        }
        self.table.resize(num::to_usize(self.g.cluster_bytes())?, 0);
        read_padded(self.file, &mut self.table, at).map_err(Error::io("read L2 table", at))
    }

    /// The entries of the loaded table that are not blank, with their indices.
    fn found(&self) -> impl Iterator<Item = (usize, L2Entry)> + '_ {
        const BLOCK_BYTES: usize = 256;
        let g = self.g;
        let width = if g.extended_l2 { 16 } else { 8 };
        let per_block = BLOCK_BYTES.checked_div(width).unwrap_or(1);
        let (blocks, _) = self.table.as_chunks::<BLOCK_BYTES>();
        blocks
            .iter()
            .enumerate()
            .filter(|(_, block)| block.iter().fold(0, |seen, byte| seen | byte) != 0)
            .flat_map(move |(number, block)| {
                let first = number.saturating_mul(per_block);
                (0..per_block).map(move |i| (first.saturating_add(i), entry_at(block, i, g)))
            })
            .filter(|(_, entry)| *entry != L2Entry::default())
    }
}
