//! The table of the README is true.

use rimg_core::FormatDriver;
use rimg_testkit::capability::{self, Kind};

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_parallels::DRIVER];

#[test]
fn the_readme_tells_the_truth() {
    let kinds = [Kind::created("image", DRIVERS).with("cluster_size", "4096"), bundle()];
    capability::hold_to_truth(include_str!("../README.md"), &kinds);
}

/// A bundle of one plain image.
fn bundle() -> Kind {
    const GUID: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
    let descriptor = format!(
        "<?xml version='1.0'?><Parallels_disk_image Version=\"1.0\"><Disk_Parameters>\
         <Disk_size>128</Disk_size></Disk_Parameters><StorageData><Storage><Start>0</Start>\
         <End>128</End><Image><GUID>{GUID}</GUID><Type>Plain</Type><File>plain</File></Image>\
         </Storage></StorageData><Snapshots><Shot><GUID>{GUID}</GUID>\
         <ParentGUID>{{00000000-0000-0000-0000-000000000000}}</ParentGUID></Shot></Snapshots>\
         </Parallels_disk_image>"
    );
    let disk = vec![9; 64 << 10];
    let files = [("DiskDescriptor.xml", descriptor.into_bytes()), ("plain", disk.clone())];
    Kind::given("bundle", "parallels", DRIVERS, &files, disk)
}
