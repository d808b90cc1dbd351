//! Any bytes as a qcow2 image to repair.

use super::open::{AnyName, blameless, how};
use crate::{MemoryStorage, qcow2};
use rimg_core::{BlockImage, CheckSummary, FormatDriver, Repair, Storage};
use std::sync::Arc;

/// Repairs `bytes` as an image, first its leaks, then everything.
///
/// # Panics
/// When `driver` does; when it blames its caller for what stands in the image; when guest bytes
/// that could be read change; and when a repair that says that all is well leaves something that
/// the next check finds.
pub fn check_repair(driver: &dyn FormatDriver, bytes: &[u8]) {
    let file: Arc<dyn Storage> = Arc::new(MemoryStorage::from(bytes));
    let old: Arc<dyn Storage> = Arc::new(MemoryStorage::from(bytes));
    let gate = AnyName::new();
    let open = |file: &Arc<dyn Storage>, writable, inspect| {
        blameless(driver.open(Arc::clone(file), &how(&gate, writable, inspect)))
    };
    let before = open(&old, false, false);
    for repair in [Repair::Leaks, Repair::All] {
        let Some(image) = open(&file, true, true) else { return };
        let done = check(image.as_ref(), repair);
        blameless(image.close());
        let again = open(&file, false, true).expect("cannot be opened after a repair");
        let after = check(again.as_ref(), Repair::Nothing);
        if let Some(done) = done.filter(is_sound) {
            let after = after.expect("cannot be checked after a repair");
            assert!(is_sound(&after) && after.leaks == 0, "{repair:?}: {done:?}, then {after:?}");
        }
        let Some(before) = &before else { continue };
        let after = open(&file, false, false).expect("cannot be read after a repair");
        if let Some(what) = qcow2::guest_differs(bytes, before.as_ref(), after.as_ref()) {
            panic!("{repair:?}: {what}");
        }
    }
}

fn check(image: &dyn BlockImage, repair: Repair) -> Option<CheckSummary> {
    let mut findings = 0_u64;
    let summary = blameless(image.checker()?.check(repair, &mut |_| findings += 1))?;
    assert!(findings < 10_000_000, "endless findings");
    Some(summary)
}

fn is_sound(summary: &CheckSummary) -> bool {
    summary.corruptions == 0 && summary.check_errors == 0
}
