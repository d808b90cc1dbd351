//! The table: on the terminal, as Markdown, in README.md.

use super::measure::{Sample, measure};
use super::time_row::{Measured, Outcome, Times};
use super::{DataSet, Options, Programs, memory};
use crate::{Result, run};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The whole table must reach these means, and no row may fall below one.
const MEAN_WALL_GOAL: f64 = 3.0;
const MEAN_CPU_GOAL: f64 = 2.0;

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// One row as it is done, for who waits.
pub(super) fn line(outcome: &Outcome) -> String {
    let name = outcome.row.name;
    let times = match &outcome.result {
        Measured::Times(times) => times,
        Measured::Failed(why) => return format!("{name:<38}  FAILED: {why}"),
    };
    let mut text = format!(
        "{name:<38} wall {:6.2} (goal {:4.1})  cpu {:6.2}  memory {:5.2}  [{} : {}, {:.1} : {:.1} MiB]",
        times.wall(),
        outcome.row.goal,
        times.cpu(),
        times.memory(),
        duration(times.qemu.wall_s),
        duration(times.rimg.wall_s),
        times.qemu.peak_kib / 1024.0,
        times.rimg.peak_kib / 1024.0,
    );
    if let Some(best) = &times.qemu_best {
        let _ = write!(text, "  best flags {:.2}", best.wall_s / times.rimg.wall_s);
    }
    if let Some(imago) = &times.imago {
        let (wall, cpu) = (imago.wall_s / times.rimg.wall_s, imago.cpu_s / times.rimg.cpu_s);
        let _ = write!(text, "  imago wall {wall:.2} cpu {cpu:.2}");
    }
    if let Some(size) = times.size_ratio {
        let _ = write!(text, "  size {size:.3}");
    }
    text
}

/// What follows the rows.
pub(super) fn print(
    outcomes: &[Outcome],
    programs: &Programs,
    options: &Options,
    data: &DataSet,
) -> Result {
    if options.markdown {
        println!("\n{}", markdown(outcomes, programs, options)?);
    }
    let means = Means::of(outcomes);
    println!("\nratios: qemu-img's median / rimg's, of {} runs", options.runs);
    println!(
        "geometric means: wall {:.2} (goal {MEAN_WALL_GOAL}), cpu {:.2} (goal {MEAN_CPU_GOAL}), memory {:.2}",
        means.wall, means.cpu, means.memory
    );
    // A child starts as a copy of the process that starts it, and its peak counts from there.
    if let Some(program) = run::find("true") {
        let floor = measure(&program, &[], &data.folder, 1)?;
        println!("least peak memory that can be seen: {:.1} MiB", floor.peak_kib / 1024.0);
    }
    if !memory::is_memory(&data.folder) {
        println!("the data are not in memory (--dir): times include a disk's");
    }
    for missed in missed(outcomes) {
        println!("missed: {missed}");
    }
    Ok(())
}

/// The goals that were not reached.
pub(super) fn missed(outcomes: &[Outcome]) -> Vec<String> {
    let mut missed = Vec::new();
    for Outcome { row, result } in outcomes {
        let times = match result {
            Measured::Times(times) => times,
            Measured::Failed(why) => {
                missed.push(format!("{}: {why}", row.name));
                continue;
            }
        };
        let mut at_least = |what: &str, reached: f64, goal: f64| {
            if reached < goal {
                missed.push(format!("{}: {what} {reached:.2}, goal {goal:.2}", row.name));
            }
        };
        at_least("wall", times.wall(), row.goal);
        at_least("cpu", times.cpu(), 1.0);
        at_least("memory", times.memory(), row.memory_goal);
        if let Some(best) = &times.qemu_best {
            at_least("wall at best flags", best.wall_s / times.rimg.wall_s, row.best_goal);
        }
        if let Some(imago) = &times.imago {
            at_least("wall against imago", imago.wall_s / times.rimg.wall_s, 1.0);
            at_least("cpu against imago", imago.cpu_s / times.rimg.cpu_s, 1.0);
        }
        if let Some(limit) = row.peak_limit_kib {
            at_least("peak memory limit / peak memory", limit / times.rimg.peak_kib, 1.0);
        }
    }
    let means = Means::of(outcomes);
    for (what, mean, goal) in
        [("wall", means.wall, MEAN_WALL_GOAL), ("cpu", means.cpu, MEAN_CPU_GOAL)]
    {
        // Without any row that could be timed the mean is no number, and misses its goal too.
        if mean.is_nan() || mean < goal {
            missed.push(format!("mean of {what} ratios {mean:.2}, goal {goal}"));
        }
    }
    missed
}

/// Puts the table between the markers of README.md.
pub(super) fn update_readme(
    readme: &Path,
    outcomes: &[Outcome],
    programs: &Programs,
    options: &Options,
) -> Result {
    let text = fs::read_to_string(readme)?;
    let table = markdown(outcomes, programs, options)?;
    fs::write(readme, between_markers(&text, &table)?)?;
    println!("updated {}", readme.display());
    Ok(())
}

