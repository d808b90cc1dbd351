//! Images that another program holds open, in the words of qemu-img.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rimg_testkit::peer::Peer;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const IN_USE: &str = "Is another process using the image [m.q]?\n";

#[test]
fn an_image_in_use_is_left_alone() {
    let (Some(qemu_img), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let qemu_img = qemu_img.in_dir(folder.path());
    qemu_img.ok(["create", "-q", "-f", "qcow2", "m.q", "4M"]);
    qemu_img.ok(["create", "-q", "r", "4M"]);
    let qemu_io = qemu_io.in_dir(folder.path());
    let mut holder = qemu_io.start(["m.q"]);
    let start = Instant::now();
    while qemu_img.run(["info", "m.q"]).status == Some(0) {
        assert!(start.elapsed() < Duration::from_secs(20), "qemu-io takes no lock");
        // Looking takes a lock as well, and qemu-io gives up when it meets it.
        if !holder.is_running() {
            holder = qemu_io.start(["m.q"]);
        }
        thread::sleep(Duration::from_millis(20));
    }

    for line in [
        "info m.q",
        "info -U m.q",
        "check m.q",
        "map m.q",
        "compare m.q r",
        "compare -U -q m.q r",
        "convert m.q x",
        "convert -U m.q x",
        "convert -n -O qcow2 r m.q",
        "convert r m.q",
        "create -q m.q 1M",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let theirs = qemu_img.run(&args);
        let (status, stderr) = rimg(folder.path(), &args);
        assert_eq!((status, stderr.as_str()), (theirs.status, theirs.stderr.as_str()), "{line}");
        assert_eq!(stderr.ends_with(IN_USE), !line.contains("-U"), "{line}");
    }
    let converted = std::fs::metadata(folder.path().join("m.q")).unwrap().len();
    assert!(converted > 0, "the image in use was emptied");
}

/// A raw image has no metadata of its own that could be torn: looking at it is let, as by QEMU.
#[test]
fn a_raw_image_in_use_can_be_looked_at() {
    let (Some(qemu_img), Some(qemu_nbd)) = (Peer::qemu_img(), Peer::qemu_nbd()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let qemu_img = qemu_img.in_dir(folder.path());
    qemu_img.ok(["create", "-q", "t", "4M"]);
    qemu_img.ok(["create", "-q", "r", "4M"]);
    qemu_img.ok(["create", "-q", "-f", "qcow2", "-b", "t", "-F", "raw", "o.q"]);
    qemu_img.ok(["create", "-q", "-f", "qcow2", "-o", "data_file=t,data_file_raw=on", "d.q", "4M"]);
    let socket = folder.path().join("socket");
    let address = socket.to_str().unwrap();
    let _holder = qemu_nbd.in_dir(folder.path()).start(["-t", "-f", "raw", "-k", address, "t"]);
    let start = Instant::now();
    while !socket.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "qemu-nbd does not start");
        thread::sleep(Duration::from_millis(20));
    }

    let mut refused = 0;
    for line in [
        "info t",
        "info -f raw t",
        "info --backing-chain o.q",
        "map t",
        "map o.q",
        "measure -O qcow2 t",
        "compare t r",
        "bench -q -c 2 -f raw t",
        "dd if=t of=x bs=1M",
        "check o.q",
        "convert t x",
        "convert -f raw -O qcow2 t x",
        "resize -f raw t 4M",
        "resize --image-opts driver=raw,file.filename=t,file.locking=off 4M",
        "info --image-opts driver=raw,file.filename=t,file.locking=some",
        // Without locks is one file, and none that it names.
        "resize --image-opts driver=qcow2,file.filename=d.q,file.locking=off 8M",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let theirs = qemu_img.run(&args);
        let (status, stderr) = rimg(folder.path(), &args);
        assert_eq!((status, stderr.as_str()), (theirs.status, theirs.stderr.as_str()), "{line}");
        refused += usize::from(stderr.contains("Is another process using the image [t]?"));
    }
    assert_eq!(refused, 4);
    // A hash of it would be that of no state that it ever had.
    let mut checksum = Command::new(env!("CARGO_BIN_EXE_rimg"));
    let output = checksum.args(["checksum", "t"]).current_dir(folder.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.ends_with("Is another process using the image [t]?\n"), "{stderr}");
}

fn rimg(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let link = folder.join("qemu-img");
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rimg"), &link).unwrap();
    }
    let mut command = Command::new(link);
    let output = command.args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}
