//! What is found, told and added up.

use rimg_core::{CheckSummary, Finding, FindingKind, Repair};

/// Takes findings, passes them on and adds them up.
pub(crate) struct Report<'a> {
    found: &'a mut dyn FnMut(&Finding),
    repair: Repair,
    pub(super) summary: CheckSummary,
    /// Corruptions of the snapshot table: nothing else depends on it.
    set_aside: u64,
}

impl<'a> Report<'a> {
    pub(super) fn new(repair: Repair, found: &'a mut dyn FnMut(&Finding)) -> Self {
        Self { found, repair, summary: CheckSummary::default(), set_aside: 0 }
    }

    /// What may be repaired.
    pub(super) const fn repair(&self) -> Repair {
        self.repair
    }

    /// Something is wrong, and stays so for now.
    pub(super) fn add(&mut self, kind: FindingKind, message: String) {
        if let Some(sum) = self.open_sum(kind) {
            *sum = sum.saturating_add(1);
        }
        self.tell(kind, message, false);
    }

    /// Something was wrong that was not counted before, and is repaired.
    pub(super) fn add_repaired(&mut self, kind: FindingKind, message: String) {
        self.add_repaired_many(1, kind, message);
    }

    /// As [`add_repaired`](Self::add_repaired), of `count` things at once.
    pub(super) fn add_repaired_many(&mut self, count: u32, kind: FindingKind, message: String) {
        if let Some(sum) = self.fixed_sum(kind) {
            *sum = sum.saturating_add(count.into());
        }
        self.tell(kind, message, true);
    }

    /// Something that was counted as wrong before is repaired.
    pub(super) fn mend(&mut self, kind: FindingKind, message: String) {
        if let Some(sum) = self.open_sum(kind) {
            *sum = sum.saturating_sub(1);
        }
        self.add_repaired(kind, message);
    }

    /// Says what is done, or says again what was counted already.
    pub(super) fn tell(&mut self, kind: FindingKind, message: String, repaired: bool) {
        (self.found)(&Finding { kind, message, repaired, wordless_in_qemu: false });
    }

    /// Forgets what is wrong, as everything is to be looked at again, but not what was repaired.
    pub(super) fn start_again(&mut self) {
        let CheckSummary { corruptions_fixed, leaks_fixed, total_clusters, .. } = self.summary;
        self.summary = CheckSummary {
            corruptions_fixed,
            leaks_fixed,
            total_clusters,
            ..CheckSummary::default()
        };
    }

    /// What was wrong in `before` and is no more was repaired.
    pub(super) fn count_as_repaired_since(&mut self, before: &CheckSummary) {
        let sums = &mut self.summary;
        let corruptions = before.corruptions.saturating_sub(sums.corruptions);
        sums.corruptions_fixed = sums.corruptions_fixed.saturating_add(corruptions);
        let leaks = before.leaks.saturating_sub(sums.leaks);
        sums.leaks_fixed = sums.leaks_fixed.saturating_add(leaks);
    }

    /// What was found until now says nothing of references and refcounts.
    pub(super) const fn set_aside(&mut self) {
        self.set_aside = self.summary.corruptions;
    }

    /// Whether nothing was found of references and refcounts that is not repaired.
    pub(super) const fn are_references_clean(&self) -> bool {
        let CheckSummary { corruptions, check_errors, leaks, .. } = self.summary;
        corruptions <= self.set_aside && check_errors == 0 && leaks == 0
    }

    /// Whether nothing was found but leaks that is not repaired.
    pub(super) const fn is_sound(&self) -> bool {
        self.summary.corruptions == 0 && self.summary.check_errors == 0
    }

    fn open_sum(&mut self, kind: FindingKind) -> Option<&mut u64> {
        match kind {
            FindingKind::Leak => Some(&mut self.summary.leaks),
            FindingKind::Corruption => Some(&mut self.summary.corruptions),
            FindingKind::CheckError => Some(&mut self.summary.check_errors),
            FindingKind::Note => None,
        }
    }

    fn fixed_sum(&mut self, kind: FindingKind) -> Option<&mut u64> {
        match kind {
            FindingKind::Leak => Some(&mut self.summary.leaks_fixed),
            FindingKind::Corruption => Some(&mut self.summary.corruptions_fixed),
            FindingKind::CheckError | FindingKind::Note => None,
        }
    }
}
