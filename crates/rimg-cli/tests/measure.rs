//! What `measure` says is what `convert` makes.
#![expect(clippy::unwrap_used, reason = "a failure is a failed test")]

use rimg_testkit::peer::Peer;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where all of the disk is data the number is exact. With holes it is a bound.
#[test]
fn the_converted_file_is_as_large_as_measured() {
    if Peer::qemu_img().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let sources = ["full.raw", "full.qcow2", "holes.raw", "chain.qcow2", "packed.qcow2"];
    make_sources(folder);
    let targets: [&[&str]; 11] = [
        &["-O", "raw"],
        &["-O", "qcow2"],
        &["-O", "qcow2", "-o", "cluster_size=512"],
        &["-O", "qcow2", "-o", "cluster_size=4k,refcount_bits=64"],
        &["-O", "qcow2", "-o", "cluster_size=8k,refcount_bits=1"],
        &["-O", "qcow2", "-o", "cluster_size=2M"],
        &["-O", "qcow2", "-o", "extended_l2=on"],
        &["-O", "qcow2", "-o", "compat=0.10"],
        &["-O", "qcow2", "-o", "extended_l2=on,cluster_size=16k,refcount_bits=8"],
        &["-O", "qcow2", "-o", "preallocation=falloc"],
        &["-O", "qcow2", "-o", "compression_type=zstd,lazy_refcounts=on"],
    ];
    for source in sources {
        for target in targets {
            let ours = measured(env!("CARGO_BIN_EXE_rimg"), folder, target, source);
            let theirs = measured("qemu-img", folder, target, source);
            assert_eq!(ours, theirs, "{source} {target:?}");
            let mut convert = vec!["convert"];
            convert.extend(target);
            convert.extend([source, "made"]);
            run(env!("CARGO_BIN_EXE_rimg"), folder, &convert);
            let made = fs::metadata(folder.join("made")).unwrap().len();
            if source == "holes.raw" {
                // Refcounts of what stays empty count as well, though nobody needs them.
                assert!(made <= ours, "{source} {target:?}: {made} instead of {ours}");
            } else {
                assert_eq!(made, ours, "{source} {target:?}");
            }
        }
    }
}

/// qemu-img measures none of these.
#[test]
fn other_formats_are_measured_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let size: u64 = 5 << 20;
    let rimg = env!("CARGO_BIN_EXE_rimg");
    for data in [(1 << 20)..(3 << 20) + 4096, 0..size] {
        // With holes: what is in the file is not looked at.
        let file = fs::File::create(folder.join("disk")).unwrap();
        file.set_len(size).unwrap();
        let bytes = vec![7; usize::try_from(data.end - data.start).unwrap()];
        file.write_all_at(&bytes, data.start).unwrap();
        for target in [
            &["-O", "qcow"][..],
            &["-O", "qed"],
            &["-O", "qed", "-o", "cluster_size=4k,table_size=1"],
            &["-O", "parallels"],
            &["-O", "parallels", "-o", "cluster_size=64k"],
            &["-O", "vdi"],
            &["-O", "vpc", "-o", "force_size=on"],
            &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
            &["-O", "vhdx"],
            &["-O", "vhdx", "-o", "block_size=1M"],
            &["-O", "vhdx", "-o", "block_size=4M"],
            &["-O", "vhdx", "-o", "subformat=fixed,block_size=1M"],
            &["-O", "vmdk"],
        ] {
            let said = measured(rimg, folder, target, "disk");
            run(rimg, folder, &[&["convert", "disk", "made"][..], target].concat());
            let made = fs::metadata(folder.join("made")).unwrap().len();
            assert_eq!(made, said, "{target:?}");
        }
    }
}

/// One has holes, but data in each stretch of 32 KiB, the least that one L2 table maps.
fn make_sources(folder: &Path) {
    let bytes =
        |len: usize| -> Vec<u8> { (0..len).zip((1..=250).cycle()).map(|(_, byte)| byte).collect() };
    fs::write(folder.join("full.raw"), bytes(3 << 20)).unwrap();
    let mut holes = vec![0; 3 << 20];
    for stretch in holes.chunks_mut(32 << 10) {
        stretch[..4096].copy_from_slice(&bytes(4096));
    }
    fs::write(folder.join("holes.dense"), holes).unwrap();
    let make = |args: &[&str]| run("qemu-img", folder, args);
    make(&["convert", "-S", "4k", "holes.dense", "holes.raw"]);
    make(&["convert", "-O", "qcow2", "full.raw", "full.qcow2"]);
    make(&["convert", "-c", "-O", "qcow2", "full.raw", "packed.qcow2"]);
    make(&["create", "-q", "-f", "qcow2", "-b", "full.raw", "-F", "raw", "chain.qcow2"]);
    run("qemu-io", folder, &["-c", "write -P 9 1M 64k", "chain.qcow2"]);
}

/// The required size.
fn measured(program: &str, folder: &Path, target: &[&str], source: &str) -> u64 {
    let mut args = vec!["measure"];
    args.extend(target);
    args.push(source);
    let text = run(program, folder, &args);
    let line = text.lines().find_map(|line| line.strip_prefix("required size: "));
    line.unwrap().parse().unwrap()
}

fn run(program: &str, folder: &Path, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
