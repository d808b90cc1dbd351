//! `cargo xtask bench`: whole commands, rimg against qemu-img, on the same files.
//!
//! Figures that can be trusted need some care:
//! - The programs take turns, and who goes first changes every round, so that neither profits from
//!   a machine that is getting faster or slower.
//! - Data and targets lie in memory (tmpfs) where there is room, so that no disk is measured.
//! - Before each run the target of the last is removed, and as many pages as the run will write are
//!   written and freed: on a virtual machine the first touch of a page costs up to ten times the
//!   write, and would fall on whoever runs first.
//! - Every command is a child of a process of its own, whose resource usage is therefore the
//!   command's: wall clock, user and system time, peak resident memory.
//! - A row's ratios are those of the medians.
//! - What was written is compared with its source before anything is timed: a fast wrong answer is a
//!   failure, not a record.

mod data;
pub(crate) mod measure;
mod memory;
mod options;
mod report;
mod rows;
mod time_row;

use crate::{Result, run};
use data::DataSet;
use options::Options;
use std::path::{Path, PathBuf};

/// The hidden command by which the benchmark starts itself to measure one command.
pub(crate) const MEASURE: &str = "__measure";

/// `cargo xtask bench [OPTION]...`
pub(crate) fn run(args: &[String]) -> Result {
    let Some(options) = Options::parse(args)? else {
        println!("{}", options::HELP);
        return Ok(());
    };
    let programs = Programs {
        rimg: match &options.rimg {
            Some(path) => path.canonicalize()?,
            None => build_rimg()?,
        },
        qemu_img: run::need("qemu-img")?,
        peer: if options.imago { Some(build_imago_peer()?) } else { None },
    };
    let data = DataSet::ready(&options)?;

    let mut outcomes = Vec::new();
    for row in rows::ROWS.iter().filter(|row| options.wants(row.name)) {
        let outcome = time_row::time(row, &programs, &data, &options)?;
        println!("{}", report::line(&outcome));
        outcomes.push(outcome);
    }
    if outcomes.is_empty() {
        return Err("no row has that name".into());
    }
    report::print(&outcomes, &programs, &options, &data)?;
    if options.update_readme {
        if let Some(failed) = outcomes.iter().find(|outcome| outcome.failed()) {
            return Err(format!("no table for README.md: {} failed", failed.row.name).into());
        }
        report::update_readme(&run::root().join("README.md"), &outcomes, &programs, &options)?;
    }
    let missed = report::missed(&outcomes);
    if options.check && !missed.is_empty() {
        return Err(format!("goals missed:\n{}", missed.join("\n")).into());
    }
    Ok(())
}

/// The contenders.
struct Programs {
    rimg: PathBuf,
    qemu_img: PathBuf,
    /// A second library's converter, asked for by `--imago`.
    peer: Option<PathBuf>,
}

/// The command, built for speed.
pub(crate) fn build_rimg() -> Result<PathBuf> {
    run::cargo(&["build", "--release", "--quiet", "-p", "rimg-cli", "--bin", "rimg"])?;
    built(&run::root().join("target").join("release").join("rimg"))
}

fn build_imago_peer() -> Result<PathBuf> {
    let folder = run::root().join("benches").join("imago-peer");
    let manifest = folder.join("Cargo.toml");
    let target = run::root().join("target").join("imago-peer");
    let mut build = run::cargo_command(&["build", "--release", "--quiet", "--manifest-path"]);
    run::check(build.arg(manifest).arg("--target-dir").arg(&target))?;
    built(&target.join("release").join("imago-peer"))
}

fn built(program: &Path) -> Result<PathBuf> {
    program.canonicalize().map_err(|error| format!("{}: {error}", program.display()).into())
}
