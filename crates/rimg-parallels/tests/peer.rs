//! What rimg writes, QEMU reads, checks and goes on writing, and rimg reads that.

use rimg_core::FormatDriver;
use rimg_testkit::drill::{Drill, Qemu};
use rimg_testkit::peer::Peer;
use rimg_testkit::{MemoryDir, MemoryStorage, ModelDisk, Rng};
use std::fs;
use std::sync::Arc;

static DRIVERS: &[&dyn FormatDriver] = &[&rimg_parallels::DRIVER];

// It leaks the last cluster when it lets go of it.
const QEMU: Qemu = Qemu { checks: true, zeroes: false };

type Options = &'static [(&'static str, &'static str)];

/// Options, and sizes that the disk gets one after the other.
const IMAGES: &[(Options, &[u64])] = &[
    (&[], &[5 << 20, 9 << 20]),
    (&[("cluster_size", "512")], &[300 << 10, 1 << 20, 200 << 10]),
    (&[("cluster_size", "4096")], &[1 << 20, 9 << 20, 3 << 20, 6 << 20]),
];

#[test]
fn qemu_goes_on_with_what_rimg_wrote() {
    for (options, sizes) in IMAGES {
        Drill::new(DRIVERS, sizes[0]).with_all(options).qemu_goes_on(&sizes[1..], QEMU);
    }
}

/// A disk in two parts, each an image that QEMU made; the text as the specification has it.
#[test]
fn bundles_of_what_qemu_made_are_read() {
    const PART: u64 = 1 << 20;
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut disk = ModelDisk::new(2 * PART);
    let mut data = vec![0; 700 << 10];
    Rng::new(3).fill(&mut data);
    disk.write(&data, 500 << 10);
    let dir = MemoryDir::new(DRIVERS);
    for (name, cluster, at) in [("a.hds", "65536", 0), ("b.hds", "4096", PART)] {
        let raw = folder.path().join("raw");
        let image = folder.path().join(name);
        fs::write(&raw, disk.read(at..at + PART)).unwrap();
        let options = format!("cluster_size={cluster}");
        let how = ["convert", "-f", "raw", "-O", "parallels", "-o", &options];
        qemu_img.ok(how.iter().map(AsRef::as_ref).chain([raw.as_os_str(), image.as_os_str()]));
        dir.put(name, Arc::new(MemoryStorage::from(fs::read(image).unwrap())));
    }
    let text = r#"<?xml version='1.0' encoding='UTF-8'?>
<Parallels_disk_image Version="1.0">
    <Disk_Parameters>
        <Disk_size>4096</Disk_size>
        <Cylinders>4</Cylinders>
        <Heads>16</Heads>
        <Sectors>63</Sectors>
        <Padding>0</Padding>
    </Disk_Parameters>
    <StorageData>
        <Storage>
            <Start>0</Start>
            <End>2048</End>
            <Blocksize>128</Blocksize>
            <Image>
                <GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>
                <Type>Compressed</Type>
                <File>a.hds</File>
            </Image>
        </Storage>
        <Storage>
            <Start>2048</Start>
            <End>4096</End>
            <Blocksize>8</Blocksize>
            <Image>
                <GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>
                <Type>Compressed</Type>
                <File>b.hds</File>
            </Image>
        </Storage>
    </StorageData>
    <Snapshots>
        <TopGUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</TopGUID>
        <Shot>
            <GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>
            <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID>
        </Shot>
    </Snapshots>
</Parallels_disk_image>
"#;
    dir.put("DiskDescriptor.xml", Arc::new(MemoryStorage::from(text.as_bytes().to_vec())));
    let bundle = dir.open("DiskDescriptor.xml", "parallels", false).unwrap();
    disk.assert_same(bundle.as_ref(), "a bundle of qemu-img's images");
}
