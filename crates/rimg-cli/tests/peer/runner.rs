//! Runs the same command lines with rimg and with qemu-img, each in a folder of its own, and
//! compares what they print, on both streams, and their exit codes.
//!
//! The command lines are in `*.cases`. A line that starts with `=` names a case and begins
//! with two empty folders; the lines after it are run in order:
//!
//! | verb | what it runs |
//! |---|---|
//! | `img` | rimg, called `qemu-img`, in one folder, and qemu-img in the other; compared |
//! | `qemu-img` | as `img`, and has to succeed: a command line as another program has it |
//! | `/usr/bin/qemu-img` | the same |
//! | `env` | the same: settings of the environment, `qemu-img` and its arguments |
//! | `like` | as `img`, but where the image's file ends, and where copying failed, may differ |
//! | `first` | as `like`, but for lines of standard error behind the first |
//! | `ref` | qemu-img in both folders, to make what `img` lines look at; has to succeed |
//! | `io` | qemu-io in both folders; has to succeed |
//! | `write` | writes a file: its name, where, and bytes in hexadecimal |
//! | `truncate` | makes a file or changes its length: its name, the length |
//! | `copy` | copies a file: its name, that of the copy |
//! | `noise` | makes a file of bytes that do not compress: its name, the length |
//! | `remove` | removes a file |
//! | `clear` | the same, if there is one |
//! | `mkdir` | makes a folder |
//! | `serve` | lets qemu-nbd export a file: socket, file, further arguments |
//! | `stop` | ends what `serve` started, as the end of the case does |
//! | `same` | gives both folders one file, where the time it was made shows |
//! | `disk` | mounts a small file system: a folder, how many bytes it has |
//! | `fill` | fills it, but for so many bytes, with the file `filler` |
//! | `gone` | rimg has not left these files, whatever qemu-img does |
//! | `equal` | compares the bytes of a file; the times of qcow2 snapshots may differ |
//!
//! Words are separated by spaces and may be quoted. A line ending in a backslash goes on.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rimg_testkit::Rng;
use rimg_testkit::nbd::QemuNbd;
use rimg_testkit::peer::Peer;
use rimg_testkit::small_disk::SmallDisk;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs the cases in `text`; panics with all that differs.
pub(crate) fn run_cases(text: &str) {
    if !peer_is_there() {
        return;
    }
    let cases = parse(text);
    assert!(!cases.is_empty(), "no cases");
    let mut report = String::new();
    let mut compared = 0;
    for case in &cases {
        let of_case = run_case(case, &mut report);
        if of_case == 0 {
            report.push_str("a case that compares nothing\n");
        }
        compared += of_case;
    }
    println!("{compared} command lines compared in {} cases", cases.len());
    assert!(report.is_empty(), "\n{report}");
}

/// Whether there is something to compare with. Where `CI` is set it has to be.
fn peer_is_there() -> bool {
    Peer::qemu_img().is_some() && Peer::qemu_io().is_some()
}

struct Case<'a> {
    name: &'a str,
    lines: Vec<Vec<String>>,
}

fn parse(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    let mut begun = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('=') {
            cases.push(Case { name: name.trim(), lines: Vec::new() });
        } else if line.starts_with('#') || line.trim().is_empty() {
        } else if let Some(start) = line.strip_suffix('\\') {
            begun.push_str(start);
        } else {
            begun.push_str(line);
            let case = cases.last_mut().expect("a case begins with a line '= name'");
            case.lines.push(words(&std::mem::take(&mut begun)));
        }
    }
    cases
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => word.get_or_insert_default().push(letter),
            None if letter == '\'' || letter == '"' => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter == ' ' => words.extend(word.take()),
            None => word.get_or_insert_default().push(letter),
        }
    }
    assert!(quote.is_none(), "unbalanced quotes: {line}");
    words.extend(word);
    words
}

