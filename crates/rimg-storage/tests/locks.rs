//! Locks against qemu-io, qemu-nbd and qemu-img, both ways, and against ourselves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rimg_core::StorageWrite;
use rimg_storage::{FileOptions, FileStorage, LockConflict, Locking, Permission};
use rimg_testkit::peer::{Peer, Running};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};
use tempfile::TempDir;

#[test]
fn an_image_that_is_being_written_is_refused_without_force_share() {
    let (Some(qemu_img), Some(qemu_nbd)) = (Peer::qemu_img(), Peer::qemu_nbd()) else { return };
    let image = Image::new(&qemu_img);
    let _nbd = image.held_by_nbd(&qemu_nbd, &[]);

    let read = conflict(&image.open(FileOptions::read()));
    assert_eq!(read, LockConflict { permission: Permission::Write, shared: true });
    assert!(image.img_says(&["info"]).contains(&read.to_string()), "{read}");

    let write = conflict(&image.open(FileOptions::write()));
    assert_eq!(write, LockConflict { permission: Permission::Write, shared: false });
    assert!(image.img_says(&["check", "-r", "all"]).contains(&write.to_string()), "{write}");

    let contents = fs::read(&image.path).unwrap();
    conflict(&image.open(FileOptions::create()));
    assert_eq!(fs::read(&image.path).unwrap(), contents, "a refused creation empties nothing");

    image.open(FileOptions::read().locking(Locking::Shared)).unwrap();
    image.open(FileOptions::write().locking(Locking::Off)).unwrap();
}

#[test]
fn an_image_that_is_being_read_can_be_read_but_not_written() {
    let (Some(qemu_img), Some(qemu_nbd)) = (Peer::qemu_img(), Peer::qemu_nbd()) else { return };
    let image = Image::new(&qemu_img);
    let nbd = image.held_by_nbd(&qemu_nbd, &["-r"]);
    image.open(FileOptions::read()).unwrap();
    let write = conflict(&image.open(FileOptions::write()));
    assert_eq!(write, LockConflict { permission: Permission::Write, shared: false });
    drop(nbd);
    image.open(FileOptions::write()).unwrap();
}

#[test]
fn qemu_img_refuses_what_we_write() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let image = Image::new(&qemu_img);
    let ours = image.open(FileOptions::write()).unwrap();
    for command in [&["info"][..], &["check"], &["map"], &["convert", "-O", "raw", "-n"]] {
        let said = image.img_says(command);
        assert!(said.contains("Failed to get shared \"write\" lock"), "{command:?}: {said}");
    }
    for command in [&["check", "-r", "all"][..], &["snapshot", "-c", "x"]] {
        let said = image.img_says(command);
        assert!(said.contains("Failed to get \"write\" lock"), "{command:?}: {said}");
    }
    assert_eq!(image.img_says(&["info", "-U"]), "");
    drop(ours);
    assert_eq!(image.img_says(&["info"]), "");
}

#[test]
fn qemu_img_shares_what_we_read() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let image = Image::new(&qemu_img);
    let ours = image.open(FileOptions::read()).unwrap();
    assert_eq!(image.img_says(&["info"]), "");
    let said = image.img_says(&["snapshot", "-c", "x"]);
    assert!(said.contains("Failed to get \"write\" lock"), "{said}");
    ours.relock(Locking::Shared).unwrap();
    assert_eq!(image.img_says(&["snapshot", "-c", "x"]), "");
    ours.relock(Locking::Exclusive).unwrap();
    assert!(!image.img_says(&["snapshot", "-c", "y"]).is_empty());
}

