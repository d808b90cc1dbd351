//! Images that pass between rimg, qemu-img, qemu-io and 7-Zip.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{Folder, read_all};
use rimg_core::{Preallocation, RawOptions};
use rimg_testkit::Rng;
use rimg_testkit::peer::Peer;
use rimg_testkit::vmdk::{Grain, cowd, descriptor, sesparse};
use std::collections::BTreeMap;
use std::fs;

const SUBFORMATS: [&str; 5] = [
    "monolithicSparse",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "streamOptimized",
];

/// What qemu-img reads.
fn as_qemu_sees(qemu: &Peer, folder: &Folder, name: &str) -> Vec<u8> {
    let raw = folder.path("seen.raw");
    let image = folder.path(name);
    let (image, to) = (image.to_str().unwrap(), raw.to_str().unwrap());
    qemu.ok(["convert", "-f", "vmdk", "-O", "raw", image, to]);
    let bytes = fs::read(&raw).unwrap();
    fs::remove_file(raw).unwrap();
    bytes
}

/// Both programs write to the image in turns, and read what the other wrote.
#[test]
fn writers_take_turns() {
    let (Some(qemu), Some(io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    for subformat in SUBFORMATS {
        for theirs in [false, true] {
            let folder = Folder::new();
            let size = (40 << 20) + 512;
            if theirs {
                let option = format!("subformat={subformat}");
                let size = size.to_string();
                let path = folder.path("a.vmdk");
                let path = path.to_str().unwrap();
                qemu.ok(["create", "-q", "-f", "vmdk", "-o", &option, path, &size]);
            } else {
                folder.create("a.vmdk", size, &RawOptions::new().with("subformat", subformat));
            }
            let mut disk = vec![0; usize::try_from(size).unwrap()];
            let mut rng = Rng::new(5);
            for round in 1..6_u8 {
                let image = folder.open("a.vmdk", true).unwrap();
                for _ in 0..10 {
                    let at = rng.below(size - 100_000);
                    let range = usize::try_from(at).unwrap()..usize::try_from(at).unwrap() + 70_000;
                    disk[range.clone()].fill(round);
                    image.writer().unwrap().write_at(&disk[range], at).unwrap();
                }
                image.close().unwrap();
                let what = format!("{subformat}, theirs {theirs}, round {round}");
                assert!(as_qemu_sees(&qemu, &folder, "a.vmdk") == disk, "{what}");
                // Of streams qemu-io writes new grains only, and destroys those with a footer.
                let grain = (40 << 4) - usize::from(round);
                let range = grain << 16..(grain + 1) << 16;
                if subformat != "streamOptimized" {
                    let write = format!("write -P {} {} 64k", 0x80 | round, range.start);
                    let path = folder.path("a.vmdk");
                    io.ok(["-f", "vmdk", "-c", &write, path.to_str().unwrap()]);
                    disk[range].fill(0x80 | round);
                }
                let image = folder.open("a.vmdk", false).unwrap();
                assert!(read_all(image.as_ref()) == disk, "{what}");
            }
            let path = folder.path("a.vmdk");
            qemu.ok(["check", "-q", "-f", "vmdk", path.to_str().unwrap()]);
        }
    }
}

#[test]
fn qemu_img_reads_what_was_resized() {
    let Some(qemu) = Peer::qemu_img() else { return };
    for subformat in SUBFORMATS {
        let folder = Folder::new();
        folder.create("a.vmdk", 20 << 20, &RawOptions::new().with("subformat", subformat));
        let mut disk = vec![0; 20 << 20];
        let mut rng = Rng::new(9);
        for size in [100 << 20, (7 << 20) + 512, 90 << 20, 512, 3 << 20_u64] {
            let image = folder.open("a.vmdk", true).unwrap();
            let len = disk.len() - 100;
            disk[len..].fill(9);
            image.writer().unwrap().write_at(&disk[len..], u64::try_from(len).unwrap()).unwrap();
            let at = rng.below(u64::try_from(disk.len()).unwrap() - 256);
            image.writer().unwrap().write_at(&[3; 256], at).unwrap();
            let at = usize::try_from(at).unwrap();
            disk[at..at + 256].fill(3);
            image.resizer().unwrap().resize(size, Preallocation::Off).unwrap();
            disk.resize(usize::try_from(size).unwrap(), 0);
            image.close().unwrap();
            assert!(as_qemu_sees(&qemu, &folder, "a.vmdk") == disk, "{subformat}, {size}");
            let image = folder.open("a.vmdk", false).unwrap();
            assert!(read_all(image.as_ref()) == disk, "{subformat}, {size}");
        }
    }
}

#[test]
fn an_overlay_that_grows_does_not_show_more_of_its_parent() {
    let Some(qemu) = Peer::qemu_img() else { return };
    for zeroed_grain in ["off", "on"] {
        for (size, new) in [(32 << 20, 64 << 20), (33 << 20, 65 << 20), (1 << 20, 40 << 20_u64)] {
            let folder = Folder::new();
            folder.create("base.vmdk", 66 << 20, &RawOptions::new());
            let base = folder.open("base.vmdk", true).unwrap();
            base.writer().unwrap().write_at(&vec![5; 60 << 20], 0).unwrap();
            base.close().unwrap();
            let options = RawOptions::new()
                .with("backing_file", "base.vmdk")
                .with("backing_fmt", "vmdk")
                .with("zeroed_grain", zeroed_grain);
            folder.create("o.vmdk", size, &options);
            let image = folder.open("o.vmdk", true).unwrap();
            image.resizer().unwrap().resize(new, Preallocation::Off).unwrap();
            image.close().unwrap();
            let mut disk = vec![5; usize::try_from(size).unwrap()];
            disk.resize(usize::try_from(new).unwrap(), 0);
            assert!(as_qemu_sees(&qemu, &folder, "o.vmdk") == disk, "{zeroed_grain}, {size}");
        }
    }
}

#[test]
fn new_images_are_those_of_qemu_img() {
    let Some(qemu) = Peer::qemu_img() else { return };
    for (size, options) in [
        (0_u64, vec![]),
        (512, vec![("zeroed_grain", "on")]),
        (5_000_000, vec![("adapter_type", "lsilogic"), ("compat6", "on")]),
        (100 << 30, vec![("hwversion", "11"), ("toolsversion", "7")]),
        (5 << 40, vec![("adapter_type", "legacyESX")]),
    ] {
        let (ours, theirs) = (Folder::new(), Folder::new());
        let mut raw = RawOptions::new();
        for (name, value) in &options {
            raw.set(*name, *value);
        }
        ours.create("a.vmdk", size, &raw);
        let listed: Vec<String> =
            options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (path, size) = (theirs.path("a.vmdk"), size.to_string());
        let mut args = vec!["create", "-q", "-f", "vmdk"];
        let listed = listed.join(",");
        if !listed.is_empty() {
            args.extend(["-o", &listed]);
        }
        args.extend([path.to_str().unwrap(), &size]);
        qemu.ok(args);
        // The beginning of large ones: the rest is tables that are alike.
        let start = |folder: &Folder| {
            let bytes = read_start(&folder.path("a.vmdk"));
            let cid_at = bytes.windows(5).position(|bytes| bytes == b"\nCID=").unwrap() + 5;
            let end = cid_at + bytes[cid_at..].iter().position(|byte| *byte == b'\n').unwrap();
            // It is random, and as long as it happens to be.
            let text_end = 21 * 512;
            let descriptor = bytes[512..text_end].split(|byte| *byte == 0).next().unwrap();
            let mut neutral = [&bytes[..512], descriptor].concat();
            neutral.drain(cid_at..end);
            neutral.extend(&bytes[text_end..]);
            (neutral, fs::metadata(folder.path("a.vmdk")).unwrap().len())
        };
        assert!(start(&ours) == start(&theirs), "{size} {options:?}");
    }
}

fn read_start(path: &std::path::Path) -> Vec<u8> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path).unwrap().take(4 << 20).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn qemu_img_reads_extents_of_esxi_as_well() {
    let Some(qemu) = Peer::qemu_img() else { return };
    let mut rng = Rng::new(4);
    let mut noise = |len| {
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes);
        Grain::Data(bytes)
    };
    let folder = Folder::new();
    let grains: BTreeMap<u32, Grain> =
        [0, 1, 5, 4095, 4096, 8191].map(|grain| (grain, noise(512))).into();
    fs::write(folder.path("c-delta.vmdk"), cowd(8192, 1, &grains)).unwrap();
    let extent = "RW 8192 VMFSSPARSE \"c-delta.vmdk\"";
    fs::write(folder.path("c.vmdk"), descriptor("vmfsSparse", extent)).unwrap();
    let mut grains: BTreeMap<u64, Grain> =
        [0, 1, 7, 4095, 4096, 9000].map(|grain| (grain, noise(4096))).into();
    grains.extend([(3, Grain::Zero), (4, Grain::Unmapped)]);
    fs::write(folder.path("s-sesparse.vmdk"), sesparse(80_000, &grains)).unwrap();
    let extent = "RW 80000 SESPARSE \"s-sesparse.vmdk\"";
    fs::write(folder.path("s.vmdk"), descriptor("seSparse", extent)).unwrap();
    for name in ["c.vmdk", "s.vmdk"] {
        let image = folder.open(name, false).unwrap();
        assert!(read_all(image.as_ref()) == as_qemu_sees(&qemu, &folder, name), "{name}");
    }
}

