//! The command lines with which other programs run qemu-img, word by word, run with rimg under
//! that name and compared with qemu-img.
//!
//! A file of `consumers/` for each program; a comment above a line says where in that program it
//! stands. Only names of files are other than there. The verbs are those of `peer/runner.rs`.
//! What these programs read of the answers is in `consumers/parsers.rs`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "consumers/parsers.rs"]
mod parsers;
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

#[test]
fn cinder() {
    run_cases(include_str!("consumers/cinder.cases"));
}

#[test]
fn libvirt() {
    run_cases(include_str!("consumers/libvirt.cases"));
}

#[test]
fn virt_manager() {
    run_cases(include_str!("consumers/virt-manager.cases"));
}

#[test]
fn packer() {
    run_cases(include_str!("consumers/packer.cases"));
}

#[test]
fn vagrant() {
    run_cases(include_str!("consumers/vagrant.cases"));
}

#[test]
fn lima() {
    run_cases(include_str!("consumers/lima.cases"));
}

#[test]
fn cdi() {
    run_cases(include_str!("consumers/cdi.cases"));
}

#[test]
fn proxmox() {
    run_cases(include_str!("consumers/proxmox.cases"));
}
