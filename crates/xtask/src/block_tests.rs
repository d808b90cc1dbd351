//! `cargo xtask block-tests`: QEMU's own block tests, with rimg in the place of qemu-img.
//!
//! The tests are not part of this repository: they come with QEMU's source, of which a release as
//! old as the installed qemu-img is wanted (Debian: `apt-get source qemu-utils`). They are run as
//! they are, by their own program `check`, beside the installed qemu-io, qemu-nbd and QEMU. What
//! fails with rimg is run with qemu-img as well: a test that fails with both tells nothing.

use crate::{Result, run};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const HELP: &str = "\
cargo xtask block-tests SOURCE [--formats FORMAT,...] [--rimg PATH] [TEST...]

SOURCE is an unpacked source of QEMU. TEST is the name of a test, as in 026; without any, those
that call qemu-img and start no virtual machine.";

/// All that the tests know, those with the most tests last.
const FORMATS: [&str; 13] = [
    "bochs",
    "cloop",
    "dmg",
    "raw",
    "parallels",
    "vpc",
    "vdi",
    "vhdx",
    "vmdk",
    "qcow",
    "qed",
    "luks",
    "qcow2",
];

/// A test that has one of these starts QEMU itself, or its storage daemon.
const STARTS_QEMU: [&str; 8] = [
    "VM(",
    "_launch_qemu",
    "QMPTestCase",
    "_require_devices",
    "run_qemu",
    "$QEMU ",
    "QemuStorageDaemon",
    "QSD",
];

/// `cargo xtask block-tests SOURCE [OPTION]... [TEST]...`
pub(crate) fn run(args: &[String]) -> Result {
    let Some(wanted) = Wanted::parse(args)? else {
        println!("{HELP}");
        return Ok(());
    };
    let suite = Suite::in_source(&wanted.source)?;
    let tests = if wanted.tests.is_empty() { suite.without_qemu()? } else { wanted.tests };
    let rimg = match wanted.rimg {
        Some(path) => path.canonicalize()?,
        None => crate::bench::build_rimg()?,
    };
    let scratch = tempfile::tempdir()?;
    // Messages begin with the name that the program is called by.
    let ours = scratch.path().join("qemu-img");
    symlink(rimg, &ours)?;
    let theirs = run::need("qemu-img")?;
    let mut worse = Vec::new();
    for format in &wanted.formats {
        let mut outcomes = suite.check(&ours, format, &tests, scratch.path())?;
        let failed: Vec<String> = names(&outcomes, Outcome::Failed);
        let doubted = match failed.as_slice() {
            [] => BTreeMap::new(),
            failed => suite.check(&theirs, format, failed, scratch.path())?,
        };
        outcomes.retain(|name, _| doubted.get(name) != Some(&Outcome::Failed));
        let mine: Vec<String> = names(&outcomes, Outcome::Failed);
        println!(
            "{format}: {} passed, {} fail with rimg alone{}{}, {} fail with both, {} not for this \
             format",
            names(&outcomes, Outcome::Passed).len(),
            mine.len(),
            if mine.is_empty() { "" } else { ": " },
            mine.join(" "),
            failed.len() - mine.len(),
            names(&outcomes, Outcome::Skipped).len(),
        );
        worse.extend(mine.iter().map(|name| format!("{format} {name}")));
    }
    match worse.as_slice() {
        [] => Ok(()),
        worse => Err(format!("{} tests tell rimg from qemu-img", worse.len()).into()),
    }
}

/// What the command line asks for.
struct Wanted {
    source: PathBuf,
    formats: Vec<String>,
    rimg: Option<PathBuf>,
    tests: Vec<String>,
}

impl Wanted {
    /// `None` for a wish for help.
    fn parse(args: &[String]) -> Result<Option<Self>> {
        let mut formats = FORMATS.map(str::to_owned).to_vec();
        let (mut rimg, mut names) = (None, Vec::new());
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value\n{HELP}"));
            match arg.as_str() {
                "--help" | "-h" => return Ok(None),
                "--formats" => formats = value()?.split(',').map(str::to_owned).collect(),
                "--rimg" => rimg = Some(PathBuf::from(value()?)),
                flag if flag.starts_with('-') => {
                    return Err(format!("unknown flag {flag}\n{HELP}").into());
                }
                name => names.push(name.to_owned()),
            }
        }
        if names.is_empty() {
            return Err(format!("which source of QEMU?\n{HELP}").into());
        }
        let source = PathBuf::from(names.remove(0));
        Ok(Some(Self { source, formats, rimg, tests: names }))
    }
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// The tests of a source.
struct Suite(PathBuf);

