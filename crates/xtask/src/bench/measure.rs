//! One command's time, processor time and peak memory.
//!
//! The kernel tells a process the usage of all its finished children together. So a process is
//! started that has no children but the command: this program again, as [`child`].

use super::MEASURE;
use crate::Result;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// What one run used; with repetitions, the mean of their times and the largest of their peaks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) wall_s: f64,
    /// User and system time, of all threads.
    pub(super) cpu_s: f64,
    pub(super) peak_kib: f64,
}

/// Runs a command in `folder`, `repeat` times, its output thrown away. A failure is an error.
pub(super) fn measure(
    program: &Path,
    args: &[String],
    folder: &Path,
    repeat: u32,
) -> Result<Sample> {
    let output = Command::new(std::env::current_exe()?)
        .arg(MEASURE)
        .arg(repeat.to_string())
        .arg(program)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} {}: {said}", program.display(), args.join(" ")).into());
    }
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let number = |key: &str| told[key].as_f64().ok_or_else(|| format!("no {key} measured"));
    Ok(Sample { wall_s: number("wall_s")?, cpu_s: number("cpu_s")?, peak_kib: number("peak_kib")? })
}

/// The other side: `REPEAT PROGRAM ARGUMENT...`
pub(crate) fn child(args: &[String]) -> ExitCode {
    match run_child(args) {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run_child(args: &[String]) -> Result<Value> {
    let [repeat, program, args @ ..] = args else { return Err("nothing to measure".into()) };
    let repeat: u32 = repeat.parse()?;
    let start = Instant::now();
    for _ in 0..repeat {
        let status =
            Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        if !status.success() {
            return Err(status.to_string().into());
        }
    }
    let wall_s = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu_s = seconds(usage.user_time())? + seconds(usage.system_time())?;
    let each = f64::from(repeat);
    Ok(json!({ "wall_s": wall_s / each, "cpu_s": cpu_s / each, "peak_kib": usage.max_rss() }))
}

fn seconds(time: TimeVal) -> Result<f64> {
    let whole = u32::try_from(time.tv_sec())?;
    let micros = u32::try_from(time.tv_usec())?;
    Ok(f64::from(whole) + f64::from(micros) / 1e6)
}
