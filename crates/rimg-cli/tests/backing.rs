//! `convert -B` and `rebase`, where rimg does better than qemu-img.

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

#[test]
fn an_overlay_that_knows_its_parent_is_made_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let rimg = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rimg"));
        let output = command.args(args).current_dir(folder.path()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        if output.status.success() { Ok(()) } else { Err(message) }
    };
    rimg(&["create", "-q", "-f", "vhdx", "base", "4M"]).unwrap();
    rimg(&["bench", "-w", "-c", "1", "-f", "vhdx", "--pattern=7", "base"]).unwrap();
    rimg(&["create", "-q", "-f", "vhdx", "-b", "base", "-F", "vhdx", "top"]).unwrap();
    rimg(&["compare", "base", "top"]).unwrap();
    rimg(&["bench", "-w", "-c", "1", "-f", "vhdx", "--pattern=8", "-o", "1M", "top"]).unwrap();
    assert!(rimg(&["compare", "base", "top"]).is_err());
    // What was written there, nobody knows in what is above.
    rimg(&["bench", "-w", "-c", "1", "-f", "vhdx", "--pattern=9", "base"]).unwrap();
    let message = rimg(&["convert", "-O", "raw", "top", "raw"]).unwrap_err();
    assert!(message.trim_end().ends_with("one of them changed"), "{message}");
    let message = rimg(&["create", "-q", "-u", "-f", "vhdx", "-b", "x", "-F", "vhdx", "y", "1M"]);
    let wanted = "rimg: y: The parent has to be opened, and to be a vhdx image\n";
    assert_eq!(message.unwrap_err(), wanted);
}

/// Clusters are compressed whole, though parts of them could be there alone.
#[test]
fn an_overlay_with_subclusters_is_compressed_while_it_is_rebased() {
    let (Some(qemu_img), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (qemu_img, qemu_io) = (qemu_img.in_dir(folder.path()), qemu_io.in_dir(folder.path()));
    for size in ["100k", "256k"] {
        qemu_img.ok(["create", "-q", "-f", "qcow2", "base", size]);
        qemu_io.ok(["-c", "write -P 3 0 64k", "-c", "write -P 5 99k 1k", "base"]);
        let over = ["create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", "base", "-F"];
        qemu_img.ok(over.into_iter().chain(["qcow2", "top"]));
        // A cluster that has a part of its own is not compressed.
        qemu_io.ok(["-c", "write -P 7 66k 2k", "top"]);
        qemu_img.ok(["convert", "-O", "raw", "top", "wanted"]);
        let status = Command::new(env!("CARGO_BIN_EXE_rimg"))
            .args(["rebase", "-c", "-b", "", "top"])
            .current_dir(folder.path())
            .status()
            .unwrap();
        assert!(status.success());
        let same = qemu_img.ok(["compare", "-f", "qcow2", "-F", "raw", "top", "wanted"]);
        assert_eq!(same, "Images are identical.\n");
        let check = qemu_img.ok(["check", "top"]);
        assert!(check.contains("50.00% compressed clusters"), "{check}");
    }
}
