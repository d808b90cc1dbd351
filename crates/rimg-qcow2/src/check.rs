//! Checking metadata: what is referred to, against what is counted.
//!
//! Everything that refers to a cluster of the file is walked once and counted; then each count is
//! compared with the refcount on disk, and each COPIED flag with it. Findings come in the order and
//! in the words of QEMU's check. Memory is a byte for each cluster of the file, and what a few
//! tables need.

mod counts;
mod refcounts;
mod walk;

use crate::error::FORMAT;
use crate::image::{Access, Qcow2Image};
use crate::snapshot::SnapshotEntry;
use crate::{bitmap, spec};
use counts::Counts;
use refcounts::Refcounts;
use rimg_core::{
    BlockImage as _, Check, CheckSummary, Error, Finding, FindingKind, Repair, Result, num,
};
use walk::{L1, Walker};

/// Bits 9-55 of a bitmap table entry are the offset of a cluster of the bitmap.
const BITMAP_CLUSTER_MASK: u64 = spec::OFFSET_MASK;

/// Takes findings, passes them on and adds them up.
pub(crate) struct Report<'a> {
    found: &'a mut dyn FnMut(&Finding),
    summary: CheckSummary,
}

impl Report<'_> {
    fn add(&mut self, kind: FindingKind, message: String) {
        let sum = match kind {
            FindingKind::Leak => &mut self.summary.leaks,
            FindingKind::Corruption => &mut self.summary.corruptions,
            FindingKind::CheckError => &mut self.summary.check_errors,
        };
        *sum = sum.saturating_add(1);
        (self.found)(&Finding { kind, message, repaired: false });
    }
}

impl Check for Qcow2Image {
    fn check(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        if repair != Repair::Nothing {
            return Err(Error::Unsupported { format: FORMAT, feature: "repair".into() });
        }
        if self.access == Access::Write {
            // What is in memory is what counts: bring it to where the walk looks.
            self.flush_all()?;
        }
        let mut report = Report { found, summary: CheckSummary::default() };
        // QEMU counts clusters of whole sectors.
        let size_bytes = num::align_down(self.size_bytes(), spec::SECTOR_BYTES);
        report.summary.total_clusters = self.geometry.clusters_for(size_bytes);
        self.compare_counts(&mut report)?;
        Ok(report.summary)
    }
}

impl Qcow2Image {
    fn compare_counts(&self, report: &mut Report<'_>) -> Result<()> {
        let (header, l1) = {
            let state = self.lock()?;
            (state.header.clone(), state.l1.clone())
        };
        let g = self.geometry;
        let mut budget = self.limits.metadata_budget();
        let len = self.file.len_bytes().map_err(Error::io("read file length", 0))?;
        let mut counts = Counts::new(g, len, &mut budget)?;
        let mut refcounts = Refcounts::read(self.file.as_ref(), &header, &mut budget)?;
        let mut walker = Walker::new(self, len)?;

        counts.add(0, g.cluster_bytes(), report);
        let active = L1 { at: header.l1_offset, entries: &l1, is_active: true };
        walker.count(&active, &mut counts, report)?;
        let snapshots = self.snapshot_entries()?;
        for snapshot in &snapshots {
            self.count_snapshot(snapshot, &mut walker, &mut counts, report)?;
        }
        if let (Some(first), Some(last)) = (snapshots.first(), snapshots.last()) {
            let bytes = last.at.saturating_add(last.len).saturating_sub(first.at);
            counts.add(first.at, bytes, report);
        }
        if let Some((at, bytes)) = header.encryption_header() {
            counts.add(at, bytes, report);
        }
        self.count_bitmaps(&header, &mut counts, report)?;
        refcounts.count(&mut counts, report);

        refcounts.compare(&counts, report)?;
        walker.compare_copied_flags(&active, &mut refcounts, report)
    }

    fn count_snapshot(
        &self,
        snapshot: &SnapshotEntry,
        walker: &mut Walker<'_>,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<()> {
        if !self.geometry.is_aligned(snapshot.l1_offset) {
            let (id, name) = (&snapshot.info.id, &snapshot.info.name);
            let at = snapshot.l1_offset;
            let message = format!(
                "ERROR snapshot {id} ({name}) l1_offset={at:#x}: \
                 L1 table is not cluster aligned; snapshot table entry corrupted"
            );
            report.add(FindingKind::Corruption, message);
            return Ok(());
        }
        let bytes = u64::from(snapshot.l1_entries).saturating_mul(8);
        if bytes > spec::MAX_L1_BYTES {
            let (id, name) = (&snapshot.info.id, &snapshot.info.name);
            let message = format!(
                "ERROR snapshot {id} ({name}) l1_size={bytes:#x}: \
                 L1 table is too large; snapshot table entry corrupted"
            );
            report.add(FindingKind::Corruption, message);
            return Ok(());
        }
        let entries = self.snapshot_l1(snapshot)?;
        let l1 = L1 { at: snapshot.l1_offset, entries: &entries, is_active: false };
        walker.count(&l1, counts, report)
    }

    fn count_bitmaps(
        &self,
        header: &crate::header::Header,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let Some(directory) = bitmap::directory(header)? else { return Ok(()) };
        counts.add(directory.bitmap_directory_offset, directory.bitmap_directory_size, report);
        let mut budget = self.limits.metadata_budget();
        for bitmap in bitmap::read_directory(self.file.as_ref(), header, &mut budget)? {
            let at = bitmap.raw.bitmap_table_offset;
            let bytes = u64::from(bitmap.raw.bitmap_table_size).saturating_mul(8);
            counts.add(at, bytes, report);
            let mut table = budget.buffer("bitmap table", bytes)?;
            crate::cache::read_padded(self.file.as_ref(), &mut table, at)
                .map_err(Error::io("read bitmap table", at))?;
            let (words, _) = table.as_chunks::<8>();
            for word in words {
                let cluster = u64::from_be_bytes(*word) & BITMAP_CLUSTER_MASK;
                if cluster != 0 {
                    counts.add(cluster, self.geometry.cluster_bytes(), report);
                }
            }
        }
        Ok(())
    }
}

/// The last cluster that is in use, as the end of the image in bytes.
fn image_end(g: crate::address::Geometry, highest: u64) -> u64 {
    g.cluster_offset(highest.saturating_add(1))
}

/// A length that is known to be small enough for memory.
fn index(n: u64) -> usize {
    num::to_usize(n).unwrap_or(usize::MAX)
}