fn between_markers(text: &str, table: &str) -> Result<String> {
    let missing = || format!("README.md has no {BEGIN} … {END}");
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

fn markdown(outcomes: &[Outcome], programs: &Programs, options: &Options) -> Result<String> {
    let version = run::output(Command::new(&programs.qemu_img).arg("--version"))?;
    let version = version.split_whitespace().nth(2).unwrap_or("of unknown version").to_owned();
    let cores = std::thread::available_parallelism()?;
    let best = options.best_flags;
    let mut text = format!(
        "`{}` on {cores} cores, medians of {} interleaved runs, against qemu-img {version}. \
         Ratios are qemu-img's / rimg's: above 1, rimg needs less.\n\n",
        options.command, options.runs
    );
    let (head, rule) = if best { (" wall, best flags |", "---:|") } else { ("", "") };
    let _ = writeln!(text, "| work | qemu-img | rimg | wall |{head} CPU | memory |");
    let _ = writeln!(text, "|---|---:|---:|---:|{rule}---:|---:|");
    for Outcome { row, result } in outcomes {
        let Measured::Times(times) = result else {
            let empty = if best { " – |" } else { "" };
            let _ = writeln!(text, "| {} | – | – | – |{empty} – | – |", row.name);
            continue;
        };
        let best = match (&times.qemu_best, best) {
            (Some(sample), true) => format!(" {:.1} |", sample.wall_s / times.rimg.wall_s),
            (None, true) => " |".to_owned(),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.1} |{best} {:.1} | {:.1} |",
            row.name,
            duration(times.qemu.wall_s),
            duration(times.rimg.wall_s),
            times.wall(),
            times.cpu(),
            times.memory(),
        );
    }
    let means = Means::of(outcomes);
    let empty = if best { " |" } else { "" };
    let _ = writeln!(
        text,
        "| **geometric mean** | | | **{:.1}** |{empty} **{:.1}** | **{:.1}** |",
        means.wall, means.cpu, means.memory
    );
    Ok(text)
}

fn duration(seconds: f64) -> String {
    if seconds < 0.1 { format!("{:.1} ms", seconds * 1000.0) } else { format!("{seconds:.2} s") }
}

impl Times {
    fn wall(&self) -> f64 {
        self.ratio(|sample| sample.wall_s)
    }

    fn cpu(&self) -> f64 {
        self.ratio(|sample| sample.cpu_s)
    }

    fn memory(&self) -> f64 {
        self.ratio(|sample| sample.peak_kib)
    }

    fn ratio(&self, quantity: fn(&Sample) -> f64) -> f64 {
        quantity(&self.qemu) / quantity(&self.rimg)
    }
}

/// Geometric means of the ratios of the rows that could be timed.
struct Means {
    wall: f64,
    cpu: f64,
    memory: f64,
}

impl Means {
    fn of(outcomes: &[Outcome]) -> Self {
        let of = |ratio: fn(&Times) -> f64| {
            let logarithms: Vec<f64> = outcomes
                .iter()
                .filter_map(|outcome| match &outcome.result {
                    Measured::Times(times) => Some(ratio(times).ln()),
                    _ => None,
                })
                .collect();
            let count = u32::try_from(logarithms.len()).map_or(f64::INFINITY, f64::from);
            (logarithms.iter().sum::<f64>() / count).exp()
        };
        Self { wall: of(Times::wall), cpu: of(Times::cpu), memory: of(Times::memory) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROWS;
    use super::*;

    fn outcome(qemu_s: f64, rimg_s: f64) -> Outcome {
        let sample = |wall_s| Sample { wall_s, cpu_s: wall_s, peak_kib: 1000.0 };
        let times = Times {
            rimg: sample(rimg_s),
            qemu: sample(qemu_s),
            qemu_best: None,
            imago: None,
            size_ratio: None,
        };
        Outcome { row: &ROWS[0], result: Measured::Times(Box::new(times)) }
    }

    #[test]
    fn the_mean_is_geometric() {
        let means = Means::of(&[outcome(8.0, 1.0), outcome(2.0, 1.0)]);
        assert!((means.wall - 4.0).abs() < 1e-9, "{}", means.wall);
    }

    #[test]
    fn a_goal_that_is_not_reached_is_told() {
        assert_eq!(missed(&[outcome(40.0, 1.0)]), [""; 0]);
        let slow = missed(&[outcome(1.0, 1.0)]);
        assert!(slow[0].contains("wall 1.00, goal 1.30"), "{slow:?}");
        assert!(slow.iter().any(|line| line.contains("mean of wall")), "{slow:?}");
        let failed = Outcome { row: &ROWS[0], result: Measured::Failed("wrong".to_owned()) };
        assert!(missed(&[failed])[0].contains("wrong"));
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = between_markers(&text, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert!(between_markers("a\n", "new\n").is_err());
    }
}
