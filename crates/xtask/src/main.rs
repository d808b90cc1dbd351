//! Developer commands of rimg: `cargo xtask` lists them, `cargo xtask ci` runs those that must
//! pass before a change lands. One table holds them all, so that the two cannot drift apart.
#![forbid(unsafe_code)]

mod bench;
mod block_tests;
mod ci;
mod differential;
mod examples;
mod fuzz;
mod golden;
mod licences;
mod matrix;
mod metadata;
mod peers;
mod run;
mod startup;
mod test_runner;
mod tidy;

use std::process::ExitCode;

/// Any error, to be printed and nothing else.
type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// One row of `cargo xtask`.
struct Command {
    name: &'static str,
    /// One line for the list.
    help: &'static str,
    /// The arguments with which `cargo xtask ci` runs it; `None` keeps it out of CI.
    ci: Option<&'static [&'static str]>,
    run: fn(&[String]) -> Result,
}

/// Every developer command. CI runs those with `ci`, in this order: the quick ones first.
const COMMANDS: &[Command] = &[
    Command {
        name: "peers",
        help: "install the programs that tests compare with (--check: only look)",
        ci: Some(&[]),
        run: peers::run,
    },
    Command { name: "fmt", help: "check the formatting (--fix: format)", ci: Some(&[]), run: fmt },
    Command {
        name: "tidy",
        help: "check layers, file names, file lengths and leftovers",
        ci: Some(&[]),
        run: tidy::run,
    },
    Command {
        name: "licences",
        help: "check every dependency's licence against deny.toml",
        ci: Some(&[]),
        run: licences::run,
    },
    Command {
        name: "golden",
        help: "make the images of testdata/ again (--verify: check them against the manifest)",
        ci: Some(&["--verify"]),
        run: golden::run,
    },
    Command {
        name: "clippy",
        help: "lint everything, warnings denied",
        ci: Some(&[]),
        run: clippy,
    },
    Command {
        name: "doc",
        help: "build the documentation, warnings denied",
        ci: Some(&[]),
        run: doc,
    },
    Command {
        name: "fuzz",
        help: "build the fuzz targets (their corpora replay in the ordinary tests)",
        ci: Some(&[]),
        run: fuzz::run,
    },
    Command {
        name: "test",
        help: "run the tests of every crate",
        ci: Some(&[]),
        run: test_runner::run,
    },
    Command {
        name: "doctest",
        help: "run the examples in the documentation",
        ci: Some(&[]),
        run: test_runner::run_doc,
    },
    Command {
        name: "examples",
        help: "run every program in crates/*/examples",
        ci: Some(&[]),
        run: examples::run,
    },
    Command {
        name: "peer",
        help: "run random commands with qemu-img and with rimg, and compare (--help: options)",
        ci: Some(&["--steps", "5000"]),
        run: differential::run,
    },
    Command {
        name: "block-tests",
        help: "run QEMU's own block tests with rimg in the place of qemu-img (--help: how)",
        ci: None,
        run: block_tests::run,
    },
    Command {
        name: "bench",
        help: "time whole commands against qemu-img (--help: options)",
        ci: None,
        run: bench::run,
    },
    Command {
        name: "startup",
        help: "list what short commands run, for the linker (--check: whether the list fits)",
        ci: Some(&["--check"]),
        run: startup::run,
    },
    Command {
        name: "matrix",
        help: "write README's table of sub-commands and formats by trying them all (--check: only look)",
        ci: Some(&["--check"]),
        run: matrix::run,
    },
    Command { name: "ci", help: "run everything that must pass", ci: None, run: ci::run },
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    // The benchmark runs itself again to measure one command; not for people, so not in the list.
    if name == bench::MEASURE {
        return bench::measure::child(&rest);
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        usage(&name);
        return ExitCode::from(if matches!(&*name, "" | "help" | "--help" | "-h") { 0 } else { 2 });
    };
    match (command.run)(&rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(name: &str) {
    if !matches!(name, "" | "help" | "--help" | "-h") {
        eprintln!("cargo xtask: no command '{name}'");
    }
    println!("Usage: cargo xtask COMMAND [OPTION]...\n");
    for command in COMMANDS {
        let mark = if command.ci.is_some() { '*' } else { ' ' };
        println!("  {mark} {:<10} {}", command.name, command.help);
    }
    println!("\n  * is a step of `cargo xtask ci`");
}

fn fmt(args: &[String]) -> Result {
    match args {
        [] => run::cargo(&["fmt", "--all", "--check"]),
        [flag] if flag == "--fix" => run::cargo(&["fmt", "--all"]),
        _ => Err("takes only --fix".into()),
    }
}

fn clippy(_: &[String]) -> Result {
    run::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn doc(_: &[String]) -> Result {
    let mut command = run::cargo_command(&["doc", "--workspace", "--no-deps"]);
    run::check(command.env("RUSTDOCFLAGS", "-D warnings"))
}