impl Suite {
    fn in_source(source: &Path) -> Result<Self> {
        let folder = source.join("tests").join("qemu-iotests");
        if !folder.join("check").is_file() {
            return Err(format!("{} has no block tests of QEMU", source.display()).into());
        }
        Ok(Self(folder.canonicalize()?))
    }

    /// The names of the tests that call qemu-img and start nothing.
    fn without_qemu(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (folder, is_numbered) in [(self.0.clone(), true), (self.0.join("tests"), false)] {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                // Beside them lies what they print, with a suffix, and what they have in common.
                let is_test = match is_numbered {
                    true => name.len() == 3 && name.bytes().all(|byte| byte.is_ascii_digit()),
                    false => !name.contains('.'),
                };
                if !is_test || !entry.file_type()?.is_file() {
                    continue;
                }
                let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
                let calls = ["IMG", "qemu_img", "qemu-img"].iter().any(|word| text.contains(word));
                if calls && !STARTS_QEMU.iter().any(|word| text.contains(word)) {
                    names.push(name);
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// Runs tests for one format with `qemu_img`.
    fn check(
        &self,
        qemu_img: &Path,
        format: &str,
        tests: &[String],
        scratch: &Path,
    ) -> Result<BTreeMap<String, Outcome>> {
        let folder = scratch.join("images");
        fs::create_dir_all(&folder)?;
        let mut check = Command::new("./check");
        check.arg("-tap").arg(format!("-{format}")).args(tests).current_dir(&self.0);
        check.env("TEST_DIR", &folder).env("QEMU_IMG_PROG", qemu_img);
        let others = [
            ("QEMU_PROG", "qemu-system-x86_64"),
            ("QEMU_IO_PROG", "qemu-io"),
            ("QEMU_NBD_PROG", "qemu-nbd"),
            ("QSD_PROG", "qemu-storage-daemon"),
        ];
        for (variable, program) in others {
            if std::env::var_os(variable).is_none() {
                let missing = || format!("{program} is missing, and {variable} not set");
                check.env(variable, run::find(program).ok_or_else(missing)?);
            }
        }
        // Failed tests are no failure of the program, which says so by its exit code.
        let output = check.stdin(Stdio::null()).output()?;
        let outcomes = read_tap(&String::from_utf8_lossy(&output.stdout));
        if outcomes.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("check ran no test: {said}").into());
        }
        Ok(outcomes)
    }
}

/// Lines like `ok qcow2 001`, `not ok qcow2 002` and `ok qcow2 003 # SKIP`.
fn read_tap(text: &str) -> BTreeMap<String, Outcome> {
    let line = |line: &str| {
        let (passed, rest) = match line.strip_prefix("not ok ") {
            Some(rest) => (Outcome::Failed, rest),
            None => (Outcome::Passed, line.strip_prefix("ok ")?),
        };
        let mut words = rest.split_whitespace().skip(1);
        let name = words.next()?.to_owned();
        let is_skipped = words.any(|word| word == "SKIP");
        Some((name, if is_skipped { Outcome::Skipped } else { passed }))
    };
    text.lines().filter_map(line).collect()
}

fn names(outcomes: &BTreeMap<String, Outcome>, wanted: Outcome) -> Vec<String> {
    let found = outcomes.iter().filter(|(_, outcome)| **outcome == wanted);
    found.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_check_prints_is_read() {
        let text =
            "TAP version 13\n1..3\n# QEMU\nok qcow2 001\nnot ok qcow2 002\nok qcow2 x # SKIP\n";
        let outcomes = read_tap(text);
        assert_eq!(names(&outcomes, Outcome::Passed), ["001"]);
        assert_eq!(names(&outcomes, Outcome::Failed), ["002"]);
        assert_eq!(names(&outcomes, Outcome::Skipped), ["x"]);
    }
}