/// Runs one case, adds what differs to `report`, and returns how many lines were compared.
fn run_case(case: &Case<'_>, report: &mut String) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    fs::create_dir(&ours).unwrap();
    fs::create_dir(&theirs).unwrap();
    let rimg = folder.path().join("qemu-img");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rimg"), &rimg).unwrap();
    let mut compared = 0;
    let mut servers = Vec::new();
    let mut ours = Place { folder: ours, disk: None };
    let mut theirs = Place { folder: theirs, disk: None };
    for line in &case.lines {
        let (verb, args) = line.split_first().unwrap();
        if let Some(call) = Call::of(verb, args) {
            compared += 1;
            let mut our = outcome(&rimg, &ours, &call);
            let mut their = outcome(Path::new("qemu-img"), &theirs, &call);
            if verb == "like" || verb == "first" {
                our.forget_places();
                their.forget_places();
            }
            if verb == "first" {
                our.keep_first_line();
                their.keep_first_line();
            }
            if call.has_to_succeed && their.exit != Some(0) {
                let _ = writeln!(
                    report,
                    "qemu-img itself fails: '{}': {}",
                    line.join(" "),
                    their.stderr
                );
            }
            if our != their {
                let _ = writeln!(
                    report,
                    "case '{}', line '{}'\n{}",
                    case.name,
                    line.join(" "),
                    differences(&our, &their)
                );
            }
            continue;
        }
        match verb.as_str() {
            "equal" => {
                compared += 1;
                let file = &args[0];
                let (Some(our), Some(their)) =
                    (timeless(&ours.path(file)), timeless(&theirs.path(file)))
                else {
                    let _ = writeln!(report, "case '{}': there is no file '{file}'", case.name);
                    continue;
                };
                if our != their {
                    let first = our.iter().zip(&their).position(|(ours, theirs)| ours != theirs);
                    let _ = writeln!(
                        report,
                        "case '{}', file '{file}': first difference at {first:?}, lengths {} and {}",
                        case.name,
                        our.len(),
                        their.len()
                    );
                }
            }
            "same" => {
                fs::copy(ours.path(&args[0]), theirs.path(&args[0])).unwrap();
            }
            "disk" => {
                if !ours.mount(args) || !theirs.mount(args) {
                    return compared.max(1);
                }
            }
            "gone" => {
                compared += 1;
                for name in args.iter().filter(|name| ours.path(name).exists()) {
                    let _ = writeln!(report, "case '{}': '{name}' is left", case.name);
                }
            }
            "serve" => {
                for Place { folder, .. } in [&ours, &theirs] {
                    let rest: Vec<&str> = args[2..].iter().map(String::as_str).collect();
                    let (socket, file) = (folder.join(&args[0]), folder.join(&args[1]));
                    servers.extend(QemuNbd::export(&file, &socket, &rest));
                }
            }
            "stop" => {
                servers.clear();
            }
            verb => {
                prepare(verb, args, &ours, case);
                prepare(verb, args, &theirs, case);
            }
        }
    }
    compared
}

/// Where the commands of one of the two programs run.
struct Place {
    folder: PathBuf,
    /// What is mounted below it.
    disk: Option<SmallDisk>,
}

impl Place {
    /// Mounts a small file system; returns whether that was possible.
    fn mount(&mut self, args: &[String]) -> bool {
        let [name, bytes] = args else { panic!("a folder and a size, not {args:?}") };
        let mount_point = self.folder.join(name);
        fs::create_dir(&mount_point).unwrap();
        self.disk = SmallDisk::mount(&mount_point, bytes.parse().unwrap());
        self.disk.is_some()
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        self.disk.as_ref().map_or(path.clone(), |disk| disk.seen(&path))
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        if let Some(disk) = &self.disk {
            return disk.command(program, &self.folder);
        }
        let mut command = Command::new(program);
        command.current_dir(&self.folder);
        command
    }
}

