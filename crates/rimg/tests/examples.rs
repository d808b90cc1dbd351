//! Runs the examples as the programs that they are.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::PathBuf;
use std::process::Command;

/// `cargo test` builds the examples before it runs tests (`cargo test --test examples` does not).
fn run(name: &str) -> String {
    let tests: PathBuf = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    let program = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let out = Command::new(&program).output().unwrap_or_else(|e| panic!("{program:?}: {e}"));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn open_and_read() {
    assert!(run("open_and_read").contains("raw, 1048576 bytes"));
}

#[test]
fn create_and_write() {
    assert!(run("create_and_write").contains("16777216 bytes of raw"));
}

#[test]
fn custom_storage() {
    assert!(run("custom_storage").contains("1048576 bytes upside down"));
}

#[test]
#[cfg(feature = "qcow2")]
fn custom_gate() {
    let out = run("custom_gate");
    assert!(out.contains("2 layers, the lowest is raw"), "{out}");
    assert!(out.contains("refused: backing file '/etc/shadow'"), "{out}");
}

#[test]
fn convert_with_progress() {
    let out = run("convert_with_progress");
    // Of 64 MiB, the first block and what was written are no holes.
    assert!(out.contains("100 % of 5246976 bytes"), "{out}");
    assert!(out.contains("in its middle: [7, 7, 0, 0]"), "{out}");
}
