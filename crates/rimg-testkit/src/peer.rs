//! Other programs to compare with: qemu-img and its like.
//!
//! A program that is missing is reported and counted, and the test goes on without it; where the
//! environment variable `CI` is set it is a failure.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// A program that is installed.
#[derive(Debug, Clone)]
pub struct Peer {
    program: PathBuf,
    dir: Option<PathBuf>,
}

impl Peer {
    /// `qemu-img`, as for [`require`](Self::require).
    #[must_use]
    pub fn qemu_img() -> Option<Self> {
        Self::require("qemu-img")
    }

    /// `qemu-io`, as for [`require`](Self::require).
    #[must_use]
    pub fn qemu_io() -> Option<Self> {
        Self::require("qemu-io")
    }

    /// `qemu-nbd`, as for [`require`](Self::require).
    #[must_use]
    pub fn qemu_nbd() -> Option<Self> {
        Self::require("qemu-nbd")
    }

    /// The program with this name, from `PATH`. `None` means that the test cannot be done; that
    /// has been said and counted.
    ///
    /// # Panics
    /// When it is missing and `CI` is set.
    #[must_use]
    pub fn require(program: &str) -> Option<Self> {
        let found = find(program);
        if found.is_none() {
            missing(program, std::env::var_os("CI").is_some());
        }
        found.map(|program| Self { program, dir: None })
    }

    /// The system's Python with this module, as for [`require`](Self::require): modules come with
    /// packages of the system, and another Python that comes first in `PATH` does not see them.
    ///
    /// # Panics
    /// When either is missing and `CI` is set.
    #[must_use]
    pub fn python(module: &str) -> Option<Self> {
        let python = Self { program: PathBuf::from("/usr/bin/python3"), dir: None };
        let mut import = python.command(["-c", &format!("import {module}")]);
        let found = import.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !found {
            missing(&format!("python3 module {module}"), std::env::var_os("CI").is_some());
        }
        found.then_some(python)
    }

    /// As `self`, but running in `dir`, so that names in its output are short and the same
    /// everywhere.
    #[must_use]
    pub fn in_dir(&self, dir: impl AsRef<Path>) -> Self {
        Self { program: self.program.clone(), dir: Some(dir.as_ref().to_owned()) }
    }

    /// The program's path.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A command that runs it with these arguments in the C locale, with nothing to read.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("LC_ALL", "C").stdin(Stdio::null());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
        Outcome::of(&mut self.command(args))
    }

    /// Runs it and returns its standard output.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        let mut command = self.command(args);
        let outcome = Outcome::of(&mut command);
        assert_eq!(outcome.status, Some(0), "{command:?}\n{}{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// Starts it and lets it run until the result is dropped.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Running {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    }
}

/// How often [`Peer::require`] found nothing in this process.
#[must_use]
pub fn skipped() -> usize {
    SKIPPED.load(Ordering::Relaxed)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn missing(program: &str, is_failure: bool) {
    assert!(!is_failure, "peer {program} missing: CI has to have it");
    SKIPPED.fetch_add(1, Ordering::Relaxed);
    report_skip(&format!("{program} is missing"));
}

/// Says that the current test, or a part of it, cannot be done here. A test that passes has its
/// output hidden by most runners, so a line is also added to the file that `RIMG_TEST_SKIPS`
/// names; `cargo xtask test` counts and shows those lines.
///
/// # Panics
/// When that file cannot be written.
pub fn report_skip(why: &str) {
    let current = thread::current();
    let line = format!("{}: {why}\n", current.name().unwrap_or("a test"));
    eprint!("SKIPPED {line}");
    if let Some(file) = std::env::var_os("RIMG_TEST_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// What a program did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs `command` to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A program that is running; it is killed when this is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it is running still.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_peer_is_counted_or_fails() {
        let before = skipped();
        assert!(find("rimg-no-such-program").is_none());
        missing("rimg-no-such-program", false);
        assert_eq!(skipped(), before + 1);
        assert!(std::panic::catch_unwind(|| missing("rimg-no-such-program", true)).is_err());
    }

    #[test]
    fn output_and_status_are_caught() {
        let shell = Peer::require("sh").unwrap();
        let outcome = shell.run(["-c", "echo out; echo err >&2; exit 3"]);
        assert_eq!(
            (outcome.status, &*outcome.stdout, &*outcome.stderr),
            (Some(3), "out\n", "err\n")
        );
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            shell.in_dir(&dir).ok(["-c", "pwd -P"]).trim_end(),
            dir.path().canonicalize().unwrap().to_string_lossy()
        );
    }
}
