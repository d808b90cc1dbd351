//! `--for`: what platforms take, judged by qemu-img and tar.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rimg_testkit::guest::GuestContents;
use rimg_testkit::peer::Peer;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

const MIB: u64 = 1 << 20;
/// No whole number of MiB.
const SIZE: u64 = 3 * MIB + 5 * 512;

/// A platform, the format that it takes, and the size that the disk gets.
const PLATFORMS: &[(&str, &str, u64)] = &[
    ("azure", "vpc", 4 * MIB),
    ("aws", "vmdk", SIZE),
    ("vsphere", "vmdk", SIZE),
    ("hyperv", "vhdx", SIZE),
    ("virtualbox", "vdi", SIZE),
    ("openstack", "qcow2", SIZE),
];

#[test]
fn each_platform_gets_the_disk_in_its_format() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let folder = disk();
    let folder = folder.path();
    for (platform, format, size) in PLATFORMS {
        let said = rimg(folder, &["convert", "--for", platform, "disk.qcow2", "out"]);
        assert_eq!(text(&said.stderr), "", "{platform}");
        assert!(said.status.success(), "{platform}");
        let rules = text(&said.stdout);
        assert!(rules.lines().count() >= 4, "{platform}: {rules}");
        assert!(rules.lines().all(|line| line.starts_with("ok      ")), "{platform}: {rules}");

        let info = qemu(&qemu_img, folder, &["info", "--output=json", "-f", format, "out"]);
        assert!(info.contains(&format!("\"virtual-size\": {size}")), "{platform}: {info}");
        let compared = qemu(&qemu_img, folder, &["compare", "-F", format, "disk.qcow2", "out"]);
        assert!(compared.ends_with("Images are identical.\n"), "{platform}: {compared}");

        let again = rimg(folder, &["check", "--for", platform, "out"]);
        assert_eq!((again.status.code(), text(&again.stdout)), (Some(0), rules), "{platform}");
        if *platform == "hyperv" {
            let file = fs::metadata(folder.join("out")).unwrap();
            assert!(file.blocks() * 512 >= file.len(), "{} blocks", file.blocks());
        }
    }
}

#[test]
fn compute_engine_gets_an_archive() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let folder = disk();
    let folder = folder.path();
    let said = rimg(folder, &["convert", "--for", "gcp", "disk.qcow2", "out.tar.gz"]);
    assert_eq!((said.status.code(), text(&said.stderr)), (Some(0), String::new()));
    assert_eq!(text(&said.stdout).lines().filter(|line| line.starts_with("ok ")).count(), 5);
    let tar = Command::new("tar").args(["-xzf", "out.tar.gz"]).current_dir(folder).status();
    assert!(tar.unwrap().success());
    assert_eq!(fs::metadata(folder.join("disk.raw")).unwrap().len(), 1 << 30);
    let compared = qemu(&qemu_img, folder, &["compare", "-F", "raw", "disk.qcow2", "disk.raw"]);
    assert!(compared.ends_with("Images are identical.\n"), "{compared}");

    let bytes = fs::read(folder.join("out.tar.gz")).unwrap();
    assert!(rimg(folder, &["convert", "-q", "--for", "gcp", "disk.qcow2", "2"]).stdout.is_empty());
    assert_eq!(fs::read(folder.join("2")).unwrap(), bytes);
}

#[test]
fn what_a_platform_does_not_take_is_said_and_not_left_behind() {
    let folder = disk();
    let folder = folder.path();
    let said = rimg(folder, &["check", "--for", "azure", "-f", "qcow2", "disk.qcow2"]);
    let expected = (Some(2), "BROKEN  The file is a VHD: its format is qcow2\n".to_owned());
    assert_eq!((said.status.code(), text(&said.stdout)), expected);

    let said = rimg(folder, &["check", "--for", "openstack", "--output=json", "disk.qcow2"]);
    assert_eq!(said.status.code(), Some(0));
    assert!(text(&said.stdout).starts_with(
        "[\n    {\n        \"rule\": \"The file is a qcow2\",\n        \"ok\": true\n    },"
    ));

    let dynamic = ["convert", "--for", "azure", "-o", "subformat=dynamic", "disk.qcow2", "out"];
    let said = rimg(folder, &dynamic);
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stdout).contains("BROKEN  The VHD is of the fixed kind: it is dynamic\n"));
    assert!(text(&said.stderr).contains("out: 2 rules of azure are broken"), "{said:?}");
    assert!(!folder.join("out").exists());
}

#[test]
fn what_contradicts_the_recipe_is_refused_before_anything_is_written() {
    let folder = disk();
    let folder = folder.path();
    for (args, message) in [
        (&["--for", "azure", "-O", "qcow2"][..], "azure takes vpc, not qcow2"),
        (&["--for", "gcp", "-O", "raw"], "gcp takes an archive: leave -O out"),
        (&["--for", "gcp", "-c"], "-c does not work with --for gcp"),
        (&["--for", "aws", "-n"], "-n does not work with --for: the target stands alone"),
        (
            &["--for", "sun"],
            "--for expects one of azure, aws, gcp, vsphere, hyperv, virtualbox, openstack, not 'sun'",
        ),
    ] {
        let said = rimg(folder, &[&["convert"], args, &["disk.qcow2", "out"]].concat());
        assert_eq!(said.status.code(), Some(1), "{args:?}");
        assert!(text(&said.stderr).contains(message), "{args:?}: {said:?}");
        assert!(!folder.join("out").exists(), "{args:?}");
    }
}

/// To qemu-img, `--for` is the beginning of `--format` and of `--force-share`.
#[test]
fn under_the_name_of_qemu_img_there_is_no_such_flag() {
    let folder = disk();
    let link = folder.path().join("qemu-img");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rimg"), &link).unwrap();
    let said = run(&link, folder.path(), &["check", "--for", "azure", "disk.qcow2"]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let message = "option '--for' is ambiguous; possibilities: '--format' '--force-share'\n";
    assert!(text(&said.stderr).contains(message), "{said:?}");
}

/// A folder with a disk that holds data, holes and zeroes.
fn disk() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let contents = GuestContents::new(11, SIZE);
    contents.write_file(folder.path().join("disk.raw")).unwrap();
    let args = ["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"];
    assert!(rimg(folder.path(), &args).status.success());
    fs::remove_file(folder.path().join("disk.raw")).unwrap();
    folder
}

fn qemu(qemu_img: &Peer, folder: &Path, args: &[&str]) -> String {
    let said = run(qemu_img.program(), folder, args);
    assert!(said.status.success(), "{args:?}: {}", text(&said.stderr));
    text(&said.stdout)
}

fn rimg(folder: &Path, args: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_rimg"), folder, args)
}

fn run(program: impl AsRef<std::ffi::OsStr>, folder: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
