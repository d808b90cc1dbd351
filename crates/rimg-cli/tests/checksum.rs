//! Hashes of what the guest sees, against qemu-img and sha256sum.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rimg_testkit::guest::GuestContents;
use rimg_testkit::peer::Peer;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Formats with options of `-o`, each laid out in a way of its own.
const FORMS: &[(&str, &str)] = &[
    ("raw", ""),
    ("qcow2", ""),
    ("qcow2", "cluster_size=512"),
    ("qcow2", "preallocation=metadata"),
    ("qcow", ""),
    ("qed", ""),
    ("vdi", ""),
    ("vpc", "force_size=on"),
    ("vpc", "subformat=fixed,force_size=on"),
    ("vhdx", ""),
    ("vmdk", ""),
    ("vmdk", "subformat=streamOptimized"),
    ("parallels", ""),
];

const SIZE: usize = 5 << 20;

#[test]
fn all_formats_of_the_same_disk_have_the_hash_of_the_raw_file() {
    let (Some(qemu_img), Some(sum)) = (Peer::qemu_img(), Peer::require("sha256sum")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("disk"));
    for (format, options) in FORMS {
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        run(qemu_img.program(), folder, &[&args[..], &["disk", "image"]].concat());
        run(qemu_img.program(), folder, &["convert", "-f", format, "-O", "raw", "image", "raw"]);
        let expected = run(sum.program(), folder, &["raw"]);
        let said = rimg(folder, &["checksum", "-f", format, "image"]);
        assert_eq!(text(&said.stderr), "", "{format}");
        assert_eq!(text(&said.stdout), expected.replace("raw", "image"), "{format} {options}");
    }
}

#[test]
fn overlays_holes_and_odd_sizes_are_hashed_as_they_read() {
    let (Some(qemu_img), Some(sum)) = (Peer::qemu_img(), Peer::require("sha512sum")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("base"));
    let q = qemu_img.program();
    run(q, folder, &["create", "-f", "qcow2", "-b", "base", "-F", "raw", "top", "6M"]);
    fs::write(folder.join("odd"), GuestContents::new(3, 70_001).to_vec()).unwrap();
    fs::File::create(folder.join("hole")).unwrap().set_len((300 << 20) + 77).unwrap();
    fs::File::create(folder.join("empty")).unwrap();
    let mut args = vec!["checksum", "-a", "sha512"];
    let mut expected = String::new();
    for name in ["top", "odd", "hole", "empty"] {
        run(q, folder, &["convert", "-O", "raw", name, "raw"]);
        expected.push_str(&run(sum.program(), folder, &["raw"]).replace("raw", name));
        args.push(name);
    }
    assert_eq!(text(&rimg(folder, &args).stdout), expected);
}

#[test]
fn what_cannot_be_hashed_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (args, message) in [
        (
            &["checksum", "gone"][..],
            "rimg: Could not open 'gone': Could not open 'gone': No such file or directory\n",
        ),
        (
            &["checksum"],
            "rimg: Expecting at least one image file name\nTry 'rimg checksum --help' for more info\n",
        ),
        (
            &["checksum", "--algorithm=crc32", "x"],
            "rimg: Unknown algorithm 'crc32'; known are sha1, sha224, sha256, sha384, sha512, \
             ripemd160, md5, sm3\nTry 'rimg checksum --help' for more info\n",
        ),
    ] {
        let said = rimg(folder, args);
        assert_eq!(said.status.code(), Some(1), "{args:?}");
        assert_eq!(text(&said.stderr).replace(env!("CARGO_BIN_EXE_rimg"), "rimg"), message);
    }
}

#[test]
fn a_verified_conversion_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("disk"));
    fs::write(folder.join("odd"), GuestContents::new(3, 70_001).to_vec()).unwrap();
    for args in [
        &["convert", "--verify", "-O", "vmdk", "-o", "subformat=streamOptimized", "disk", "a"][..],
        &["convert", "--verify", "-c", "-O", "qcow2", "a", "b"],
        &["convert", "--verify", "-O", "vhdx", "b", "odd", "c"],
    ] {
        let said = rimg(folder, args);
        assert_eq!((text(&said.stderr), said.status.code()), (String::new(), Some(0)), "{args:?}");
    }
}

#[test]
fn a_target_that_holds_something_else_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("disk"));
    // It is said to be zero and is not: holes of the source are not written.
    fs::write(folder.join("target"), vec![1; SIZE]).unwrap();
    let args = ["convert", "-n", "--target-is-zero", "-f", "raw", "-O", "raw", "disk", "target"];
    assert_eq!(rimg(folder, &args).status.code(), Some(0));
    let said = rimg(folder, &[&args[..1], &["--verify"], &args[1..]].concat());
    assert_eq!(said.status.code(), Some(1));
    let said = text(&said.stderr);
    assert!(said.starts_with("rimg: Verification failed: SHA-256 of source "), "{said}");
    assert!(said.ends_with("\n'target' is incomplete: do not use it\n"), "{said}");
}

/// Data, zeroes that are written, and holes; whole megabytes.
fn write_disk(path: &Path) {
    let mut bytes = vec![0; SIZE];
    bytes[..300_000].copy_from_slice(&GuestContents::new(1, 300_000).to_vec());
    bytes[2_000_000..3_100_000].copy_from_slice(&GuestContents::new(2, 1_100_000).to_vec());
    bytes[SIZE - 1] = 7;
    fs::write(path, bytes).unwrap();
    // What is only zeroes becomes a hole.
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
        3_276_800,
        1 << 20,
    )
    .unwrap();
}

fn rimg(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rimg")).args(args).current_dir(folder).output().unwrap()
}

fn run(program: &Path, folder: &Path, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(folder).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