#[test]
fn the_locked_bytes_are_those_that_qemu_io_locks() {
    let (Some(qemu_img), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    let cases = [
        (&[][..], FileOptions::write()),
        (&["-r"], FileOptions::read()),
        (&["-r", "-U"], FileOptions::read().locking(Locking::Shared)),
    ];
    for (flags, options) in cases {
        let image = Image::new(&qemu_img);
        let ours = {
            let _storage = image.open(options).unwrap();
            image.locked_bytes()
        };
        assert_eq!(image.locked_bytes(), "", "locks go with the file");
        let path = image.path.to_str().unwrap();
        let _io = qemu_io.start(flags.iter().copied().chain(["-f", "qcow2", path]));
        until(
            || image.locked_bytes() == ours,
            || format!("qemu-io {flags:?} locks\n{}ours are\n{ours}", image.locked_bytes()),
        );
    }
}

#[test]
fn two_of_us_keep_out_of_each_others_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let open = |options| FileStorage::open(&path, options);
    let writer = open(FileOptions::create()).unwrap();
    writer.write_all_at(b"kept", 0).unwrap();
    for options in [FileOptions::read(), FileOptions::write(), FileOptions::create()] {
        let error = open(options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        conflict(&Err(error));
    }
    assert_eq!(fs::read(&path).unwrap(), b"kept");
    drop(writer);
    let readers = [open(FileOptions::read()).unwrap(), open(FileOptions::read()).unwrap()];
    conflict(&open(FileOptions::write()));

    let refused = open(FileOptions::write().locking(Locking::Off)).unwrap();
    refused.relock(Locking::Exclusive).unwrap_err();
    drop(readers);
    open(FileOptions::write()).unwrap();
}

#[test]
fn a_conflict_reads_as_qemu_says_it() {
    let write = LockConflict { permission: Permission::Write, shared: false };
    assert_eq!(write.to_string(), "Failed to get \"write\" lock");
    let shared = LockConflict { permission: Permission::Resize, shared: true };
    assert_eq!(shared.to_string(), "Failed to get shared \"resize\" lock");
}

struct Image {
    dir: TempDir,
    path: PathBuf,
    qemu_img: Peer,
}

impl Image {
    fn new(qemu_img: &Peer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.qcow2");
        qemu_img.ok(["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "1M"]);
        Self { dir, path, qemu_img: qemu_img.clone() }
    }

    fn open(&self, options: FileOptions) -> io::Result<FileStorage> {
        FileStorage::open(&self.path, options)
    }

    /// What qemu-img writes to standard error when run on the image.
    fn img_says(&self, command: &[&str]) -> String {
        let mut args: Vec<&str> = command.to_vec();
        args.push(self.path.to_str().unwrap());
        let target = self.dir.path().join("target.raw");
        if command[0] == "convert" {
            fs::write(&target, [0; 512]).unwrap();
            args.push(target.to_str().unwrap());
        }
        self.qemu_img.run(args).stderr
    }

    fn held_by_nbd(&self, qemu_nbd: &Peer, flags: &[&str]) -> Running {
        let socket = self.dir.path().join("socket");
        let (socket, path) = (socket.to_str().unwrap(), self.path.to_str().unwrap());
        let args = flags.iter().copied().chain(["-f", "qcow2", "-k", socket, path]);
        let nbd = qemu_nbd.start(args);
        // It opens the image after the socket; this lock is its last.
        until(|| self.locked_bytes().contains("203-203"), || "no locks by qemu-nbd".to_owned());
        until(|| Path::new(socket).exists(), || "qemu-nbd does not start".to_owned());
        nbd
    }

    /// The lines of `/proc/locks` about the image, without what differs between processes.
    fn locked_bytes(&self) -> String {
        let inode = format!(":{}", fs::metadata(&self.path).unwrap().ino());
        let mut lines: Vec<String> = fs::read_to_string("/proc/locks")
            .unwrap()
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.get(5).is_some_and(|file| file.ends_with(&inode)))
            .map(|words| format!("{} {} {}-{}\n", words[1], words[3], words[6], words[7]))
            .collect();
        lines.sort();
        lines.concat()
    }
}

fn conflict(opened: &io::Result<FileStorage>) -> LockConflict {
    *LockConflict::of(opened.as_ref().unwrap_err()).unwrap()
}

fn until(done: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{}", otherwise());
        thread::sleep(Duration::from_millis(5));
    }
}
