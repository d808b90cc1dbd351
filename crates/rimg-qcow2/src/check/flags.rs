//! COPIED flags, against the refcounts on disk.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Subject;
use super::refcounts::Refcounts;
use super::report::Report;
use super::tables::{Tables, Work, entries, write_word};
use crate::spec;
use rimg_core::{FindingKind, Repair, Result, num};

/// Compares the COPIED flags of the disk's tables with refcounts, and mends them where that may be
/// done: where all is to be repaired, or nothing else is wrong.
pub(super) fn compare(
    subject: &Subject<'_>,
    l1: &[u64],
    file_len: u64,
    refcounts: &mut Refcounts<'_>,
    report: &mut Report<'_>,
) -> Result<()> {
    let g = subject.header.geometry;
    let has_data_file = subject.header.has(spec::incompatible::DATA_FILE);
    let mend = match report.repair() {
        Repair::Nothing => false,
        Repair::Leaks => report.are_references_clean(),
        Repair::All => true,
    };
    let mut say = |message: String| {
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
        if (refcount == 1) != (entry & spec::COPIED != 0) {
            say(format!(
                "OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={refcount}"
            ));
            if mend {
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
        for (index, entry) in entries(tables.load(table_at, together)?, g) {
            let host = entry.descriptor & spec::OFFSET_MASK;
            if entry.descriptor & spec::COMPRESSED != 0 || host == 0 {
                continue;
            }
            // Nobody counts the clusters of a data file: each belongs to one guest cluster.
            let known = if has_data_file { Some(1) } else { refcounts.at(host)? };
            let Some(refcount) = known else { continue };
            if (refcount == 1) != (entry.descriptor & spec::COPIED != 0) {
                let descriptor = entry.descriptor;
                say(format!(
                    "OFLAG_COPIED data cluster: l2_entry={descriptor:x} refcount={refcount}"
                ));
                changes.push((index, with_copied(descriptor, refcount)));
            }
        }
        if mend && !changes.is_empty() {
            tables.write(table_at, &changes)?;
        }
    }
    Ok(())
}

const fn with_copied(entry: u64, refcount: u64) -> u64 {
    if refcount == 1 { entry | spec::COPIED } else { entry & !spec::COPIED }
}
