//! Running a sequence twice and comparing.

use super::meant;
use super::options::Options;
use super::same;
use super::step::{Program, Step};
use crate::{Result, run};
use rimg_core::Storage;
use rimg_storage::{FileOptions, FileStorage};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// What `timeout` exits with.
const TIMED_OUT: &str = "124";

/// A command that takes longer is a difference.
const LONGEST_SECONDS: &str = "60";

/// Formats that qemu-img can check.
const CHECKED: &[&str] = &["qcow2", "qed", "vdi", "vmdk", "vhdx", "parallels"];

/// Two folders, and who works in them.
pub(super) struct Pair {
    theirs: PathBuf,
    ours: PathBuf,
    qemu_img: PathBuf,
    qemu_io: PathBuf,
    /// rimg, by the name of qemu-img.
    link: PathBuf,
    /// Goes away with this.
    _folder: TempDir,
}

/// The format of the image that a word is about, by itself or in options or JSON.
fn format_of(word: &str, images: &BTreeMap<&str, &'static str>) -> Option<&'static str> {
    let names = word.rsplit(|c: char| !c.is_ascii_alphanumeric());
    names.filter_map(|name| images.get(name).copied()).next()
}

/// How a sequence ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Same,
    Different(Difference),
}

/// What differs, and after which step.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    /// The number of the step; that of all steps for what was found at the end.
    pub(super) step: usize,
    /// What is compared.
    pub(super) what: &'static str,
    pub(super) theirs: String,
    pub(super) ours: String,
}

impl Difference {
    /// Whether another one is of the same kind.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.what == other.what
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {} differ:", self.what)?;
        for (side, text) in [("qemu-img", &self.theirs), ("rimg", &self.ours)] {
            writeln!(f, "  {side}:")?;
            for line in text.lines().take(40) {
                writeln!(f, "    | {line}")?;
            }
        }
        Ok(())
    }
}

/// What a command said.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    exit: String,
    out: String,
    error: String,
}

impl Pair {
    /// Folders of their own for the thread `worker`.
    pub(super) fn new(options: &Options, worker: usize) -> Result<Self> {
        // In memory, where there is some to be had: what file systems say of space that was set
        // aside depends on what they wrote back by then.
        let prefix = format!("rimg-peer-{worker}-");
        let in_memory = TempDir::with_prefix_in(&prefix, "/dev/shm");
        let folder =
            in_memory.or_else(|_| TempDir::with_prefix_in(&prefix, run::root().join("target")))?;
        let top = folder.path();
        let link = top.join("qemu-img");
        symlink(&options.rimg, &link)?;
        Ok(Self {
            theirs: top.join("theirs"),
            ours: top.join("ours"),
            qemu_img: run::need("qemu-img")?,
            qemu_io: run::need("qemu-io")?,
            link,
            _folder: folder,
        })
    }

