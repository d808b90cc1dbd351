//! The snapshot table: what is wrong with it, and a new one that is right.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Subject;
use super::counts::Counts;
use super::refcounts::Refcounts;
use super::report::Report;
use super::tables::{sync, writer};
use crate::cache::read_padded;
use crate::error::CorruptKind;
use crate::header::offset;
use crate::snapshot::{NEEDED_EXTRA_BYTES, RawSnapshot, until_nul};
use crate::spec;
use core::ops::Range;
use rimg_core::{Error, FindingKind, MetadataBudget, Repair, Result, num};

/// Extra data of a snapshot as it is written: those, and the instruction count.
const FULL_EXTRA_BYTES: usize = 24;

/// What a snapshot says of its L1 table, and what is kept of the rest.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) l1_offset: u64,
    pub(super) l1_entries: u32,
    raw: RawSnapshot,
    extra: Vec<u8>,
    /// Identifier and name as they are on disk.
    texts: Vec<u8>,
    /// The file ends before it: nothing of it is there.
    is_missing: bool,
}

/// The snapshot table as far as it can be read.
#[derive(Debug, Default)]
pub(super) struct SnapshotTable {
    pub(super) entries: Vec<Snapshot>,
    /// Where it is.
    pub(super) at: u64,
    /// How long it is in the file, in bytes.
    pub(super) bytes: u64,
    /// How long a new one of what is kept would be about, in bytes.
    kept_bytes: u64,
    /// A new one is to be written.
    rewrite: bool,
    /// It has entries behind those that are kept.
    overhangs: bool,
}

impl SnapshotTable {
    /// Reads the table. What is too much of it is an error, or is left out where everything is to
    /// be repaired.
    pub(super) fn read(subject: &Subject<'_>, report: &mut Report<'_>) -> Result<Self> {
        let header = &subject.header;
        let all = report.repair() == Repair::All;
        let mut table = Self { at: header.snapshots_offset, ..Self::default() };
        let mut count = header.snapshot_count;
        if let Some(overhang) = count.checked_sub(spec::MAX_SNAPSHOTS).filter(|more| *more > 0) {
            if !all {
                return Err(Error::Limit {
                    what: "number of snapshots",
                    needed: count.into(),
                    limit: spec::MAX_SNAPSHOTS.into(),
                });
            }
            table.cut(overhang, format!("Discarding {overhang} overhanging snapshots"), report);
            count = spec::MAX_SNAPSHOTS;
        }
        if count > 0 && (!header.geometry.is_aligned(table.at) || i64::try_from(table.at).is_err())
        {
            let kind = CorruptKind::Misaligned(table.at);
            return Err(kind.at("header", "snapshots_offset", offset::SNAPSHOTS));
        }
        let mut budget = subject.limits.metadata_budget();
        for index in 0..count {
            if !table.read_entry(subject, index, all, &mut budget, report)? {
                let left = count.saturating_sub(index);
                let why = "snapshot table is too big";
                table.cut(left, format!("Discarding {left} overhanging snapshots ({why})"), report);
                break;
            }
        }
        if header.version >= 3 {
            table.report_incomplete(all, report);
        }
        Ok(table)
    }

