//! What every command says: its help, when it succeeds, and when it fails.
//!
//! `transcripts/COMMAND.txt` is what a terminal would show: lines that begin with `$` are run by a
//! shell in an empty folder, and what follows each is what it printed to both streams, and the exit
//! code where it is not 0. `SNAPSHOTS=overwrite cargo nextest run -p rimg-cli --test transcripts`
//! writes what is printed now into the files: read the difference before you commit it.
//!
//! That the words are those of qemu-img, where they have to be, is shown by `peer.rs`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use snapbox::filter::Redactions;
use snapbox::{Assert, Data};
use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A test for each transcript, so that what differs has a name.
macro_rules! transcripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                judge(stringify!($name));
            }
        )*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

transcripts! {
    amend bench bitmap check checksum commit compare completions convert create dd formats info man
    map measure rebase resize snapshot rimg
}

#[test]
fn every_command_has_a_transcript() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let names: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(files, names);
    let help = said("rimg --help", Path::new("."));
    let mut count = 0;
    for line in help.lines() {
        let Some((command, _)) = line.strip_prefix("  ").and_then(|line| line.split_once(" - "))
        else {
            continue;
        };
        assert!(names.contains(command), "{command} has no transcript");
        count += 1;
    }
    // One is of the program itself.
    assert_eq!(count + 1, names.len());
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("transcripts")
}

fn judge(name: &str) {
    let path = folder().join(name).with_extension("txt");
    let expected = fs::read_to_string(&path).unwrap();
    let work = tempfile::tempdir().unwrap();
    let mut now = String::new();
    for line in expected.lines().filter(|line| line.starts_with("$ ")) {
        writeln!(now, "{line}").unwrap();
        now.push_str(&said(&line[2..], work.path()));
    }
    assert!(!now.is_empty(), "{name} runs nothing");
    let mut volatile = Redactions::new();
    for (name, pattern) in [
        // What file systems and clocks say.
        ("[DISK_SIZE]", r"disk size: (?<redacted>.*)"),
        ("[ACTUAL_SIZE]", r#""actual-size": (?<redacted>\d+)"#),
        ("[DATE]", r"(?<redacted>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"),
        ("[SECONDS]", r"completed in (?<redacted>[0-9.]+)"),
    ] {
        volatile.insert(name, regex::Regex::new(pattern).unwrap()).unwrap();
    }
    let assert = Assert::new().action_env("SNAPSHOTS").redact_with(volatile).normalize_paths(false);
    assert.eq(now, Data::read_from(&path, None));
}

/// What a command prints to both streams, as it comes, and how it ends.
fn said(command: &str, work: &Path) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_rimg")).parent().unwrap();
    let mut path = OsString::from(bin);
    path.push(":");
    path.push(env::var_os("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1; {command}")])
        .current_dir(work)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env_remove("SOURCE_DATE_EPOCH")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut said = String::from_utf8(output.stdout).unwrap();
    if !said.is_empty() && !said.ends_with('\n') {
        said.push('\n');
    }
    match output.status.code() {
        Some(0) => {}
        code => writeln!(said, "exit code {}", code.unwrap()).unwrap(),
    }
    said
}
