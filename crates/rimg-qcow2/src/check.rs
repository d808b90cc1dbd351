//! Checking metadata: what is referred to, against what is counted; and repairing it.
//!
//! Everything that refers to a cluster of the file is walked once and counted; then each count is
//! compared with the refcount on disk, and each COPIED flag with it. Findings come in the order and
//! in the words of QEMU's check. Memory is two bits for most clusters of the file, and what a few
//! tables need; work is bounded by what the file can hold of tables.
//!
//! A repair can be interrupted at any time and leaves nothing worse than it was: single refcounts
//! and flags are put right where they stand; what is made anew lies in clusters that nothing uses
//! and is durable before the header leads to it; and nothing is given back before what refers to it
//! is durably gone. When something could not be looked at, nothing is repaired, as what it refers
//! to would look unused.

mod counts;
mod flags;
mod pages;
mod rebuild;
mod refcounts;
mod references;
mod report;
mod snapshots;
mod tables;
mod walk;

use crate::address::Geometry;
use crate::allocate::Allocator;
use crate::cache::TableCache;
use crate::driver::read_l1;
use crate::error::CorruptKind;
use crate::header::{Header, offset};
use crate::image::{Access, Qcow2Image, State};
use crate::spec;
use refcounts::{Pass, Refcounts, Verdict};
use references::References;
use report::Report;
use rimg_core::{
    Check, CheckSummary, Error, Finding, FindingKind, Limits, Repair, Result, Storage, num, op,
};
use snapshots::SnapshotTable;
use tables::{sync, writer};

impl Check for Qcow2Image {
    fn check(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        if repair != Repair::Nothing && !matches!(self.access, Access::Write | Access::Repair) {
            return Err(Error::ReadOnly("it was opened for reading"));
        }
        if repair == Repair::Nothing || self.access == Access::Repair {
            return self.check_alone(repair, found);
        }
        // Clusters that are being written look like leaks.
        let _claim = self.claim_disk()?;
        self.check_alone(repair, found)
    }
}

impl Qcow2Image {
    fn check_alone(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        if self.access == Access::Write {
            // What is in memory is what counts: bring it to where the walk looks.
            self.finish_all()?;
        }
        let file = self.file.as_ref();
        let mut header = self.lock()?.header.clone();
        if repair == Repair::Nothing {
            return check(file, &mut header, self.limits, repair, found);
        }
        // Nobody may read from memory what is being repaired.
        let mut state = self.lock()?;
        let done = check(file, &mut header, self.limits, repair, found);
        let reloaded = self.reload(&mut state, header);
        let summary = done?;
        reloaded?;
        Ok(summary)
    }

    /// Reads again what was in memory of an image whose metadata was repaired.
    fn reload(&self, state: &mut State, header: Header) -> Result<()> {
        let mut budget = self.limits.metadata_budget();
        let file = self.file.as_ref();
        if self.access == Access::Write {
            state.l1 = read_l1(file, header.l1_offset, header.l1_entries, &mut budget)?;
            state.allocator = Some(Allocator::open(
                &self.file,
                &header,
                &state.l1,
                self.overlap_check,
                &mut budget,
            )?);
        }
        state.l2 = TableCache::new(header.geometry.cluster_bytes(), crate::image::L2_CACHE_BYTES);
        state.header = header;
        Ok(())
    }
}

/// Repairs an image that was not closed properly, as is to be done before it is written: refcounts
/// are put right, and the dirty bit goes. `header` is then what is on disk.
///
/// # Errors
/// [`CorruptKind::NotRepaired`] where something stays wrong; otherwise what the storage says.
pub(crate) fn repair_refcounts(
    file: &dyn Storage,
    header: &mut Header,
    limits: Limits,
    found: &mut dyn FnMut(&Finding),
) -> Result<CheckSummary> {
    let summary = check(file, header, limits, Repair::All, found)?;
    if summary.corruptions > 0 || summary.check_errors > 0 {
        let wrong = summary.corruptions.saturating_add(summary.check_errors);
        let kind = CorruptKind::NotRepaired(wrong);
        return Err(kind.at("header", "incompatible_features", offset::INCOMPATIBLE));
    }
    Ok(summary)
}

