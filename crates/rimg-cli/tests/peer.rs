//! Runs the same command lines with rimg and with qemu-img and compares what they do.
//!
//! The command lines are in `peer/*.cases`. A line that starts with `=` names a case and begins
//! with two empty folders; the lines after it are run in order:
//!
//! | verb | what it runs |
//! |---|---|
//! | `img` | rimg, called `qemu-img`, in one folder, and qemu-img in the other; compared |
//! | `like` | as `img`, but where the image's file ends may differ |
//! | `ref` | qemu-img in both folders, to make what `img` lines look at; has to succeed |
//! | `io` | qemu-io in both folders; has to succeed |
//! | `write` | writes into a file: its name, where, and bytes in hexadecimal |
//! | `truncate` | makes a file or changes its length: its name, the length |
//! | `remove` | removes a file |
//! | `mkdir` | makes a folder |
//! | `serve` | lets qemu-nbd export a file: socket, file, further arguments |
//! | `stop` | ends what `serve` started, as the end of the case does |
//! | `same` | gives both folders one file, where the time it was made shows |
//! | `equal` | compares the bytes of a file; the times of qcow2 snapshots may differ |
//!
//! Words are separated by spaces and may be quoted. A line ending in a backslash goes on.
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
fn vhdx() {
    run_cases(include_str!("peer/vhdx.cases"));
}

#[test]
fn vmdk() {
    run_cases(include_str!("peer/vmdk.cases"));
}
