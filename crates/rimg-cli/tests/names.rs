//! File names that are no UTF-8.
#![cfg(unix)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

#[test]
fn names_need_not_be_utf8() {
    let folder = tempfile::tempdir().unwrap();
    let name = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let (source, target) = (name(b"so\xffurce"), name(b"tar\xffget"));
    let lines: [Vec<OsString>; 4] = [
        vec!["create".into(), "-f".into(), "qcow2".into(), source.clone(), "1M".into()],
        vec!["convert".into(), source.clone(), target.clone()],
        vec!["compare".into(), source.clone(), target.clone()],
        vec!["info".into(), target.clone()],
    ];
    for line in lines {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rimg"));
        let output = command.args(&line).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{line:?}: {output:?}");
    }
    assert!(folder.path().join(source).is_file());
    assert!(folder.path().join(target).is_file());
}
