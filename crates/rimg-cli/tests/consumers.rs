//! The command lines with which other programs run qemu-img, word by word, run with rimg under
//! that name and compared with qemu-img.
//!
//! A file of `consumers/` for each program; a comment above a line says where in that program it
//! stands. Only names of files are other than there. The verbs are those of `peer/runner.rs`.

#[path = "peer/runner.rs"]
mod runner;

use runner::run_cases;

#[test]
fn nova() {
    run_cases(include_str!("consumers/nova.cases"));
}

#[test]
fn glance() {
    run_cases(include_str!("consumers/glance.cases"));
}