/// What is checked.
pub(super) struct Subject<'a> {
    file: &'a dyn Storage,
    header: Header,
    limits: Limits,
}

/// Checks an image, apart from any that is open. `header` follows what a repair does to it.
fn check(
    file: &dyn Storage,
    header: &mut Header,
    limits: Limits,
    repair: Repair,
    found: &mut dyn FnMut(&Finding),
) -> Result<CheckSummary> {
    let mut report = Report::new(repair, found);
    let mut subject = Subject { file, header: header.clone(), limits };
    let done = subject.check(&mut report);
    *header = subject.header;
    done.map(|()| report.summary)
}

impl Subject<'_> {
    fn check(&mut self, report: &mut Report<'_>) -> Result<()> {
        if report.repair() != Repair::Nothing {
            self.clear_unknown_autoclear()?;
        }
        let snapshots = SnapshotTable::read(self, report)?;
        report.set_aside();
        let mut references = self.count(&snapshots, report)?;
        let mut budget = self.limits.metadata_budget();
        let mut refcounts = Refcounts::read(self, &mut budget)?;
        let rebuild = refcounts.count(&mut references.counts, report)?;
        let mut verdict = refcounts.compare(&references.counts, Pass::Look, false, report)?;
        // What could not be looked at may refer to anything.
        let may_repair = report.repair() != Repair::Nothing && !references.is_incomplete;
        if may_repair && (rebuild || verdict.rebuild) {
            if report.repair() != Repair::All {
                let message = "ERROR need to rebuild refcount structures".to_owned();
                report.tell(FindingKind::Note, message, false);
                let kind = CorruptKind::RefcountsMustBeRebuilt;
                return Err(kind.at("header", "refcount_table_offset", offset::REFCOUNT_TABLE));
            }
            report.tell(FindingKind::Note, "Rebuilding refcount structure".to_owned(), false);
            let before = report.summary;
            if !references.is_sound && self.grow_past_strays(&references)? {
                // What was nowhere is somewhere now, and has to be counted.
                let mut say_nothing = |_: &Finding| {};
                let mut quiet = Report::new(report.repair(), &mut say_nothing);
                references = self.count(&snapshots, &mut quiet)?;
                refcounts.count(&mut references.counts, &mut quiet)?;
                references.is_sound = false;
            }
            let from = references.first_usable();
            rebuild::rebuild(self, &mut references.counts, from)?;
            report.start_again();
            references = self.count(&snapshots, report)?;
            refcounts = Refcounts::read(self, &mut self.limits.metadata_budget())?;
            refcounts.count(&mut references.counts, report)?;
            verdict =
                refcounts.compare(&references.counts, Pass::TidyUp, references.is_sound, report)?;
            report.count_as_repaired_since(&before);
            sync(self.file)?;
        } else if may_repair && (report.summary.leaks > 0 || report.summary.corruptions > 0) {
            if references.wrote {
                sync(self.file)?;
            }
            let pass = Pass::Mend(report.repair());
            // Where more is wrong, what seems unused may be all that is left of something.
            let discard = report.is_sound();
            verdict = refcounts.compare(&references.counts, pass, discard, report)?;
            sync(self.file)?;
        }
        if may_repair {
            let from = references.first_usable();
            snapshots.write(from, self, &mut references.counts, &mut refcounts)?;
        }
        self.compare_flags(&references, verdict, &mut refcounts, report)?;
        if may_repair {
            self.clear_marks(report.is_sound(), verdict)?;
        }
        Ok(())
    }

    fn count(&self, snapshots: &SnapshotTable, report: &mut Report<'_>) -> Result<References> {
        let size_bytes = num::align_down(self.header.size_bytes, spec::SECTOR_BYTES);
        // QEMU counts clusters of whole sectors.
        report.summary.total_clusters = self.geometry().clusters_for(size_bytes);
        References::count(self, snapshots, report)
    }

    /// New structures go behind the end of the file, but not to where references lead that are
    /// wrong for now: those get zeroes of their own, as QEMU reads there.
    /// Says whether the file is longer than when it was counted.
    fn grow_past_strays(&self, references: &References) -> Result<bool> {
        let counts = &references.counts;
        if counts.stray_end() > counts.file_len() {
            let end = self.geometry().cluster_offset(counts.untouched_from());
            writer(self.file)?.set_len_bytes(end).map_err(Error::io(op::EXTEND_FILE, end))?;
            return Ok(true);
        }
        Ok(counts.file_len() > references.counted_len)
    }

    /// Looks at the tables a second time only if something is, or was, wrong.
    fn compare_flags(
        &self,
        references: &References,
        verdict: Verdict,
        refcounts: &mut Refcounts<'_>,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let counts = &references.counts;
        if verdict.differs || verdict.wrong_flags || counts.has_stray_flags() {
            flags::compare(self, references, refcounts, report)?;
        }
        Ok(())
    }

    /// Clears the marks that say that the image is not in order, as far as it is now.
    fn clear_marks(&mut self, is_sound: bool, verdict: Verdict) -> Result<()> {
        use spec::incompatible::{CORRUPT, DIRTY};
        let marks = if is_sound {
            DIRTY | CORRUPT
        } else if verdict.differs_still {
            0
        } else {
            DIRTY
        };
        let clear = self.header.incompatible & !marks;
        if clear != self.header.incompatible {
            sync(self.file)?;
            self.write_feature(offset::INCOMPATIBLE, clear)?;
            self.header.incompatible = clear;
        }
        sync(self.file)
    }

    /// Features that this crate does not keep up are given up, as everyone who writes has to.
    fn clear_unknown_autoclear(&mut self) -> Result<()> {
        use spec::autoclear::{BITMAPS, DATA_FILE_RAW};
        // Bitmaps are about guest data, which no repair changes.
        let kept = self.header.autoclear & (BITMAPS | DATA_FILE_RAW);
        if kept != self.header.autoclear {
            self.write_feature(offset::AUTOCLEAR, kept)?;
            sync(self.file)?;
            self.header.autoclear = kept;
        }
        Ok(())
    }

    fn write_feature(&self, at: u64, bits: u64) -> Result<()> {
        writer(self.file)?
            .write_all_at(&bits.to_be_bytes(), at)
            .map_err(Error::io("write header", at))
    }

    const fn geometry(&self) -> Geometry {
        self.header.geometry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;
    use rimg_testkit::{MemoryStorage, golden};

    fn dirty() -> (MemoryStorage, Header) {
        let path = golden::testdata().join("qcow2/cluster-512.qcow2");
        let mut bytes = std::fs::read(path).unwrap();
        let place = num::to_usize(offset::INCOMPATIBLE).unwrap();
        bytes[place..place + 8].copy_from_slice(&spec::incompatible::DIRTY.to_be_bytes());
        let header = Header::parse(&bytes).unwrap();
        (MemoryStorage::from(bytes), header)
    }

    fn write(file: &MemoryStorage, at: u64, word: u64) {
        file.writer().unwrap().write_all_at(&word.to_be_bytes(), at).unwrap();
    }

    #[test]
    fn a_dirty_image_is_repaired_and_clean() {
        let (file, mut header) = dirty();
        let mut table = [0; 8];
        file.read_exact_at(&mut table, header.refcount_table_offset).unwrap();
        write(&file, u64::from_be_bytes(table) + 8, 0);
        let summary = repair_refcounts(&file, &mut header, Limits::default(), &mut |_| {}).unwrap();
        assert!(summary.corruptions_fixed > 0, "{summary:?}");
        assert!(!header.has(spec::incompatible::DIRTY));
        let mut start = vec![0; 512];
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(Header::parse(&start).unwrap(), header);
    }

    #[test]
    fn what_cannot_be_repaired_is_an_error() {
        let (file, mut header) = dirty();
        write(&file, header.l1_offset, 1 << 40);
        let error =
            repair_refcounts(&file, &mut header, Limits::default(), &mut |_| {}).unwrap_err();
        assert_eq!(kind_of(&error), Some(&CorruptKind::NotRepaired(1)));
    }
}
