//! COPIED flags, against the refcounts on disk.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Subject;
use super::refcounts::Refcounts;
use super::references::References;
use super::report::Report;
use super::tables::{Tables, Work, for_each_entry, write_word};
use crate::spec;
use core::ops::Range;
use rimg_core::{FindingKind, Repair, Result, num};

/// Compares the COPIED flags of the disk's tables with refcounts, and mends them where that may be
/// done: where all is to be repaired, or nothing else is wrong; and never in a cluster that is
/// other metadata as well, of which a flag would be anything.
pub(super) fn compare(
    subject: &Subject<'_>,
    references: &References,
    refcounts: &mut Refcounts<'_>,
    report: &mut Report<'_>,
) -> Result<()> {
    let g = subject.header.geometry;
    let (l1, file_len) = (&references.l1, references.counts.file_len());
    let l1_place = references.l1_place(&subject.header);
    let others = || references.places.iter().cloned().chain(refcounts.places());
    let may_write_l1 = !Overlaps::new(others()).touch(l1_place.clone());
    let overlaps = Overlaps::new(others().chain([l1_place]));
    let has_data_file = subject.header.has(spec::incompatible::DATA_FILE);
    let mend = match report.repair() {
        Repair::Nothing => false,
        Repair::Leaks => report.are_references_clean(),
        Repair::All => true,
    };
    let mut say = |message: String, mend: bool| {
        if mend {
            report.add_repaired(FindingKind::Corruption, format!("Repairing {message}"));
        } else {
            report.add(FindingKind::Corruption, format!("ERROR {message}"));
        }
    };
    let mut tables = Tables::new(subject.file, file_len, g, &mut subject.limits.metadata_budget())?;
    let mut work = Work::for_file(subject.file, file_len)?;
    let mut changes = Vec::new();
    for (index, entry) in l1.iter().enumerate() {
        let table_at = entry & spec::OFFSET_MASK;
        if table_at == 0 {
            continue;
        }
        let Some(refcount) = refcounts.at(table_at)? else { continue };
        let may_write =
            mend && !overlaps.touch(table_at..table_at.saturating_add(g.cluster_bytes()));
        if (refcount == 1) != (entry & spec::COPIED != 0) {
            let what = format!(
                "OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={refcount}"
            );
            say(what, mend && may_write_l1);
            if mend && may_write_l1 {
                let at = num::to_u64(index).saturating_mul(8);
                let at = subject.header.l1_offset.saturating_add(at);
                write_word(subject.file, at, with_copied(*entry, refcount), "write L1 table")?;
            }
        }
        if table_at >= file_len {
            continue;
        }
        // That not all of them are looked at was said when they were counted.
        if !work.take(g.cluster_bytes()) {
            break;
        }
        let together = tables.side_by_side(l1, index);
        changes.clear();
        for_each_entry(tables.load(table_at, together)?, g, |index, entry| {
            let host = entry.descriptor & spec::OFFSET_MASK;
            if entry.descriptor & spec::COMPRESSED != 0 || host == 0 {
                return Ok(());
            }
            // Nobody counts the clusters of a data file: each belongs to one guest cluster.
            let known = if has_data_file { Some(1) } else { refcounts.at(host)? };
            let Some(refcount) = known else { return Ok(()) };
            if (refcount == 1) != (entry.descriptor & spec::COPIED != 0) {
                let descriptor = entry.descriptor;
                let what = format!(
                    "OFLAG_COPIED data cluster: l2_entry={descriptor:x} refcount={refcount}"
                );
                say(what, may_write);
                changes.push((index, with_copied(descriptor, refcount)));
            }
            Ok(())
        })?;
        if may_write && !changes.is_empty() {
            tables.write(table_at, &changes)?;
        }
    }
    Ok(())
}

/// Regions, to be asked for overlaps.
struct Overlaps {
    /// Sorted by their starts.
    regions: Vec<Range<u64>>,
    longest: u64,
}

impl Overlaps {
    fn new(regions: impl Iterator<Item = Range<u64>>) -> Self {
        let mut regions: Vec<_> = regions.filter(|region| !region.is_empty()).collect();
        regions.sort_unstable_by_key(|region| region.start);
        regions.dedup();
        let lengths = regions.iter().map(|region| region.end.saturating_sub(region.start));
        let longest = lengths.max().unwrap_or(0);
        Self { regions, longest }
    }

    fn touch(&self, region: Range<u64>) -> bool {
        let from = region.start.saturating_sub(self.longest);
        let first = self.regions.partition_point(|other| other.start < from);
        let near = self.regions.get(first..).unwrap_or_default();
        near.iter()
            .take_while(|other| other.start < region.end)
            .any(|other| other.end > region.start)
    }
}

const fn with_copied(entry: u64, refcount: u64) -> u64 {
    if refcount == 1 { entry | spec::COPIED } else { entry & !spec::COPIED }
}