    /// Runs the steps in empty folders, up to the first difference that is not meant. The reasons
    /// for those that are go to `meant`.
    pub(super) fn run(&self, steps: &[Step], meant: &mut Vec<&'static str>) -> Result<Outcome> {
        for folder in [&self.theirs, &self.ours] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder)?;
        }
        let mut images = BTreeMap::new();
        for (number, step) in steps.iter().enumerate() {
            if let Some((name, format)) = &step.makes {
                images.insert(name.as_str(), *format);
            }
            let places = step.words.last().and_then(|word| format_of(word, &images));
            let exact = places.is_none_or(|format| matches!(format, "raw" | "qcow2"));
            let exact = exact && !steps.iter().take(number).any(Step::moves_clusters);
            let (theirs, ours) = (self.theirs(step, exact)?, self.ours(step, exact)?);
            if theirs.is_like(&ours) {
                if let Some((name, _)) = step.makes.as_ref().filter(|_| theirs.exit != "0") {
                    self.clear_failed(name)?;
                }
                continue;
            }
            if let Some(why) = meant::reason(step, &theirs.all(), &ours.all()) {
                meant.push(why);
                self.go_on_from_ours()?;
                continue;
            }
            let (what, theirs, ours) = theirs.first_difference(ours);
            return Ok(Outcome::Different(Difference { step: number, what, theirs, ours }));
        }
        let difference = |(what, theirs, ours)| {
            Outcome::Different(Difference { step: steps.len(), what, theirs, ours })
        };
        Ok(self.compare_files(&images)?.map_or(Outcome::Same, difference))
    }

    /// After a difference, makes both folders what rimg's is.
    fn go_on_from_ours(&self) -> Result {
        fs::remove_dir_all(&self.theirs)?;
        fs::create_dir_all(&self.theirs)?;
        for name in names(&self.ours)? {
            copy_with_holes(&self.ours.join(&name), &self.theirs.join(&name))?;
        }
        Ok(())
    }

    /// Removes what qemu-img leaves behind when it fails to make an image, and rimg does not.
    fn clear_failed(&self, name: &str) -> Result {
        for left in names(&self.theirs)? {
            if left.starts_with(name) && !self.ours.join(&left).exists() {
                fs::remove_file(self.theirs.join(&left))?;
            }
        }
        Ok(())
    }

    fn theirs(&self, step: &Step, exact: bool) -> Result<Said> {
        let program = match step.program {
            Program::Img => &self.qemu_img,
            Program::Io => &self.qemu_io,
        };
        self.say(program, &step.words, &self.theirs, exact)
    }

    fn ours(&self, step: &Step, exact: bool) -> Result<Said> {
        let program = match step.program {
            Program::Img => &self.link,
            Program::Io => &self.qemu_io,
        };
        self.say(program, &step.words, &self.ours, exact)
    }

    fn say(&self, program: &Path, words: &[String], folder: &Path, exact: bool) -> Result<Said> {
        let said = Command::new("timeout")
            .arg(LONGEST_SECONDS)
            .arg(program)
            .args(words)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()?;
        let normal = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let text = text.replace(&*program.to_string_lossy(), "qemu-img");
            same::normal(&text, exact)
        };
        let exit = said.status.code().map_or_else(|| said.status.to_string(), |c| c.to_string());
        Ok(Said { exit, out: normal(&said.stdout), error: normal(&said.stderr) })
    }

    /// Names, contents and health of what the sequence left.
    fn compare_files(
        &self,
        images: &BTreeMap<&str, &'static str>,
    ) -> Result<Option<(&'static str, String, String)>> {
        let (theirs, ours) = (names(&self.theirs)?, names(&self.ours)?);
        if theirs != ours {
            return Ok(Some(("files", theirs.join("\n"), ours.join("\n"))));
        }
        for (name, format) in images {
            if !self.theirs.join(name).exists() {
                continue;
            }
            let (a, b) = (self.theirs.join(name), self.ours.join(name));
            let compare = |a: &Path, b: &Path| -> Result<(Option<i32>, String)> {
                let mut command = Command::new(&self.qemu_img);
                let command = command.args(["compare", "-U", "-f", format, "-F", format]);
                let said = command.arg(a).arg(b).output()?;
                let text = [said.stdout, said.stderr].concat();
                Ok((said.status.code(), String::from_utf8_lossy(&text).into_owned()))
            };
            let compared = compare(&a, &b)?;
            // What cannot be read in the first place is not to be compared.
            if compared.0 != Some(0) && compare(&a, &a)?.0 == Some(0) {
                return Ok(Some(("contents", (*name).to_owned(), compared.1)));
            }
            if !CHECKED.contains(format) {
                continue;
            }
            let check = |path: &Path| -> Result<String> {
                let mut command = Command::new(&self.qemu_img);
                let said = command.args(["check", "-U", "-f", format]).arg(path).output()?;
                let text = String::from_utf8_lossy(&said.stderr);
                Ok(format!("{name}: exit {:?}\n{text}", said.status.code()))
            };
            let (theirs, ours) = (check(&a)?, check(&b)?);
            // Where qemu-img leaves an image marked as in use, since it failed, rimg need not.
            let is_clean = ours.lines().next().is_some_and(|line| line.ends_with("exit Some(0)"));
            if !is_clean && theirs.lines().next() != ours.lines().next() {
                return Ok(Some(("checks", theirs, ours)));
            }
        }
        Ok(None)
    }
}

impl Said {
    /// Whether exit code and output are the same, and what went wrong is of the same kind.
    fn is_like(&self, other: &Self) -> bool {
        // Both are slow alike only by being wrong alike.
        if self.exit == TIMED_OUT {
            return false;
        }
        let class = |said: &Self| same::class(&said.error).filter(|_| said.exit != "0");
        let errors = self.error == other.error
            || class(self).is_some_and(|theirs| class(other) == Some(theirs));
        errors && self.exit == other.exit && self.out == other.out
    }

    /// Everything, to look for words in.
    fn all(&self) -> String {
        format!("exit {}\n{}{}", self.exit, self.error, self.out)
    }

    fn first_difference(self, ours: Self) -> (&'static str, String, String) {
        if self.error != ours.error {
            return ("errors", self.all(), ours.all());
        }
        if self.exit != ours.exit {
            return ("exit codes", self.all(), ours.all());
        }
        ("outputs", self.out, ours.out)
    }
}

/// Copies a file so that it has holes where the other one has, and nowhere else: `cp` makes holes
/// of zeroes, and commands tell the two apart.
fn copy_with_holes(from: &Path, to: &Path) -> Result {
    let from = FileStorage::open(from, FileOptions::read())?;
    let to = fs::File::create_new(to)?;
    let len = from.len_bytes()?;
    to.set_len(len)?;
    let mut at = 0;
    while at < len {
        let run = from.run_at(at)?;
        if run.is_data {
            let mut bytes = vec![0; usize::try_from(run.len_bytes.min(1 << 20))?];
            from.read_exact_at(&mut bytes, at)?;
            to.write_all_at(&bytes, at)?;
            at += u64::try_from(bytes.len())?;
        } else {
            at += run.len_bytes;
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
