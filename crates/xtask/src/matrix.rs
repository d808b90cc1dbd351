//! `cargo xtask matrix`: which sub-command works with which format, by trying all of them with
//! rimg and with qemu-img. Writes the table of the README between its markers, or with `--check`
//! fails where it is not true.

use crate::{Result, run};
use rimg_testkit::legacy::{self, DmgChunk, DmgTables};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BEGIN: &str = "<!-- matrix:begin -->";
const END: &str = "<!-- matrix:end -->";

/// The formats, with what has to be said to create an image.
const FORMATS: &[(&str, &str)] = &[
    ("raw", ""),
    ("qcow2", ""),
    ("qcow", ""),
    ("qed", ""),
    ("vmdk", ""),
    ("vpc", ""),
    ("vhdx", ""),
    ("vdi", ""),
    ("parallels", ""),
    ("luks", "key-secret=s,iter-time=10"),
    ("bochs", ""),
    ("cloop", ""),
    ("dmg", ""),
];

/// A column: its heading, and the command lines that have to succeed, one after the other.
/// `IMAGE` stands for `--image-opts` and the image, `FORMAT` and `OPTIONS` for those of the format.
struct Column {
    heading: &'static str,
    lines: &'static [&'static str],
}

const fn column(heading: &'static str, lines: &'static [&'static str]) -> Column {
    Column { heading, lines }
}

const COLUMNS: &[Column] = &[
    column("create", &["create -f FORMAT -o OPTIONS new 4M"]),
    column("info", &["info IMAGE"]),
    column("map", &["map --output=json IMAGE"]),
    column("convert from", &["convert -O raw IMAGE out", "compare -f raw -F raw disk out"]),
    column("convert to", &["convert -f raw -O FORMAT -o OPTIONS disk out"]),
    column("compare", &["compare IMAGE driver=raw,file.filename=disk"]),
    column("dd", &["dd -O raw --image-opts if=SPEC of=out"]),
    column("measure", &["measure -O FORMAT -o OPTIONS --size 4M"]),
    column("check", &["check IMAGE"]),
    column("repair", &["check -r all IMAGE"]),
    column("resize", &["resize IMAGE +1M"]),
    column("shrink", &["resize --shrink IMAGE 1M"]),
    column("amend", &["amend -o AMEND IMAGE"]),
    column("snapshot", &["snapshot -c s IMAGE"]),
    column("bitmap", &["bitmap --add IMAGE b"]),
    column("bench", &["bench -c 4 IMAGE"]),
    column("commit", &["create -f FORMAT -b disk -F raw top", "commit -f FORMAT top"]),
    column(
        "rebase",
        &["create -f FORMAT -b disk -F raw top", "rebase -f FORMAT -b other -F raw top"],
    ),
    column("checksum", &["checksum IMAGE"]),
    column("to a pipe", &["convert -f raw -O FORMAT -o OPTIONS disk -"]),
    column("from a pipe", &["convert -f raw -O FORMAT -o OPTIONS - out"]),
];

/// `cargo xtask matrix [--check]`
pub(crate) fn run(args: &[String]) -> Result {
    let check = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err("takes only --check".into()),
    };
    let table = table()?;
    let readme = run::root().join("README.md");
    let text = fs::read_to_string(&readme)?;
    let missing = || format!("README.md has no {BEGIN} … {END}");
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (old, after) = rest.split_once(END).ok_or_else(missing)?;
    if old.trim() == table.trim() {
        println!("the table is true");
        return Ok(());
    }
    if check {
        return Err("the table in README.md is not true: run `cargo xtask matrix`".into());
    }
    fs::write(&readme, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    println!("updated {}", readme.display());
    Ok(())
}

fn table() -> Result<String> {
    run::cargo(&["build", "--quiet", "-p", "rimg-cli"])?;
    let rimg = run::root().join("target/debug/rimg");
    let qemu_img = run::need("qemu-img")?;
    let folder = std::env::temp_dir().join(format!("rimg-matrix-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let tried = rows(&folder, &rimg, &qemu_img);
    fs::remove_dir_all(&folder)?;
    let rows = tried?;
    let mut text = String::from("| |");
    text.extend(FORMATS.iter().map(|(format, _)| format!(" {format} |")));
    text.push_str("\n|---|");
    text.push_str(&":-:|".repeat(FORMATS.len()));
    text.push('\n');
    for (column, cells) in COLUMNS.iter().zip(rows) {
        text.push_str(&format!("| {} |", column.heading));
        for (rimg, qemu_img) in cells {
            text.push_str(match (rimg, qemu_img) {
                (true, true) => " ● |",
                (true, false) => " ◐ |",
                (false, true) => " ○ |",
                (false, false) => " – |",
            });
        }
        text.push('\n');
    }
    Ok(text)
}

/// For each column and each format, whether rimg and qemu-img can.
fn rows(folder: &Path, rimg: &Path, qemu_img: &Path) -> Result<Vec<Vec<(bool, bool)>>> {
    let mut rows = vec![Vec::new(); COLUMNS.len()];
    for (format, options) in FORMATS {
        let template = folder.join(format);
        prepare(&template, format, options, qemu_img)?;
        for (column, cells) in COLUMNS.iter().zip(&mut rows) {
            let trial = |program: &Path| -> Result<bool> {
                let trial = Trial { folder: folder.join("trial"), program, format, options };
                fs::create_dir_all(&trial.folder)?;
                for file in ["disk", "other", "image"] {
                    fs::copy(template.join(file), trial.folder.join(file))?;
                }
                let done = trial.succeeds(column);
                fs::remove_dir_all(&trial.folder)?;
                done
            };
            cells.push((trial(rimg)?, trial(qemu_img)?));
        }
    }
    Ok(rows)
}

/// One program and one format in a folder of their own.
struct Trial<'a> {
    folder: PathBuf,
    program: &'a Path,
    format: &'a str,
    options: &'a str,
}

/// A chunk of a dmg that is stored as it is.
const RAW: u32 = 1;

/// The length of the disk in bytes.
const DISK_BYTES: usize = 4 << 20;

const SECRETS: [&str; 4] = ["--object", "secret,id=s,data=one", "--object", "secret,id=n,data=two"];

/// Makes a disk, and an image of it.
fn prepare(folder: &Path, format: &str, options: &str, qemu_img: &Path) -> Result {
    fs::create_dir_all(folder)?;
    let mut disk = vec![0; DISK_BYTES];
    for (index, byte) in disk.iter_mut().take(100_000).enumerate() {
        *byte = u8::try_from(index % 251)?;
    }
    let file = |name: &str| folder.join(name);
    fs::write(file("disk"), &disk)?;
    fs::write(file("other"), &disk)?;
    match format {
        "bochs" => fs::write(file("image"), legacy::bochs(0x0002_0000, 65_536, &disk))?,
        "cloop" => {
            let blocks: Vec<_> = disk.chunks(32_768).map(stored).collect::<Result<_>>()?;
            fs::write(file("image"), legacy::cloop(32_768, &blocks))?;
        }
        "dmg" => {
            let sectors = u64::try_from(disk.len() / 512)?;
            let chunk = DmgChunk { kind: RAW, sectors, bytes: disk };
            fs::write(file("image"), legacy::dmg(&[vec![chunk]], DmgTables::Plist))?;
        }
        _ => {
            let mut command = Command::new(qemu_img);
            command.current_dir(folder).arg("convert").args(&SECRETS[..2]);
            command.args(["-f", "raw", "-O", format]);
            if !options.is_empty() {
                command.args(["-o", options]);
            }
            run::output(command.args(["disk", "image"]))?;
        }
    }
    Ok(())
}

/// A zlib stream of bytes as they are: RFC 1951, 3.2.4, in RFC 1950.
fn stored(bytes: &[u8]) -> Result<Vec<u8>> {
    let len = u16::try_from(bytes.len())?;
    let (low, high) = bytes.iter().fold((1_u32, 0_u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    let mut stream = vec![0x78, 0x01, 1];
    stream.extend(len.to_le_bytes());
    stream.extend((!len).to_le_bytes());
    stream.extend_from_slice(bytes);
    stream.extend((high << 16 | low).to_be_bytes());
    Ok(stream)
}

impl Trial<'_> {
    /// Whether all command lines of a column succeed.
    fn succeeds(&self, column: &Column) -> Result<bool> {
        for line in column.lines {
            let mut command = Command::new(self.program);
            command.current_dir(&self.folder).env("LC_ALL", "C");
            let mut words = line.split(' ');
            command.args(words.next());
            if !line.starts_with("bench") || self.format == "luks" {
                command.args(&SECRETS[..if line.starts_with("amend") { 4 } else { 2 }]);
            }
            let mut words = words.peekable();
            while let Some(word) = words.next() {
                self.add_word(&mut command, word, words.peek().copied());
            }
            if line.contains(" - ") {
                command.stdin(fs::File::open(self.folder.join("disk"))?);
            } else {
                command.stdin(Stdio::null());
            }
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            // qemu-img makes a file of this name, which is no pipe.
            let is_file = self.folder.join("-").exists();
            if !status.success() || is_file {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add_word(&self, command: &mut Command, word: &str, next: Option<&str>) {
        let key = if self.format == "luks" { ",key-secret=s" } else { "" };
        let spec = format!("driver={},file.filename=image{key}", self.format);
        match word {
            "IMAGE" => command.arg("--image-opts").arg(spec),
            "if=SPEC" => command.arg(format!("if={spec}")),
            "FORMAT" => command.arg(self.format),
            "AMEND" => command.arg(match self.format {
                "qcow2" => "lazy_refcounts=on",
                "luks" => "state=active,new-secret=n,iter-time=10",
                _ => "size=8M",
            }),
            "-o" if next == Some("OPTIONS") && self.options.is_empty() => command,
            "OPTIONS" if self.options.is_empty() => command,
            "OPTIONS" => command.arg(self.options),
            word => command.arg(word),
        };
    }
}
