//! Conversions that do not come to their end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Some seconds of work at the rate of these tests.
const SIZE: usize = 16 << 20;

#[test]
fn an_interrupted_target_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("source"), vec![7; SIZE]).unwrap();
    let output = interrupt(folder.path(), &["convert", "-r", "2M", "source", "target"]);
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "rimg: interrupted\n'target' is incomplete and was removed\n");
    assert!(!folder.path().join("target").exists());
}

#[test]
fn an_interrupted_target_that_was_there_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("source"), vec![7; SIZE]).unwrap();
    fs::write(folder.path().join("target"), vec![0; SIZE]).unwrap();
    let output = interrupt(folder.path(), &["convert", "-n", "-r", "2M", "source", "target"]);
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "rimg: interrupted\n'target' is incomplete: do not use it\n");
    assert!(folder.path().join("target").exists());
}

#[test]
fn qemu_img_says_nothing_of_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("qemu-img");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rimg"), &link).unwrap();
    fs::write(folder.path().join("source"), vec![7; SIZE]).unwrap();
    let mut command = Command::new(&link);
    command.args(["convert", "-r", "2M", "source", "target"]).current_dir(folder.path());
    let output = signal_to(folder.path(), command.stderr(Stdio::piped()), Signal::INT);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "qemu-img: interrupted\n");
    assert!(!folder.path().join("target").exists());
}

#[test]
fn a_target_that_is_too_small_is_not_called_incomplete() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("source"), vec![7; 1024]).unwrap();
    fs::write(folder.path().join("target"), vec![0; 512]).unwrap();
    let output = command(folder.path(), &["convert", "-n", "source", "target"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "rimg: output file is smaller than input file\n");
    assert_eq!(fs::read(folder.path().join("target")).unwrap(), [0; 512]);
}

#[test]
fn a_source_that_is_shared_is_not_taken_for_a_target() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk"), vec![7; 1024]).unwrap();
    let output = command(folder.path(), &["convert", "-U", "disk", "./disk"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(folder.path().join("disk")).unwrap(), [7; 1024]);
}

#[test]
fn a_signal_asks_how_far_the_work_is() {
    for flags in [&[][..], &["-q"]] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("source"), vec![7; 8 << 20]).unwrap();
        let args = [&["convert", "-r", "4M"], flags, &["source", "target"]].concat();
        let output = signal(folder.path(), &args, Signal::USR1);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        let percent = said.strip_prefix("    (").and_then(|rest| rest.strip_suffix("/100%)\n"));
        let percent: f64 = percent.unwrap_or_else(|| panic!("{said:?}")).parse().unwrap();
        assert!(percent > 0.0 && percent <= 100.0, "{percent}");
    }
    // Whoever sees it anyway need not ask.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("source"), vec![7; 8 << 20]).unwrap();
    let args = ["convert", "-p", "-r", "4M", "source", "target"];
    let output = signal(folder.path(), &args, Signal::USR1);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rimg"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn interrupt(folder: &Path, args: &[&str]) -> Output {
    signal(folder, args, Signal::INT)
}

/// Starts rimg, waits until data arrives in `target`, and sends it a signal.
fn signal(folder: &Path, args: &[&str], signal: Signal) -> Output {
    signal_to(folder, &mut command(folder, args), signal)
}

fn signal_to(folder: &Path, command: &mut Command, signal: Signal) -> Output {
    let child = command.spawn().unwrap();
    let start = Instant::now();
    while first_byte(&folder.join("target")) != Some(7) {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing is written");
        thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait_with_output().unwrap()
}

fn first_byte(path: &Path) -> Option<u8> {
    let mut byte = [0];
    fs::File::open(path).ok()?.read_exact(&mut byte).ok()?;
    Some(byte[0])
}
