//! Counts every reference to a cluster but those of the refcount structures.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Subject;
use super::counts::Counts;
use super::report::Report;
use super::snapshots::{Snapshot, SnapshotTable};
use super::tables::read_words;
use super::walk::{L1, Walker};
use crate::header::Header;
use crate::{bitmap, spec};
use core::ops::Range;
use rimg_core::{Error, FindingKind, Result};
use std::collections::BTreeMap;
use std::error::Error as _;

/// What is referred to.
pub(super) struct References {
    pub(super) counts: Counts,
    /// The length of the file when it was counted: it may be longer now.
    pub(super) counted_len: u64,
    /// The disk's L1 table.
    pub(super) l1: Vec<u64>,
    /// Where metadata is that is neither the disk's L1 table, nor an L2 table, nor part
    /// of the refcount structures.
    pub(super) places: Vec<Range<u64>>,
    /// All tables lead to where they can.
    pub(super) is_sound: bool,
    /// Something could not be looked at; what it refers to is not counted.
    pub(super) is_incomplete: bool,
    /// Entries were mended on the way.
    pub(super) wrote: bool,
}

/// L1 tables of snapshots that are counted already, by offset and length: how many more snapshots
/// have the same one, where nothing is wrong with it.
type Shared = BTreeMap<(u64, u32), Option<u64>>;

impl References {
    pub(super) fn count(
        subject: &Subject<'_>,
        snapshots: &SnapshotTable,
        report: &mut Report<'_>,
    ) -> Result<Self> {
        let header = &subject.header;
        let g = header.geometry;
        let len = subject.file.len_bytes().map_err(Error::io("read file length", 0))?;
        let mut counts = Counts::new(g, len, subject.limits.metadata_budget())?;
        let mut walker = Walker::new(subject, len)?;
        counts.add(0, g.cluster_bytes(), report)?;
        let l1 = subject.read_l1(header.l1_offset, header.l1_entries)?;
        let active = L1 { at: header.l1_offset, entries: &l1, is_active: true };
        walker.count(active, &mut counts, report)?;
        subject.count_snapshots(snapshots, &mut walker, &mut counts, report)?;
        // A wrong length there leads nothing else astray.
        let before = report.summary.corruptions;
        let stray_end = counts.stray_end();
        counts.add(snapshots.at, snapshots.bytes, report)?;
        counts.set_stray_end(stray_end);
        let of_table = report.summary.corruptions.saturating_sub(before);
        if let Some((at, bytes)) = header.encryption_header() {
            counts.add(at, bytes, report)?;
        }
        let bitmaps = subject.count_bitmaps(&mut walker, &mut counts, report);
        if let Err(error) = &bitmaps {
            report.add(FindingKind::CheckError, bitmap_problem(error));
        }
        let is_incomplete = walker.gave_up || bitmaps.is_err();
        let wrote = walker.wrote;
        let is_sound = report.summary.corruptions == of_table;
        let places = subject.places(snapshots);
        Ok(Self { counts, counted_len: len, l1, places, is_sound, is_incomplete, wrote })
    }
}

impl References {
    /// Where the disk's L1 table is.
    pub(super) fn l1_place(&self, header: &Header) -> Range<u64> {
        header.l1_offset..table_end(header.l1_offset, header.l1_entries)
    }

    /// From which cluster on new structures may lie. Where tables lead astray, what seems unused
    /// may be what they should lead to.
    pub(super) fn first_usable(&self) -> u64 {
        if self.is_sound { 0 } else { self.counts.untouched_from() }
    }
}

