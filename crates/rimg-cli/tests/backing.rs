//! `convert -B`, where rimg does better than qemu-img.

use rimg_testkit::peer::Peer;
use std::process::Command;

#[test]
fn layers_between_source_and_base_are_copied() {
    let (Some(qemu_img), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (qemu_img, qemu_io) = (qemu_img.in_dir(folder.path()), qemu_io.in_dir(folder.path()));
    qemu_img.ok(["create", "-q", "-f", "qcow2", "base", "4M"]);
    qemu_io.ok(["-c", "write -P 1 0 64k", "base"]);
    qemu_img.ok(["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "middle"]);
    qemu_io.ok(["-c", "write -P 2 64k 64k", "middle"]);
    qemu_img.ok(["create", "-q", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "top"]);
    qemu_io.ok(["-c", "write -P 3 128k 64k", "top"]);

    let status = Command::new(env!("CARGO_BIN_EXE_rimg"))
        .args(["convert", "-O", "qcow2", "-B", "base", "-F", "qcow2", "top", "copy"])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(qemu_img.ok(["compare", "top", "copy"]), "Images are identical.\n");
    let map = qemu_img.ok(["map", "copy"]);
    let files: Vec<&str> =
        map.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(files, ["base", "copy"], "{map}");
}
