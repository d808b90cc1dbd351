//! Every format into every other: what comes out is what went in, for qemu-img as for rimg.
#![expect(clippy::unwrap_used, reason = "a failure is a failed test")]

use rimg_testkit::guest::GuestContents;
use rimg_testkit::peer::Peer;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

/// How an image of a format is written, and how it is named afterwards.
struct Form {
    /// What the file is called.
    file: &'static str,
    format: &'static str,
    /// The value of `-o`, or nothing.
    options: &'static str,
    /// Whether qemu-img checks it.
    checked: bool,
}

const fn form(
    file: &'static str,
    format: &'static str,
    options: &'static str,
    checked: bool,
) -> Form {
    Form { file, format, options, checked }
}

/// All that can be written, with the subformats that are laid out differently.
const FORMS: &[Form] = &[
    form("raw", "raw", "", false),
    form("qcow2", "qcow2", "", true),
    form("qcow", "qcow", "", false),
    form("qed", "qed", "", true),
    form("vdi", "vdi", "", true),
    form("vdi-static", "vdi", "static=on", true),
    form("vpc", "vpc", "", false),
    form("vpc-fixed", "vpc", "subformat=fixed", false),
    form("vpc-force", "vpc", "force_size=on", false),
    form("vhdx", "vhdx", "", true),
    form("vhdx-fixed", "vhdx", "subformat=fixed", true),
    form("vmdk", "vmdk", "", true),
    form("vmdk-stream", "vmdk", "subformat=streamOptimized", false),
    form("vmdk-flat", "vmdk", "subformat=monolithicFlat", false),
    form("vmdk-split", "vmdk", "subformat=twoGbMaxExtentSparse", false),
    form("parallels", "parallels", "", true),
    form("luks", "luks", "key-secret=s,iter-time=10", false),
];

const SECRET: &str = "secret,id=s,data=swordfish";

/// A size that is no multiple of a sector, and ends within a block of all formats.
const SIZE_BYTES: u64 = (5 << 20) + 3000;

#[test]
fn every_format_into_every_other() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make_disk(&folder.join("disk"));
    let disk = form("disk", "raw", "", false);
    for source in FORMS {
        run(qemu_img.program(), folder, &convert(&disk, source));
    }
    let rimg = Path::new(env!("CARGO_BIN_EXE_rimg"));
    for source in FORMS {
        for target in FORMS {
            let made = format!("{}-{}", source.file, target.file);
            let made = Form { file: made.leak(), ..*target };
            run(rimg, folder, &convert(source, &made));
            for program in [rimg, qemu_img.program()] {
                let said = run(program, folder, &compare(&disk, &made));
                assert!(said.contains("Images are identical."), "{said}");
            }
            if made.checked {
                for program in [rimg, qemu_img.program()] {
                    run(program, folder, &["check", "-q", "-f", made.format, made.file]);
                }
            }
            remove(folder, made.file);
        }
    }
}

impl Form {
    /// How the image is named as a source: those that are encrypted need more than a name.
    fn name(&self) -> String {
        match self.format {
            "luks" => format!("driver=luks,key-secret=s,file.filename={}", self.file),
            format => format!("driver={format},file.filename={}", self.file),
        }
    }
}

fn convert<'a>(from: &Form, to: &'a Form) -> Vec<std::borrow::Cow<'a, str>> {
    let mut args: Vec<std::borrow::Cow<'a, str>> = vec!["convert".into()];
    args.extend(["--object".into(), SECRET.into(), "--image-opts".into()]);
    args.extend(["-O".into(), to.format.into()]);
    if !to.options.is_empty() {
        args.extend(["-o".into(), to.options.into()]);
    }
    args.extend([from.name().into(), to.file.into()]);
    args
}

fn compare(one: &Form, other: &Form) -> Vec<String> {
    let args = ["compare", "--object", SECRET, "--image-opts"];
    args.into_iter().map(str::to_owned).chain([one.name(), other.name()]).collect()
}

fn run(program: &Path, folder: &Path, args: &[impl AsRef<str>]) -> String {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    let out = Command::new(program).args(&args).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let name = program.file_name().unwrap().to_string_lossy();
    let wrong = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name} {}\n{said}{wrong}", args.join(" "));
    said
}

/// Some formats have files beside the one that has the image's name.
fn remove(folder: &Path, name: &str) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with(name) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// Data, zeroes that are written, and holes.
fn make_disk(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    file.set_len(SIZE_BYTES).unwrap();
    let mut write = |at: u64, bytes: &[u8]| {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    };
    write(0, &GuestContents::new(1, 300_000).to_vec());
    write(1 << 20, &vec![0; 200_000]);
    write((2 << 20) + 512, &[0x5a; 1024]);
    write((3 << 20) - 700, &GuestContents::new(2, 1_100_000).to_vec());
    write(SIZE_BYTES - 1, &[7]);
}
