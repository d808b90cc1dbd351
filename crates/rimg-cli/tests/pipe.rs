//! `-`: images down a pipe, and disks out of one; qemu-img says what arrived.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rimg_testkit::guest::GuestContents;
use rimg_testkit::peer::Peer;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

/// A format with options of `-o`.
struct Form {
    format: &'static str,
    options: &'static str,
    /// Whether the bytes are those of the file that converting makes: not where the file's name is
    /// in it, or zeroes are told from data in pieces larger than a cluster.
    same_bytes: bool,
    /// Whether qemu-img checks it.
    checked: bool,
}

const fn form(
    format: &'static str,
    options: &'static str,
    same_bytes: bool,
    checked: bool,
) -> Form {
    Form { format, options, same_bytes, checked }
}

const FORMS: &[Form] = &[
    form("raw", "", true, false),
    form("qcow2", "", true, true),
    form("qcow2", "cluster_size=512", false, true),
    form("qcow2", "cluster_size=2M", true, true),
    form("qcow2", "extended_l2=on", false, true),
    form("qcow2", "compat=0.10", true, true),
    form("qcow2", "preallocation=metadata", false, true),
    form("vmdk", "", false, true),
    form("vmdk", "subformat=streamOptimized", false, true),
    form("vpc", "force_size=on", true, false),
    form("vpc", "subformat=fixed,force_size=on", true, false),
    form("vdi", "", true, true),
    form("vdi", "static=on", true, true),
    form("vhdx", "", true, true),
    form("qed", "", false, true),
    form("qcow", "", true, false),
    form("parallels", "", true, true),
];

/// More than is read before anything is known of a disk, and no multiple of any cluster.
const SIZE_BYTES: u64 = (9 << 20) + 512 * 5;

#[test]
fn what_goes_down_a_pipe_is_the_image() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("disk"));
    for form in FORMS {
        let convert = form.convert("disk");
        let piped = piped_from(folder, &[&convert[..], &["-"]].concat());
        assert!(!folder.join("-").exists());
        fs::write(folder.join("piped"), &piped).unwrap();
        form.look(&qemu_img, folder, "piped");
        if form.same_bytes {
            rimg(folder, &[&convert[..], &["file"]].concat());
            assert!(
                piped == fs::read(folder.join("file")).unwrap(),
                "{} {}",
                form.format,
                form.options
            );
        }
    }
}

#[test]
fn what_comes_out_of_a_pipe_is_the_disk() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("disk"));
    for form in FORMS {
        // Once without and once with a size that is known before.
        for size in [&[][..], &["--size", "9439744"]] {
            let args = [&form.convert("-")[..], size, &["image"]].concat();
            let out = piped_into(folder, &args, &fs::read(folder.join("disk")).unwrap());
            assert_eq!((text(&out.stderr), out.status.code()), (String::new(), Some(0)));
            form.look(&qemu_img, folder, "image");
        }
    }
}

#[test]
fn a_disk_of_unknown_size_makes_its_target_grow() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut bytes = vec![0; 70 << 20];
    bytes[69 << 20..].copy_from_slice(&GuestContents::new(4, 1 << 20).to_vec());
    bytes.truncate((70 << 20) - 512);
    fs::write(folder.join("disk"), &bytes).unwrap();
    for form in FORMS.iter().filter(|form| !form.options.starts_with("cluster_size=")) {
        let out = piped_into(folder, &[&form.convert("-")[..], &["image"]].concat(), &bytes);
        assert_eq!((text(&out.stderr), out.status.code()), (String::new(), Some(0)));
        form.look(&qemu_img, folder, "image");
    }
}

#[test]
fn a_chain_and_a_compressed_image_are_streamed_as_they_read() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("disk"));
    let q = qemu_img.in_dir(folder);
    q.ok(["convert", "-c", "-O", "qcow2", "disk", "base"]);
    q.ok(["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", "12M"]);
    fs::write(folder.join("piped"), piped_from(folder, &["convert", "-O", "vdi", "top", "-"]))
        .unwrap();
    assert_eq!(q.ok(["compare", "top", "piped"]), "Images are identical.\n");
}

#[test]
fn a_compressed_target_is_made_from_a_pipe() {
    let Some(qemu_img) = Peer::qemu_img() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("disk"));
    let disk = fs::read(folder.join("disk")).unwrap();
    let out =
        piped_into(folder, &["convert", "-c", "-f", "raw", "-O", "qcow2", "-", "image"], &disk);
    assert_eq!(text(&out.stderr), "");
    let q = qemu_img.in_dir(folder);
    assert_eq!(q.ok(["compare", "disk", "image"]), "Images are identical.\n");
}

#[test]
fn a_closed_pipe_and_a_full_disk_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("disk"));
    let mut child = command(folder, &["convert", "disk", "-"]).spawn().unwrap();
    let mut some = [0; 1000];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stderr),
        "rimg: standard output was closed before all of the image was written\n"
    );
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out = command(folder, &["convert", "disk", "-"]).stdout(full).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stderr);
    assert!(
        said.contains("No space left on device\nstandard output got only a part of an image"),
        "{said}"
    );
}

