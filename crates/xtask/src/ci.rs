//! Everything that must pass before a change lands, in one command.

use crate::{COMMANDS, Result};
use std::time::{Duration, Instant};

/// How a step went.
struct Outcome {
    name: &'static str,
    took: Duration,
    failure: Option<String>,
}

/// `cargo xtask ci [STEP]...`: every step of the table, or those named; a failure does not keep
/// the later ones from running, so that one run shows everything that is wrong.
pub(crate) fn run(wanted: &[String]) -> Result {
    for name in wanted {
        if !COMMANDS.iter().any(|command| command.ci.is_some() && command.name == *name) {
            return Err(format!("'{name}' is not a step: see `cargo xtask`").into());
        }
    }
    let mut outcomes = Vec::new();
    for command in COMMANDS {
        let Some(args) = command.ci else { continue };
        if !wanted.is_empty() && !wanted.iter().any(|name| name == command.name) {
            continue;
        }
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        println!("\n=== {}: {}", command.name, command.help);
        let start = Instant::now();
        let failure = (command.run)(&args).err().map(|error| error.to_string());
        let outcome = Outcome { name: command.name, took: start.elapsed(), failure };
        println!("{}", line(&outcome));
        outcomes.push(outcome);
    }
    summary(&outcomes)
}

fn summary(outcomes: &[Outcome]) -> Result {
    println!("\n=== summary");
    for outcome in outcomes {
        println!("{}", line(outcome));
    }
    let total: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
    let failed: Vec<_> = outcomes.iter().filter(|o| o.failure.is_some()).map(|o| o.name).collect();
    println!("in {:.1} s", total.as_secs_f64());
    println!("steps: {} passed, {} failed", outcomes.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

fn line(outcome: &Outcome) -> String {
    let seconds = outcome.took.as_secs_f64();
    match &outcome.failure {
        None => format!("--- ok      {:<10} {seconds:8.1} s", outcome.name),
        Some(why) => format!("--- FAILED  {:<10} {seconds:8.1} s  {why}", outcome.name),
    }
}