impl Subject<'_> {
    fn count_snapshots(
        &self,
        snapshots: &SnapshotTable,
        walker: &mut Walker<'_>,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let mut shared = Shared::new();
        for snapshot in &snapshots.entries {
            let key = (snapshot.l1_offset, snapshot.l1_entries);
            if let Some(Some(times)) = shared.get_mut(&key) {
                *times = times.saturating_add(1);
                continue;
            }
            let before = report.summary;
            if self.count_snapshot(snapshot, walker, counts, report)? {
                let is_sound = before.corruptions == report.summary.corruptions
                    && before.corruptions_fixed == report.summary.corruptions_fixed;
                shared.insert(key, is_sound.then_some(0));
            }
        }
        for ((at, len), times) in shared {
            let times = times.unwrap_or(0);
            if times > 0 && walker.may_read(u64::from(len).saturating_mul(8), report) {
                let entries = self.read_l1(at, len)?;
                let l1 = L1 { at, entries: &entries, is_active: false };
                walker.count_again(l1, times, counts, report)?;
            }
        }
        walker.finish(counts, report)
    }

    /// Where metadata of fixed kinds is; bitmaps that cannot be read are nowhere.
    fn places(&self, snapshots: &SnapshotTable) -> Vec<Range<u64>> {
        let region = |at: u64, bytes: u64| at..at.saturating_add(bytes);
        let mut places =
            vec![region(0, self.geometry().cluster_bytes()), region(snapshots.at, snapshots.bytes)];
        for snapshot in &snapshots.entries {
            places.push(snapshot.l1_offset..table_end(snapshot.l1_offset, snapshot.l1_entries));
        }
        places.extend(self.header.encryption_header().map(|(at, bytes)| region(at, bytes)));
        if let Ok(Some(directory)) = bitmap::directory(&self.header) {
            let at = directory.bitmap_directory_offset;
            places.push(region(at, directory.bitmap_directory_size));
        }
        places
    }

    /// Says whether the L1 table was walked.
    fn count_snapshot(
        &self,
        snapshot: &Snapshot,
        walker: &mut Walker<'_>,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<bool> {
        let (id, name, at) = (&snapshot.id, &snapshot.name, snapshot.l1_offset);
        if !self.header.geometry.is_aligned(at) {
            let message = format!(
                "ERROR snapshot {id} ({name}) l1_offset={at:#x}: \
                 L1 table is not cluster aligned; snapshot table entry corrupted"
            );
            report.add(FindingKind::Corruption, message);
            return Ok(false);
        }
        let entries = snapshot.l1_entries;
        let bytes = u64::from(entries).saturating_mul(8);
        if bytes > spec::MAX_L1_BYTES {
            let message = format!(
                "ERROR snapshot {id} ({name}) l1_size={entries:#x}: \
                 L1 table is too large; snapshot table entry corrupted"
            );
            report.add(FindingKind::Corruption, message);
            return Ok(false);
        }
        if !walker.may_read(bytes, report) {
            return Ok(false);
        }
        let entries = self.read_l1(at, snapshot.l1_entries)?;
        walker.count(L1 { at, entries: &entries, is_active: false }, counts, report)?;
        Ok(true)
    }

    /// An L1 table; what lies behind the end of the file is 0, as for QEMU.
    fn read_l1(&self, at: u64, entries: u32) -> Result<Vec<u64>> {
        let place = at..at.saturating_add(u64::from(entries).saturating_mul(8));
        let mut budget = self.limits.metadata_budget();
        read_words(self.file, "L1 table", "read L1 table", place, &mut budget)
    }

    fn count_bitmaps(
        &self,
        walker: &mut Walker<'_>,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let header = &self.header;
        let Some(directory) = bitmap::directory(header)? else { return Ok(()) };
        let mut budget = self.limits.metadata_budget();
        let bitmaps = bitmap::read_directory(self.file, header, &mut budget)?;
        let at = directory.bitmap_directory_offset;
        counts.add(at, directory.bitmap_directory_size, report)?;
        for bitmap in bitmaps {
            let at = bitmap.raw.bitmap_table_offset;
            let bytes = u64::from(bitmap.raw.bitmap_table_size).saturating_mul(8);
            counts.add(at, bytes, report)?;
            if !walker.may_read(bytes, report) {
                break;
            }
            let place = at..at.saturating_add(bytes);
            let mut budget = self.limits.metadata_budget();
            let op = "read bitmap table";
            for word in read_words(self.file, "bitmap table", op, place, &mut budget)? {
                self.count_bitmap_cluster(word, counts, report)?;
            }
        }
        Ok(())
    }

    /// Bits 9-55 of a bitmap table entry are the offset of a cluster of the bitmap; without one,
    /// bit 0 says that all of its bits are set (Bitmap table).
    fn count_bitmap_cluster(
        &self,
        word: u64,
        counts: &mut Counts,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let g = self.header.geometry;
        let cluster = word & spec::OFFSET_MASK;
        let flags = word & !spec::OFFSET_MASK;
        let is_wrong = if cluster == 0 { flags > 1 } else { flags != 0 };
        if is_wrong || !g.is_aligned(cluster) {
            let message = format!("ERROR found wrong bitmap table entry: {word:x}");
            report.add(FindingKind::Corruption, message);
        }
        match cluster {
            0 => Ok(()),
            _ => counts.add(cluster, g.cluster_bytes(), report),
        }
    }
}

/// Where an L1 table of so many entries ends.
fn table_end(at: u64, entries: u32) -> u64 {
    at.saturating_add(u64::from(entries).saturating_mul(8))
}

/// Why bitmaps cannot be looked at.
fn bitmap_problem(error: &Error) -> String {
    match error.source() {
        Some(source) => format!("ERROR bitmaps: {error}: {source}"),
        None => format!("ERROR bitmaps: {error}"),
    }
}
