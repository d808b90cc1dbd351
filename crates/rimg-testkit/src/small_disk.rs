//! Small file systems, which really run full.
//!
//! Each is mounted in a namespace of its own, which nobody else sees and which ends with it. That
//! takes the right to mount something: root has it, elsewhere a user may have it in a namespace of
//! users. Where neither is so, that is reported as a test that was skipped; root in CI has no excuse.

use crate::peer::{Peer, report_skip};
use rimg_core::num;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A mounted file system of some MiB. It is gone when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    /// Waits within the namespace.
    holder: Child,
    way: &'static Way,
    folder: PathBuf,
    bytes: u64,
    _image: tempfile::TempDir,
}

/// A way to get a file system mounted.
#[derive(Debug)]
struct Way {
    /// What `unshare` makes besides a namespace of mounts.
    unshare: &'static [&'static str],
    /// What `nsenter` enters besides it.
    enter: &'static [&'static str],
    /// A script that mounts on `$1`: `$2` is an image of ext4, `$3` a number of bytes.
    mount: &'static str,
}

const WAYS: &[Way] = &[
    Way { unshare: &[], enter: &[], mount: "mount -o loop \"$2\" \"$1\"" },
    Way { unshare: &[], enter: &[], mount: TMPFS },
    Way {
        unshare: &["--map-root-user"],
        enter: &["--user", "--preserve-credentials"],
        mount: TMPFS,
    },
];

const TMPFS: &str = "mount -t tmpfs -o size=\"$3\" small \"$1\"";

/// The unit of space.
const BLOCK_BYTES: usize = 4096;

impl SmallDisk {
    /// Mounts a file system of `bytes` on the folder `folder`, which has to be there. `None` means
    /// that the test cannot be done; that has been said and counted.
    ///
    /// # Panics
    /// When it cannot be done although this is root in CI, or a program is missing there.
    #[must_use]
    pub fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        let mke2fs = Peer::require("mke2fs")?;
        let unshare = Peer::require("unshare")?;
        Peer::require("nsenter")?;
        let image = tempfile::tempdir().unwrap();
        let ext4 = image.path().join("ext4");
        File::create(&ext4).unwrap().set_len(bytes).unwrap();
        let flags = ["-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-m", "0"];
        mke2fs.ok(flags.map(OsStr::new).into_iter().chain([ext4.as_os_str()]));
        let Some((way, holder)) = WAYS.iter().find_map(|way| {
            let holder = way.hold(&unshare, folder, &ext4, bytes)?;
            Some((way, holder))
        }) else {
            let is_root = rustix::process::geteuid().is_root();
            let why = "no file system can be mounted, not even in a namespace of users";
            assert!(!is_root || std::env::var_os("CI").is_none(), "{why}: root in CI has to");
            report_skip(why);
            return None;
        };
        Some(Self { holder, way, folder: folder.to_owned(), bytes, _image: image })
    }

    /// A command that runs `program` in the folder `dir`, and sees the file system.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>, dir: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(self.way.enter)
            .arg("--mount")
            .arg("--target")
            .arg(self.holder.id().to_string());
        command.args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(dir).arg(program);
        command
    }

    /// The path by which this process sees what is `path` for those who see the file system.
    #[must_use]
    pub fn seen(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        Path::new(&root).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Takes all of the space that is left but `leave` bytes, with a file that is named `filler`.
    ///
    /// # Panics
    /// When there is less, or more than a file system of this size can have.
    pub fn fill(&self, leave: u64) {
        let path = self.seen(&self.folder.join("filler"));
        let mut file = File::create(&path).unwrap();
        let block = [0xff; BLOCK_BYTES];
        let mut written = 0;
        while file.write_all(&block).is_ok() {
            written += BLOCK_BYTES;
            assert!(num::to_u64(written) <= self.bytes, "this is another file system");
        }
        let len = fs::metadata(&path).unwrap().len();
        file.set_len(len.checked_sub(leave).expect("less space is left")).unwrap();
        file.sync_all().unwrap();
    }
}

impl Way {
    /// Mounts, and returns the process that waits in the namespace.
    fn hold(&self, unshare: &Peer, folder: &Path, ext4: &Path, bytes: u64) -> Option<Child> {
        // It ends with its standard input, however this process does.
        let script = format!("{} && echo mounted && read -r end", self.mount);
        let mut command = unshare.command(["--mount"]);
        command.args(self.unshare).args(["sh", "-c", &script, "sh"]).arg(folder).arg(ext4);
        command.arg(bytes.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line == "mounted\n" {
            return Some(holder);
        }
        let _ = holder.wait();
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_runs_full_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = SmallDisk::mount(folder.path(), 4 << 20) else { return };
        disk.fill(2 * 4096);
        let mut dd = disk.command("dd", folder.path());
        dd.args(["if=/dev/zero", "of=new", "bs=4096"]).env("LC_ALL", "C");
        let output = dd.output().unwrap();
        assert!(String::from_utf8(output.stderr).unwrap().contains("No space left on device"));
        let new = disk.seen(&folder.path().join("new"));
        assert_eq!(fs::metadata(new).unwrap().len(), 2 * 4096);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it is private");
        let seen = disk.seen(folder.path());
        drop(disk);
        assert!(!seen.exists());
    }

    #[test]
    fn every_way_that_is_open_leads_to_a_small_disk() {
        let folder = tempfile::tempdir().unwrap();
        let Some(unshare) = Peer::require("unshare") else { return };
        for way in WAYS.iter().filter(|way| way.mount == TMPFS) {
            let Some(holder) = way.hold(&unshare, folder.path(), Path::new("/"), 1 << 20) else {
                continue;
            };
            let image = tempfile::tempdir().unwrap();
            let folder = folder.path().to_owned();
            let bytes = 1 << 20;
            let disk = SmallDisk { holder, way, folder: folder.clone(), bytes, _image: image };
            disk.fill(4096);
            let output = disk.command("ls", &folder).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), "filler\n", "{way:?}");
        }
    }
}
