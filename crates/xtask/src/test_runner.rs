//! The tests of every crate, by nextest where it is installed.

use crate::{Result, run};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// What proptest draws its cases from.
const SEED: &str = "PROPTEST_RNG_SEED";

/// `cargo xtask test [ARGUMENT]...`: further arguments go to the runner.
pub(crate) fn run(args: &[String]) -> Result {
    let nextest = run::output(&mut run::cargo_command(&["nextest", "--version"])).is_ok();
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    let mut command = run::cargo_command(runner);
    command.arg("--workspace");
    if !nextest {
        // Unit and integration tests only: `doctest` is a step of its own.
        command.args(["--lib", "--bins", "--tests"]);
    }
    let skips = run::root().join("target").join("test-skips.txt");
    // Lines of an earlier run, if there was one.
    let _ = fs::remove_file(&skips);
    command.env("RIMG_TEST_SKIPS", &skips);
    if let Some(seed) = seed_of_this_tree() {
        println!("random cases are those of {SEED}={seed}");
        command.env(SEED, seed);
    }
    // One failure must not hide the others.
    let result = run::check(command.arg("--no-fail-fast").args(args));
    show_skips(&fs::read_to_string(&skips).unwrap_or_default());
    result
}

/// Whoever tests a tree draws the same cases, and a change draws others. Nothing where somebody has
/// chosen a seed, and outside a repository.
fn seed_of_this_tree() -> Option<String> {
    if std::env::var_os(SEED).is_some() {
        return None;
    }
    let mut git = Command::new("git");
    let git = git.args(["rev-parse", "HEAD^{tree}"]).current_dir(run::root());
    let tree = run::output(git).ok()?;
    u64::from_str_radix(tree.get(..16)?, 16).ok().map(|seed| seed.to_string())
}

/// Runners hide the output of tests that pass, and so what those left out.
fn show_skips(lines: &str) {
    let lines: BTreeSet<&str> = lines.lines().collect();
    for line in &lines {
        println!("SKIPPED {line}");
    }
    println!("{} tests or parts of tests were skipped", lines.len());
}

/// `cargo xtask doctest`: nextest does not run these.
pub(crate) fn run_doc(_: &[String]) -> Result {
    run::cargo(&["test", "--workspace", "--doc", "--quiet"])
}
