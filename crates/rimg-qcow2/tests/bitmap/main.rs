//! Persistent dirty bitmaps against plain lists of truth values, over crashes, and in images that
//! somebody damaged on purpose.
#![expect(clippy::single_range_in_vec_init, reason = "a list of runs may hold one")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod changes;
#[path = "../common/mod.rs"]
mod common;
mod crash;
mod golden;
mod hostile;
mod model;

use rimg_core::{BlockImage, Finding, FindingKind, Repair};
use std::ops::Range;

/// The whole of a bitmap: its runs of set bits, in bytes of the disk.
fn runs(image: &dyn BlockImage, name: &str) -> Vec<Range<u64>> {
    let size = image.size_bytes();
    let mut runs = Vec::new();
    let mut at = 0;
    while let Some(run) = image.bitmaps().unwrap().dirty_run(name, at..size).unwrap() {
        assert!(at <= run.start && run.start < run.end && run.end <= size, "{run:?}");
        at = run.end;
        runs.push(run);
    }
    runs
}

/// What a check finds.
fn findings(image: &dyn BlockImage) -> Vec<(FindingKind, String)> {
    let mut findings = Vec::new();
    let mut found = |finding: &Finding| findings.push((finding.kind, finding.message.clone()));
    image.checker().unwrap().check(Repair::Nothing, &mut found).unwrap();
    findings
}
