//! The table of the README is true.

mod common;

use common::DRIVERS;
use rimg_testkit::capability::{self, Kind};
use rimg_testkit::vmdk::{Grain, cowd, descriptor, sesparse};
use std::collections::BTreeMap;

const SECTORS: u32 = 2048;
const DISK_LEN: usize = 1 << 20;

#[test]
fn the_readme_tells_the_truth() {
    let created = [
        "monolithicSparse",
        "twoGbMaxExtentSparse",
        "monolithicFlat",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ];
    let mut kinds: Vec<Kind> =
        created.map(|name| Kind::created(name, DRIVERS).with("subformat", name)).into();
    kinds.extend([vmfs(), vmfs_sparse(), se_sparse()]);
    capability::hold_to_truth(include_str!("../README.md"), &kinds);
}

fn vmfs() -> Kind {
    let disk = vec![7; DISK_LEN];
    given("vmfs", "VMFS \"extent\"", disk.clone(), disk)
}

fn vmfs_sparse() -> Kind {
    let grains: BTreeMap<u32, Grain> =
        (0..SECTORS / 2).map(|grain| (grain, Grain::Data(vec![7; 512]))).collect();
    given("vmfsSparse", "VMFSSPARSE \"extent\"", cowd(SECTORS, 1, &grains), half_full())
}

fn se_sparse() -> Kind {
    let grains: BTreeMap<u64, Grain> =
        (0..128).map(|grain| (grain, Grain::Data(vec![7; 4096]))).collect();
    given("seSparse", "SESPARSE \"extent\"", sesparse(SECTORS.into(), &grains), half_full())
}

fn half_full() -> Vec<u8> {
    [vec![7; DISK_LEN / 2], vec![0; DISK_LEN / 2]].concat()
}

fn given(name: &'static str, extent: &str, bytes: Vec<u8>, disk: Vec<u8>) -> Kind {
    let descriptor = descriptor(name, &format!("RW {SECTORS} {extent}"));
    let files = [("disk", descriptor), ("extent", bytes)];
    Kind::given(name, "vmdk", DRIVERS, &files, disk).with("subformat", name)
}
