//! Runs the same command lines with rimg and with qemu-img and compares what they do.
//!
//! The command lines are in `peer/*.cases`, whose verbs `peer/runner.rs` explains. Those of
//! programs that call qemu-img are in `consumers/*.cases`.

#[path = "peer/runner.rs"]
mod runner;

use runner::run_cases;

#[test]
fn usage() {
    run_cases(include_str!("peer/usage.cases"));
}

#[test]
fn create() {
    run_cases(include_str!("peer/create.cases"));
}

#[test]
fn create_options() {
    run_cases(include_str!("peer/options.cases"));
}

#[test]
fn info() {
    run_cases(include_str!("peer/info.cases"));
}

#[test]
fn nodes() {
    run_cases(include_str!("peer/nodes.cases"));
}

#[test]
fn map() {
    run_cases(include_str!("peer/map.cases"));
}

#[test]
fn compare() {
    run_cases(include_str!("peer/compare.cases"));
}

#[test]
fn check() {
    run_cases(include_str!("peer/check.cases"));
}

#[test]
fn convert() {
    run_cases(include_str!("peer/convert.cases"));
}

#[test]
fn vdi() {
    run_cases(include_str!("peer/vdi.cases"));
}

#[test]
fn vpc() {
    run_cases(include_str!("peer/vpc.cases"));
}

#[test]
fn measure() {
    run_cases(include_str!("peer/measure.cases"));
}

#[test]
fn rebase() {
    run_cases(include_str!("peer/rebase.cases"));
}

#[test]
fn commit() {
    run_cases(include_str!("peer/commit.cases"));
}

#[test]
fn parallels() {
    run_cases(include_str!("peer/parallels.cases"));
}

#[test]
fn qcow() {
    run_cases(include_str!("peer/qcow.cases"));
}

#[test]
fn qed() {
    run_cases(include_str!("peer/qed.cases"));
}

#[test]
fn bitmap() {
    run_cases(include_str!("peer/bitmap.cases"));
}

#[test]
fn encryption() {
    run_cases(include_str!("peer/encryption.cases"));
}

#[test]
fn legacy() {
    run_cases(include_str!("peer/legacy.cases"));
}

#[test]
fn luks() {
    run_cases(include_str!("peer/luks.cases"));
}

#[test]
fn snapshot() {
    run_cases(include_str!("peer/snapshot.cases"));
}

#[test]
fn resize() {
    run_cases(include_str!("peer/resize.cases"));
}

#[test]
fn amend() {
    run_cases(include_str!("peer/amend.cases"));
}

#[test]
fn dd() {
    run_cases(include_str!("peer/dd.cases"));
}

#[test]
fn bench() {
    run_cases(include_str!("peer/bench.cases"));
}

#[test]
fn names() {
    run_cases(include_str!("peer/names.cases"));
}

#[test]
fn nbd() {
    run_cases(include_str!("peer/nbd.cases"));
}

#[test]
fn blkdebug() {
    run_cases(include_str!("peer/blkdebug.cases"));
}

#[test]
fn full_disks() {
    run_cases(include_str!("peer/full.cases"));
}

#[test]
fn vhdx() {
    run_cases(include_str!("peer/vhdx.cases"));
}

#[test]
fn vmdk() {
    run_cases(include_str!("peer/vmdk.cases"));
}