/// 7-Zip insists on what the format's owner says of streams, and refuses those of QEMU.
#[test]
fn seven_zip_reads_streams() {
    let Some(seven_zip) = Peer::require("7zz") else { return };
    let folder = Folder::new();
    let mut rng = Rng::new(8);
    let mut disk = vec![0; (70 << 20) + 512];
    for grain in [0, 3, 4, 600, 1120] {
        let end = ((grain + 1) << 16).min(disk.len());
        rng.fill(&mut disk[grain << 16..end]);
    }
    for subformat in ["monolithicSparse", "streamOptimized"] {
        let name = format!("{subformat}.vmdk");
        let size = u64::try_from(disk.len()).unwrap();
        folder.create(&name, size, &RawOptions::new().with("subformat", subformat));
        let image = folder.open(&name, true).unwrap();
        image.writer().unwrap().relax_until_flush();
        for (index, grain) in disk.chunks(1 << 16).enumerate() {
            if grain.iter().any(|byte| *byte != 0) {
                let at = u64::try_from(index << 16).unwrap();
                image.writer().unwrap().write_at(grain, at).unwrap();
            }
        }
        image.close().unwrap();
        let path = folder.path(&name);
        let outcome = seven_zip.command(["x", "-so", path.to_str().unwrap()]).output().unwrap();
        assert!(outcome.status.success(), "{subformat}: {outcome:?}");
        assert!(outcome.stdout == disk, "{subformat}");
    }
}
