//! What rimg says in its own words where a disk is full, and what is there then.
//! `peer/full.cases` compares the rest with qemu-img.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rimg_testkit::peer::Outcome;
use rimg_testkit::small_disk::SmallDisk;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// A folder with a file system of 4 MiB mounted on `full`.
struct Room {
    folder: TempDir,
    disk: SmallDisk,
}

impl Room {
    /// `None` as for [`SmallDisk::mount`].
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("full")).unwrap();
        let disk = SmallDisk::mount(&folder.path().join("full"), 4 << 20)?;
        Some(Self { folder, disk })
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let mut command = self.disk.command(env!("CARGO_BIN_EXE_rimg"), self.folder.path());
        Outcome::of(command.args(args))
    }

    fn ok(&self, args: &[&str]) {
        let outcome = self.run(args);
        assert_eq!(outcome.status, Some(0), "{args:?}: {outcome:?}");
    }

    /// Runs what fails, and returns what was said.
    fn fails(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.status, Some(1), "{args:?}: {outcome:?}");
        outcome.stderr
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.seen(&self.folder.path().join(name))
    }
}

/// Formats, and what else their targets need.
const TARGETS: &[(&str, &[&str])] = &[
    ("raw", &[]),
    ("qcow2", &[]),
    ("vmdk", &[]),
    ("vmdk", &["-o", "subformat=streamOptimized"]),
    ("vpc", &[]),
    ("vhdx", &[]),
    ("vdi", &[]),
    ("qed", &[]),
    ("qcow", &[]),
    ("parallels", &[]),
    ("luks", &["--object", "secret,id=s,data=abc", "-o", "key-secret=s,iter-time=1"]),
];

#[test]
fn a_target_that_does_not_fit_is_named_and_removed() {
    let Some(room) = Room::new() else { return };
    let mut noise = vec![0; 8 << 20];
    rimg_testkit::Rng::new(1).fill(&mut noise);
    fs::write(room.path("source"), &noise).unwrap();
    for (format, flags) in TARGETS {
        let args =
            [&["convert", "-f", "raw", "-O", format], *flags, &["source", "full/new"]].concat();
        let said = room.fails(&args);
        let (first, second) = said.split_once('\n').unwrap();
        let reason = first.strip_prefix("rimg: full/new: error while writing at byte ");
        let reason = reason.unwrap_or_else(|| panic!("{args:?}: {said}"));
        assert!(reason.ends_with(": No space left on device"), "{args:?}: {said}");
        assert_eq!(second, "'full/new' is incomplete and was removed\n", "{args:?}");
        assert!(!room.path("full/new").exists(), "{args:?}");
        assert_eq!(fs::read(room.path("source")).unwrap(), noise);
    }
}

#[test]
fn a_target_that_was_there_before_is_said_to_be_incomplete() {
    let Some(room) = Room::new() else { return };
    fs::write(room.path("source"), vec![7; 8 << 20]).unwrap();
    room.ok(&["create", "-q", "-f", "qcow2", "full/old", "8M"]);
    let said = room.fails(&["convert", "-n", "-f", "raw", "-O", "qcow2", "source", "full/old"]);
    assert!(said.contains("No space left on device\n"), "{said}");
    assert!(said.ends_with("\n'full/old' is incomplete: do not use it\n"), "{said}");
    assert_eq!(fs::read(room.path("source")).unwrap(), vec![7; 8 << 20]);
}

#[test]
fn an_image_that_cannot_change_is_named_and_stays() {
    let Some(room) = Room::new() else { return };
    fs::write(room.path("base"), vec![7; 8 << 20]).unwrap();
    fs::write(room.path("other"), vec![8; 8 << 20]).unwrap();
    room.ok(&["create", "-q", "-f", "qcow2", "-b", "../base", "-F", "raw", "full/disk"]);
    room.ok(&["bench", "-w", "-c", "1", "-o", "1M", "-s", "64k", "full/disk"]);
    room.ok(&["convert", "-O", "raw", "full/disk", "before"]);
    room.disk.fill(0);
    for (args, reason) in [
        (&["resize", "--preallocation=full", "full/disk", "16M"][..], "rimg: full/disk: "),
        (&["snapshot", "-c", "one", "full/disk"], "rimg: full/disk: Could not create snapshot"),
        (&["bitmap", "--add", "full/disk", "b"], "rimg: error while closing 'full/disk': "),
        (&["rebase", "-b", "../other", "-F", "raw", "full/disk"], "rimg: full/disk: Error while"),
        (&["rebase", "-b", "", "full/disk"], "rimg: full/disk: Error while writing to COW image"),
        (&["amend", "-o", "refcount_bits=64", "full/disk"], "rimg: full/disk: Failed to write"),
        (&["bench", "-w", "-c", "100", "-s", "64k", "full/disk"], "rimg: full/disk: Failed req"),
    ] {
        let said = room.fails(args);
        assert!(said.starts_with(reason), "{args:?}: {said}");
        assert!(said.ends_with(": No space left on device\n"), "{args:?}: {said}");
        let checked = room.run(&["check", "full/disk"]);
        assert!(matches!(checked.status, Some(0 | 3)), "{args:?}: {checked:?}");
        room.ok(&["compare", "-F", "raw", "full/disk", "before"]);
    }
}

#[test]
fn a_base_without_room_is_named() {
    let Some(room) = Room::new() else { return };
    room.ok(&["create", "-q", "-f", "qcow2", "full/base", "8M"]);
    room.ok(&["create", "-q", "-f", "qcow2", "-b", "full/base", "-F", "qcow2", "over"]);
    room.ok(&["bench", "-w", "-c", "100", "-s", "64k", "over"]);
    room.disk.fill(64 << 10);
    let base = room.folder.path().join("full/base");
    let said = room.fails(&["commit", "over"]);
    let named = said.replace(base.to_str().unwrap(), "full/base");
    assert_eq!(named, "rimg: full/base: Block job failed: No space left on device\n");
}

#[test]
fn programs_are_told_that_it_was_the_space() {
    let Some(room) = Room::new() else { return };
    fs::write(room.path("source"), vec![7; 8 << 20]).unwrap();
    for args in [
        &["convert", "-f", "raw", "source", "full/new"][..],
        &["dd", "-f", "raw", "if=source", "of=full/new"],
        &["create", "-q", "-f", "qcow2", "-o", "preallocation=full", "full/new", "8M"],
        &["create", "-q", "-f", "raw", "-o", "preallocation=falloc", "full/new", "8M"],
    ] {
        let outcome = room.run(&[&["--errors", "json"], args].concat());
        assert_eq!(outcome.status, Some(73), "{args:?}: {outcome:?}");
        assert!(outcome.stderr.contains("\"class\": \"no-space\""), "{args:?}: {outcome:?}");
        assert!(!room.path("full/new").exists(), "{args:?}");
    }
}
