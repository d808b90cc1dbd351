//! Random changes against plain bytes.

use rimg_core::{Error, ExtentKind, FormatDriver, RawOptions};
use rimg_testkit::drill::Drill;
use rimg_testkit::{MemoryDir, MemoryStorage, ModelDisk};
use std::sync::Arc;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_parallels::DRIVER];

#[test]
fn the_smallest_clusters() {
    Drill::new(DRIVERS, 300 << 10).with("cluster_size", "512").model(20, 40);
}

#[test]
fn clusters_of_no_power_of_two() {
    Drill::new(DRIVERS, 700 << 10).with("cluster_size", "32256").model(20, 40);
}

#[test]
fn large_clusters() {
    Drill::new(DRIVERS, 3 << 20).model(10, 40);
}

/// Two storages, the second of which has a snapshot: an expandable image over a plain one.
#[test]
fn bundles_show_what_their_parts_hold() {
    const TOP: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
    const BASE: &str = "{12345678-6958-40ff-92a7-860e329aab41}";
    let dir = MemoryDir::new(DRIVERS);
    let mut disk = ModelDisk::new(300 << 10);
    let write = |name: &str, size: u64, at: u64, byte: u8| {
        dir.create(name, "parallels", size, &options()).unwrap();
        let image = dir.open(name, "parallels", true).unwrap();
        image.writer().unwrap().write_at(&[byte; 5000], at).unwrap();
        image.close().unwrap();
    };
    write("first-top", 100 << 10, 3000, 1);
    write("first-base", 100 << 10, 0, 2);
    write("second-top", 200 << 10, 90_000, 3);
    let plain = vec![9; 150 << 10];
    disk.write(&vec![9; 150 << 10], 100 << 10);
    dir.put("second-base", Arc::new(MemoryStorage::from(plain)));
    // The top is there in whole clusters of 4 KiB.
    disk.write(&[2; 5000], 0);
    disk.write(&[0; 8192], 0);
    disk.write(&[1; 5000], 3000);
    disk.write(&[0; 12_288], (100 << 10) + 86_016);
    disk.write(&[3; 5000], (100 << 10) + 90_000);
    let image = |guid, kind, file| {
        format!("<Image><GUID>{guid}</GUID><Type>{kind}</Type><File>{file}</File></Image>")
    };
    let storage = |start, end, images: String| {
        format!("<Storage><Start>{start}</Start><End>{end}</End>{images}</Storage>")
    };
    let first = image(TOP, "Compressed", "first-top") + &image(BASE, "Compressed", "first-base");
    let second = image(BASE, "Plain", "second-base") + &image(TOP, "Compressed", "second-top");
    let text = format!(
        "<?xml version='1.0'?><Parallels_disk_image Version=\"1.0\"><Disk_Parameters>\
         <Disk_size>600</Disk_size></Disk_Parameters><StorageData>{}{}</StorageData><Snapshots>\
         <Shot><GUID>{TOP}</GUID><ParentGUID>{BASE}</ParentGUID></Shot><Shot><GUID>{BASE}</GUID>\
         <ParentGUID>{{00000000-0000-0000-0000-000000000000}}</ParentGUID></Shot></Snapshots>\
         </Parallels_disk_image>",
        storage(200, 600, second),
        storage(0, 200, first),
    );
    dir.put("disk", Arc::new(MemoryStorage::from(text.into_bytes())));
    let bundle = dir.open("disk", "parallels", false).unwrap();
    disk.assert_same(bundle.as_ref(), "a bundle");
    let extent = bundle.extent_at(102_400..307_200).unwrap();
    assert!(matches!(extent.kind, ExtentKind::Data(at) if at.file > 0), "{extent:?}");
    assert!(matches!(dir.open("disk", "parallels", true), Err(Error::ReadOnly(_))));
}

fn options() -> RawOptions {
    RawOptions::new().with("cluster_size", "4096")
}

#[test]
fn a_storage_that_fails_costs_no_more_than_the_change() {
    Drill::new(DRIVERS, 700 << 10).with("cluster_size", "4096").failing(40);
}