#[test]
fn less_than_was_said_leaves_no_target() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let args = ["convert", "-f", "raw", "-O", "qcow2", "--size", "1M", "-", "image"];
    let out = piped_into(folder, &args, &[7; 1000]);
    assert_eq!(out.status.code(), Some(1));
    let message = "Only 1000 bytes of the disk's 1048576 came from standard input";
    assert!(text(&out.stderr).contains(message), "{out:?}");
    assert!(!folder.join("image").exists());
}

#[test]
fn more_than_was_said_leaves_no_target() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["convert", "-f", "raw", "-O", "qcow2", "--size", "1M", "-", "image"];
    let out = piped_into(folder.path(), &args, &vec![1; 2 << 20]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stderr),
        "rimg: More comes from standard input than the 1048576 bytes of the disk\n\
         'image' is incomplete and was removed\n"
    );
    assert!(!folder.path().join("image").exists());
}

#[test]
fn what_cannot_be_streamed_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("disk"));
    for (args, message) in [
        (
            &["-O", "qcow2", "-c", "disk", "-"][..],
            "Compressed clusters cannot be streamed in this format: where they lie is only known behind them",
        ),
        (
            &["-O", "vmdk", "-o", "subformat=monolithicFlat", "disk", "-"],
            "error while creating the target: An image of several files cannot be streamed",
        ),
        (&["-n", "disk", "-"], "-n does not work with standard output"),
        (&["--verify", "disk", "-"], "--verify does not work with standard output"),
        (
            &["-f", "raw", "-", "-"],
            "Standard input cannot be converted to standard output: what an image begins with depends on all of the disk",
        ),
        (&["-", "image"], "Only raw disks can be read from standard input: say -f raw"),
        (
            &["-f", "raw", "-", "disk", "image"],
            "Standard input cannot be put together with other sources",
        ),
        (&["--size", "1M", "disk", "image"], "--size is for a disk that comes from standard input"),
    ] {
        let out = command(folder, &[&["convert"], args].concat()).output().unwrap();
        assert_eq!(text(&out.stderr), format!("rimg: {message}\n"));
        assert_eq!((out.status.code(), out.stdout.len()), (Some(1), 0));
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
}

#[test]
fn nothing_is_written_to_a_terminal() {
    let Some(script) = Peer::require("script") else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk"), [7; 512]).unwrap();
    let line = format!("{} convert disk -", env!("CARGO_BIN_EXE_rimg"));
    let out = script.in_dir(folder.path()).command(["-qec", &line, "/dev/null"]).output().unwrap();
    assert_eq!(
        text(&out.stdout).replace("\r\n", "\n"),
        "rimg: An image is nothing for a terminal: redirect standard output, or name a file\n"
    );
}

#[test]
fn a_dash_is_a_file_for_qemu_img_and_behind_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_disk(&folder.join("disk"));
    let dash = folder.join("-");
    let mut as_qemu_img = command(folder, &["convert", "-O", "qcow2", "disk", "-"]);
    let out = as_qemu_img.arg0("qemu-img").output().unwrap();
    assert_eq!((out.stdout.len(), text(&out.stderr), dash.exists()), (0, String::new(), true));
    let mut back = command(folder, &["convert", "-", "back"]);
    assert!(back.arg0("qemu-img").status().unwrap().success());
    assert!(fs::read(folder.join("back")).unwrap() == fs::read(folder.join("disk")).unwrap());
    fs::remove_file(&dash).unwrap();
    assert_eq!(rimg(folder, &["convert", "disk", "./-"]).len(), 0);
    assert!(dash.exists());
}

impl Form {
    /// The command line but for the target.
    fn convert(&self, source: &'static str) -> Vec<&'static str> {
        let mut args = vec!["convert", "-f", "raw", "-O", self.format];
        if !self.options.is_empty() {
            args.extend(["-o", self.options]);
        }
        args.push(source);
        args
    }

    /// Has qemu-img look at an image of `disk`.
    fn look(&self, qemu_img: &Peer, folder: &Path, image: &str) {
        let q = qemu_img.in_dir(folder);
        let said = q.ok(["compare", "-f", "raw", "-F", self.format, "disk", image]);
        assert_eq!(said, "Images are identical.\n", "{} {}", self.format, self.options);
        if self.checked {
            q.ok(["check", "-q", "-f", self.format, image]);
        }
    }
}

/// Data without zeroes, and holes: what the file's map tells is all there is to tell.
fn write_disk(path: &Path) {
    let mut file = File::create(path).unwrap();
    file.set_len(SIZE_BYTES).unwrap();
    let mut write = |at: u64, bytes: &[u8]| {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    };
    let data = |seed, len| -> Vec<u8> {
        GuestContents::new(seed, len).to_vec().iter().map(|byte| byte | 1).collect()
    };
    write(0, &data(1, 300_000));
    write((2 << 20) + 512, &data(2, 1_100_000));
    write(SIZE_BYTES - 1, &[7]);
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rimg"));
    command.arg0("rimg").args(args).current_dir(folder).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn rimg(folder: &Path, args: &[&str]) -> Vec<u8> {
    let out = command(folder, args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    out.stdout
}

/// What comes through a pipe.
fn piped_from(folder: &Path, args: &[&str]) -> Vec<u8> {
    rimg(folder, args)
}

fn piped_into(folder: &Path, args: &[&str], bytes: &[u8]) -> Output {
    let mut child = command(folder, args).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // It may not want all of it.
        scope.spawn(move || input.write_all(bytes));
        child.wait_with_output().unwrap()
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