    /// Reads one more entry; `false` where the table is too long with it.
    fn read_entry(
        &mut self,
        subject: &Subject<'_>,
        index: u32,
        all: bool,
        budget: &mut MetadataBudget,
        report: &mut Report<'_>,
    ) -> Result<bool> {
        // Entries start at multiples of 8 from the start of the table, which is aligned.
        let at = self.at.saturating_add(self.bytes);
        let at = num::align_up(at, 8).unwrap_or(u64::MAX);
        let file = subject.file;
        let mut fixed = [0; RawSnapshot::SIZE_BYTES];
        read_padded(file, &mut fixed, at).map_err(Error::io("read snapshot table", at))?;
        let raw = RawSnapshot::parse(&fixed);
        let extra_at = at.saturating_add(num::to_u64(fixed.len()));
        if raw.extra_data_size > spec::MAX_SNAPSHOT_EXTRA_BYTES {
            let (len, max) = (raw.extra_data_size, spec::MAX_SNAPSHOT_EXTRA_BYTES);
            if !all {
                let kind = CorruptKind::SnapshotExtra(index);
                return Err(kind.at("snapshot table", "extra_data_size", extra_at));
            }
            let what = "Discarding too much extra metadata in snapshot table entry";
            self.mend(format!("{what} {index} ({len} > {max})"), report);
        }
        let extra_bytes = raw.extra_data_size.min(spec::MAX_SNAPSHOT_EXTRA_BYTES);
        let texts_at = extra_at.saturating_add(raw.extra_data_size.into());
        let texts_bytes = u64::from(raw.id_str_size).saturating_add(raw.name_size.into());
        let end = texts_at.saturating_add(texts_bytes);
        let bytes = end.saturating_sub(self.at);
        let kept = num::to_u64(fixed.len()).saturating_add(extra_bytes.into());
        let kept = kept.saturating_add(texts_bytes).saturating_add(self.kept_bytes);
        budget.reserve("snapshot table", num::to_u64(size_of::<Snapshot>()))?;
        if bytes > spec::MAX_SNAPSHOT_TABLE_BYTES && kept > spec::MAX_SNAPSHOT_TABLE_BYTES {
            if !all {
                let left = subject.header.snapshot_count.saturating_sub(index);
                let kind = CorruptKind::SnapshotTableTooBig(left);
                return Err(kind.at("snapshot table", "entry", at));
            }
            return Ok(false);
        }
        let mut extra = budget.buffer("snapshot table", extra_bytes.into())?;
        read_padded(file, &mut extra, extra_at).map_err(Error::io("read snapshot table", at))?;
        let mut texts = budget.buffer("snapshot table", texts_bytes)?;
        read_padded(file, &mut texts, texts_at).map_err(Error::io("read snapshot table", at))?;
        let (id, name) = texts.split_at_checked(raw.id_str_size.into()).unwrap_or_default();
        let (id, name) = (until_nul(id), until_nul(name));
        let len_of = |text: &[u8], max| u16::try_from(text.len()).unwrap_or(max);
        let raw = RawSnapshot {
            id_str_size: len_of(id, raw.id_str_size),
            name_size: len_of(name, raw.name_size),
            ..raw
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        budget.reserve("snapshot table", texts_bytes)?;
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        self.bytes = bytes;
        self.kept_bytes = kept;
        self.entries.push(Snapshot {
            id: text(id),
            name: text(name),
            l1_offset: raw.l1_table_offset,
            l1_entries: raw.l1_size,
            raw,
            extra,
            texts: [id, name].concat(),
            is_missing: at >= len,
        });
        Ok(true)
    }

    fn report_incomplete(&mut self, all: bool, report: &mut Report<'_>) {
        for index in 0..self.entries.len() {
            let Some(entry) = self.entries.get(index) else { break };
            if entry.extra.len() >= NEEDED_EXTRA_BYTES {
                continue;
            }
            let what = format!("snapshot table entry {index} is incomplete");
            if all {
                self.mend(format!("Repairing {what}"), report);
            } else {
                report.add(FindingKind::Corruption, format!("ERROR {what}"));
            }
        }
    }

    fn mend(&mut self, message: String, report: &mut Report<'_>) {
        report.add_repaired(FindingKind::Corruption, message);
        self.rewrite = true;
    }

    /// That many entries at the end go: what is before them may stay where it is.
    fn cut(&mut self, count: u32, message: String, report: &mut Report<'_>) {
        report.add_repaired_many(count, FindingKind::Corruption, message);
        self.overhangs = true;
    }

    /// Writes a table of what was kept, where it was found to be needed: to clusters that nothing
    /// uses, then the header, and only then are the old clusters given back.
    ///
    /// New clusters are looked for from cluster `from` on.
    pub(super) fn write(
        &self,
        from: u64,
        subject: &mut Subject<'_>,
        counts: &mut Counts,
        refcounts: &mut Refcounts<'_>,
    ) -> Result<()> {
        if !self.rewrite {
            return if self.overhangs { self.write_count(subject) } else { Ok(()) };
        }
        let g = subject.header.geometry;
        let kept: Vec<&Snapshot> = self.entries.iter().filter(|entry| !entry.is_missing).collect();
        let mut bytes = Vec::new();
        for entry in &kept {
            entry.encode(subject.header.size_bytes, &mut bytes);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let clusters = g.clusters_for(num::to_u64(bytes.len()));
        let old_end = self.at.saturating_add(self.bytes);
        let old = g.cluster_index(self.at)..g.clusters_for(old_end.min(counts.file_len()));
        let mut at = 0;
        let mut new = 0..0;
        if clusters > 0 {
            let first = place_for(counts, refcounts, from, clusters, &old)?;
            new = first..first.saturating_add(clusters);
            counts.take(first, clusters)?;
            at = g.cluster_offset(first);
        }
        let file = writer(subject.file)?;
        if clusters > 0 {
            file.write_all_at(&bytes, at).map_err(Error::io("write snapshot table", at))?;
        }
        refcounts.write(new, counts)?;
        sync(subject.file)?;
        // Number and offset are next to each other in one sector: both change or none does.
        let count = u32::try_from(kept.len()).unwrap_or(u32::MAX);
        let mut field = [0; 12];
        let (count_bytes, at_bytes) = field.split_at_mut(4);
        count_bytes.copy_from_slice(&count.to_be_bytes());
        at_bytes.copy_from_slice(&at.to_be_bytes());
        file.write_all_at(&field, offset::SNAPSHOT_COUNT)
            .map_err(Error::io("write header", offset::SNAPSHOT_COUNT))?;
        sync(subject.file)?;
        if self.bytes > 0 && counts.is_in_file(old_end) {
            counts.release(old.clone())?;
            refcounts.write(old, counts)?;
        }
        subject.header.snapshot_count = count;
        subject.header.snapshots_offset = at;
        Ok(())
    }
}

impl SnapshotTable {
    /// Lets the table end behind what is kept of it. The clusters behind it were not counted.
    fn write_count(&self, subject: &mut Subject<'_>) -> Result<()> {
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        writer(subject.file)?
            .write_all_at(&count.to_be_bytes(), offset::SNAPSHOT_COUNT)
            .map_err(Error::io("write header", offset::SNAPSHOT_COUNT))?;
        sync(subject.file)?;
        subject.header.snapshot_count = count;
        Ok(())
    }
}

/// The first `clusters` free clusters in a row, from `from` on, whose refcounts have places; none of
/// `but`, which is in use even if it could not be counted.
fn place_for(
    counts: &Counts,
    refcounts: &Refcounts<'_>,
    mut from: u64,
    clusters: u64,
    but: &Range<u64>,
) -> Result<u64> {
    loop {
        let first = counts.first_free(from, clusters);
        let end = first.saturating_add(clusters);
        if first < but.end && but.start < end {
            from = but.end;
            continue;
        }
        let missing = (first..end).find(|cluster| !refcounts.has_place(*cluster));
        match missing {
            None => return Ok(first),
            Some(cluster) if cluster < counts.clusters() => from = cluster.saturating_add(1),
            Some(cluster) => {
                return Err(Error::Limit {
                    what: "clusters with a refcount",
                    needed: cluster,
                    limit: counts.clusters(),
                });
            }
        }
    }
}

impl Snapshot {
    /// Appends the entry with all the extra data that it should have.
    fn encode(&self, disk_size_bytes: u64, bytes: &mut Vec<u8>) {
        let defaults: [u64; 3] = [self.raw.vm_state_size.into(), disk_size_bytes, u64::MAX];
        let defaults = defaults.map(u64::to_be_bytes).concat();
        let mut extra = self.extra.clone();
        // Of a word that is cut off nothing is known.
        if extra.len() < FULL_EXTRA_BYTES {
            extra.truncate(extra.len() & !7);
            extra.extend_from_slice(defaults.get(extra.len()..).unwrap_or_default());
        }
        let extra_data_size = u32::try_from(extra.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&RawSnapshot { extra_data_size, ..self.raw }.encode());
        bytes.extend_from_slice(&extra);
        bytes.extend_from_slice(&self.texts);
    }
}