fn prepare(verb: &str, args: &[String], place: &Place, case: &Case<'_>) {
    let path = |name: &String| -> PathBuf { place.path(name) };
    match (verb, args) {
        ("ref", args) => succeed(place.command("qemu-img").args(args), case),
        ("io", args) => succeed(place.command("qemu-io").args(args), case),
        ("fill", [leave]) => place.disk.as_ref().unwrap().fill(leave.parse().unwrap()),
        ("write", [name, at, bytes]) => {
            let mut file = fs::File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path(name))
                .unwrap();
            file.seek(SeekFrom::Start(at.parse().unwrap())).unwrap();
            file.write_all(&hexadecimal(bytes)).unwrap();
        }
        ("truncate", [name, len]) => {
            let file = fs::File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path(name))
                .unwrap();
            file.set_len(len.parse().unwrap()).unwrap();
        }
        ("copy", [name, copy]) => {
            fs::copy(path(name), path(copy)).unwrap();
        }
        ("remove", [name]) => fs::remove_file(path(name)).unwrap(),
        ("clear", [name]) => drop(fs::remove_file(path(name))),
        ("noise", [name, len]) => {
            let mut bytes = vec![0; len.parse().unwrap()];
            Rng::new(1).fill(&mut bytes);
            fs::write(path(name), bytes).unwrap();
        }
        ("mkdir", [name]) => fs::create_dir(path(name)).unwrap(),
        _ => panic!("case '{}': what is '{verb} {args:?}'?", case.name),
    }
}

/// The bytes of a file, if there is one; where it is a qcow2 image, without the times in its
/// snapshot table.
fn timeless(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    // Version 1 is another format, without snapshots.
    if !bytes.starts_with(b"QFI\xfb") || bytes.starts_with(b"QFI\xfb\0\0\0\x01") {
        return Some(bytes);
    }
    let number = |bytes: &[u8], at: usize, len: usize| {
        bytes[at..at + len].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let mut at = number(&bytes, 64, 8);
    for _ in 0..number(&bytes, 60, 4) {
        bytes[at + 16..at + 24].fill(0);
        let texts = number(&bytes, at + 12, 2) + number(&bytes, at + 14, 2);
        at = (at + 40 + number(&bytes, at + 36, 4) + texts).next_multiple_of(8);
    }
    Some(bytes)
}

fn succeed(command: &mut Command, case: &Case<'_>) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "case '{}': {command:?}: {output:?}", case.name);
}

fn hexadecimal(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A line that runs qemu-img.
struct Call<'a> {
    /// `NAME=VALUE` each.
    environment: &'a [String],
    args: &'a [String],
    has_to_succeed: bool,
}

impl<'a> Call<'a> {
    /// `None` where `verb` is another one.
    fn of(verb: &str, words: &'a [String]) -> Option<Self> {
        match verb {
            "img" | "like" | "first" => {
                Some(Self { environment: &[], args: words, has_to_succeed: false })
            }
            "qemu-img" | "/usr/bin/qemu-img" => {
                Some(Self { environment: &[], args: words, has_to_succeed: true })
            }
            "env" => {
                let at = words.iter().position(|word| word == "qemu-img").unwrap();
                Some(Self {
                    environment: &words[..at],
                    args: &words[at + 1..],
                    has_to_succeed: true,
                })
            }
            _ => None,
        }
    }
}

#[derive(PartialEq, Eq)]
struct Outcome {
    exit: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    /// Takes out what is said behind the first line of standard error: what an image that is being
    /// closed has to say of an error that came before, or what is left of a target.
    fn keep_first_line(&mut self) {
        let end = self.stderr.find('\n').map_or(self.stderr.len(), |at| at + 1);
        self.stderr.truncate(end);
    }

    /// Takes out where the image's file ends, and where copying failed: how much is copied at a
    /// time is everybody's own business.
    fn forget_places(&mut self) {
        let is_end = |line: &&str| {
            let line = line.trim_start();
            line.starts_with("file length: ") || line.starts_with("Image end offset: ")
        };
        let lines: Vec<&str> = self.stdout.lines().filter(|line| !is_end(line)).collect();
        self.stdout = lines.join("\n");
        for failed in ["error while writing at byte ", "error while reading at byte "] {
            if let Some((before, rest)) = self.stderr.split_once(failed) {
                let rest = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
                self.stderr = format!("{before}{failed}N{rest}");
            }
        }
    }
}

fn outcome(program: &Path, place: &Place, call: &Call<'_>) -> Outcome {
    let mut command = place.command(program);
    command.args(call.args).stdin(Stdio::null());
    command.envs(call.environment.iter().map(|setting| setting.split_once('=').unwrap()));
    let output = command.output().unwrap();
    let program = program.display().to_string();
    let neutral = |bytes: &[u8]| neutral(&String::from_utf8_lossy(bytes), &program);
    Outcome {
        exit: output.status.code(),
        stdout: neutral(&output.stdout),
        stderr: neutral(&output.stderr),
    }
}

/// Takes out what may differ: how the program is called, how much space a file system needs, how
/// far the work was between its start and its end and how often that was said, how long it took,
/// when snapshots were taken, and numbers that qemu-img draws.
fn neutral(text: &str, program: &str) -> String {
    let mut neutral = String::new();
    let is_step = |piece: &&str| {
        piece.ends_with("/100%)\r") && !piece.contains("(0.00/") && !piece.contains("(100.00/")
    };
    let mut pieces: Vec<&str> =
        text.split_inclusive('\r').filter(|piece| !is_step(piece)).collect();
    pieces.dedup();
    let text = pieces.concat();
    for line in text.replace(program, "qemu-img").split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        match line.trim_start() {
            space if space.starts_with("disk size: ") => {
                let _ = writeln!(neutral, "{:indent$}disk size: N", "");
            }
            time if time.starts_with("Run completed in ") => neutral.push_str("Run completed\n"),
            space if space.starts_with("\"actual-size\": ") => {
                let _ = writeln!(neutral, "{:indent$}\"actual-size\": N,", "");
            }
            date if date.starts_with("\"date-") => {
                let _ = writeln!(neutral, "{:indent$}\"date\": N,", "");
            }
            _ => neutral.push_str(&without_dates(&without_numbers(line))),
        }
    }
    neutral
}

