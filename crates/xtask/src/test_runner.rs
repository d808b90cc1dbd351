//! The tests of every crate, by nextest where it is installed.

use crate::{Result, run};

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
    // One failure must not hide the others.
    run::check(command.arg("--no-fail-fast").args(args))
}

/// `cargo xtask doctest`: nextest does not run these.
pub(crate) fn run_doc(_: &[String]) -> Result {
    run::cargo(&["test", "--workspace", "--doc", "--quiet"])
}
