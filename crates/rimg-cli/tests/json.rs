//! Errors and progress for programs: lines of JSON on standard error.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn each_class_of_errors_has_its_name_and_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("disk"), vec![7; 4 << 20]).unwrap();
    fs::write(folder.join("target"), vec![1; 4 << 20]).unwrap();
    assert!(rimg(folder, &["create", "-f", "qcow2", "image", "4M"]).status.success());
    let mut bytes = fs::read(folder.join("image")).unwrap();
    // The number of entries of the L1 table: more than anyone has.
    bytes[36..40].copy_from_slice(&[0x7f; 4]);
    fs::write(folder.join("corrupt"), &bytes).unwrap();
    bytes[36..40].copy_from_slice(&[0, 0, 0, 1]);
    // An incompatible feature that nobody knows.
    bytes[72] = 0x80;
    fs::write(folder.join("unknown"), &bytes).unwrap();
    fs::File::create(folder.join("sparse")).unwrap().set_len(4 << 20).unwrap();
    let busy = fs::OpenOptions::new().read(true).write(true).open(folder.join("image")).unwrap();
    let cases: &[(&[&str], &str, i32)] = &[
        (&["info", "gone"], "not-found", 66),
        (&["info", "-f", "qcow2", "disk"], "wrong-format", 67),
        (&["info", "-f", "qcow2", "unknown"], "unsupported", 69),
        (&["convert", "-f", "qcow2", "corrupt", "x"], "corrupt", 65),
        (&["convert", "disk", "/dev/full/x"], "io", 74),
        (
            &["convert", "-f", "raw", "-n", "--target-is-zero", "--verify", "sparse", "target"],
            "mismatch",
            76,
        ),
        (&["info"], "usage", 64),
        (&["info", "--nothing", "disk"], "usage", 64),
        (&["bogus"], "usage", 64),
        (&["compare", "gone", "disk"], "not-found", 66),
    ];
    for (args, class, exit) in cases {
        for args in [[&["--errors", "json"], *args].concat(), [*args, &["--errors=json"]].concat()]
        {
            if args[0] == "bogus" {
                continue;
            }
            let out = rimg(folder, &args);
            let said = String::from_utf8(out.stderr).unwrap();
            let error: Value = serde_json::from_str(said.trim_end())
                .unwrap_or_else(|_| panic!("{args:?}: {said}"));
            assert_eq!(said.lines().count(), 1);
            assert_eq!(
                (&error["kind"], &error["class"]),
                (&"error".into(), &(*class).into()),
                "{said}"
            );
            assert_eq!(
                (out.status.code(), error["exit"].as_i64()),
                (Some(*exit), Some((*exit).into()))
            );
            assert!(!error["message"].as_str().unwrap().is_empty());
        }
    }
    drop(busy);
}

#[test]
fn without_it_messages_and_codes_are_those_of_qemu_img() {
    let folder = tempfile::tempdir().unwrap();
    let out = rimg(folder.path(), &["compare", "gone", "disk"]);
    assert_eq!(out.status.code(), Some(2));
    let message = "rimg: Could not open 'gone': Could not open 'gone': No such file or directory\n";
    assert_eq!(String::from_utf8(out.stderr).unwrap(), message);
}

#[test]
fn progress_is_told_in_bytes_and_ends_with_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("disk"), vec![7; 8 << 20]).unwrap();
    for args in [
        &["--progress", "json", "convert", "-O", "qcow2", "disk", "image"][..],
        &["compare", "--progress=json", "disk", "image"],
        &["checksum", "image", "--progress=json"],
        &["convert", "-O", "vdi", "--progress=json", "image", "-"],
    ] {
        let out = rimg(folder, args);
        assert!(out.status.success(), "{args:?}");
        let said = String::from_utf8(out.stderr).unwrap();
        let lines: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let done: Vec<u64> = lines.iter().map(|line| line["done"].as_u64().unwrap()).collect();
        assert!(done.is_sorted() && done.first() == Some(&0), "{args:?}: {done:?}");
        for line in &lines {
            assert_eq!((&line["kind"], &line["total"]), (&"progress".into(), &(8 << 20).into()));
        }
        let last = lines.last().unwrap();
        assert_eq!((&last["done"], &last["seconds-left"]), (&(8 << 20).into(), &0.0.into()));
        assert!(last["bytes-per-second"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_form_that_is_not_known_is_refused_and_qemu_img_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let out = rimg(folder, &["--errors", "xml", "info", "x"]);
    let expected =
        "rimg: --errors expects 'human' or 'json' not 'xml'\nTry 'rimg --help' for more info\n";
    assert_eq!(
        (String::from_utf8(out.stderr).unwrap().as_str(), out.status.code()),
        (expected, Some(1))
    );
    for args in [&["--errors", "json", "info", "x"][..], &["info", "--errors=json", "x"]] {
        let out = called("qemu-img", folder, args);
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(said.contains("unrecognized option '--errors"), "{said}");
    }
}

fn rimg(folder: &Path, args: &[&str]) -> Output {
    called("rimg", folder, args)
}

fn called(name: &str, folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rimg"));
    command.arg0(name).args(args).current_dir(folder).output().unwrap()
}