/// Replaces the number in `#block123`.
fn without_numbers(line: &str) -> String {
    match line.split_once("#block") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|letter: char| letter.is_ascii_digit());
            format!("{before}#blockN{after}")
        }
        None => line.to_owned(),
    }
}

/// Replaces every `2001-02-03 04:05:06`.
fn without_dates(line: &str) -> String {
    const DATE: &str = "0000-00-00 00:00:00";
    let is_date = |text: &str| {
        text.len() == DATE.len()
            && text.bytes().zip(DATE.bytes()).all(|(byte, pattern)| match pattern {
                b'0' => byte.is_ascii_digit(),
                _ => byte == pattern,
            })
    };
    let mut neutral = line.to_owned();
    for at in 0..line.len().saturating_sub(DATE.len()) {
        if line.get(at..at + DATE.len()).is_some_and(is_date) {
            neutral.replace_range(at..at + DATE.len(), DATE);
        }
    }
    neutral
}

fn differences(ours: &Outcome, theirs: &Outcome) -> String {
    let mut text = String::new();
    if ours.exit != theirs.exit {
        let _ = writeln!(text, "  exit code {:?}, not {:?}", ours.exit, theirs.exit);
    }
    for (stream, ours, theirs) in
        [("stdout", &ours.stdout, &theirs.stdout), ("stderr", &ours.stderr, &theirs.stderr)]
    {
        if ours != theirs {
            let _ = writeln!(text, "  {stream}, ours: {ours:?}\n  {stream}, theirs: {theirs:?}");
        }
    }
    text
}
