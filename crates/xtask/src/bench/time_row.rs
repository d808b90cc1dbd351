//! One row: the work verified, then timed.

use super::measure::{self, Sample};
use super::rows::{Row, TARGET, Verify};
use super::{DataSet, Options, Programs, memory};
use crate::{Result, run};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What was found out about a row.
pub(super) struct Outcome {
    pub(super) row: &'static Row,
    pub(super) result: Measured,
}

impl Outcome {
    pub(super) fn failed(&self) -> bool {
        matches!(self.result, Measured::Failed(_))
    }
}

pub(super) enum Measured {
    Times(Box<Times>),
    /// rimg did not do the work, or did it wrongly.
    Failed(String),
}

/// Medians.
pub(super) struct Times {
    pub(super) rimg: Sample,
    pub(super) qemu: Sample,
    pub(super) qemu_best: Option<Sample>,
    pub(super) imago: Option<Sample>,
    /// rimg's compressed target / qemu-img's.
    pub(super) size_ratio: Option<f64>,
}

/// A program and the arguments with which it takes part.
struct Contender<'a> {
    program: &'a Path,
    args: Vec<String>,
    samples: Vec<Sample>,
}

/// What a run left behind.
struct Traces {
    printed: String,
    target_len_bytes: u64,
    target_allocated_bytes: u64,
}

pub(super) fn time(
    row: &'static Row,
    programs: &Programs,
    data: &DataSet,
    options: &Options,
) -> Result<Outcome> {
    let bench = Bench { row, qemu_img: &programs.qemu_img, folder: &data.folder };
    let result = bench.run(programs, options)?;
    bench.remove_target()?;
    Ok(Outcome { row, result })
}

struct Bench<'a> {
    row: &'static Row,
    qemu_img: &'a Path,
    folder: &'a Path,
}

impl Bench<'_> {
    fn run(&self, programs: &Programs, options: &Options) -> Result<Measured> {
        let words: Vec<String> = self.row.args.split(' ').map(str::to_owned).collect();
        let contender =
            |program, args: Vec<String>| Contender { program, args, samples: Vec::new() };
        let mut contenders = vec![
            contender(programs.rimg.as_path(), words.clone()),
            contender(self.qemu_img, words.clone()),
        ];
        let best = self.row.best_flags.filter(|_| options.best_flags);
        if let Some(flags) = best {
            let mut args = words.clone();
            args.splice(1..1, flags.split(' ').map(str::to_owned));
            contenders.push(contender(self.qemu_img, args));
        }
        let imago = programs.peer.as_deref().filter(|_| self.imago_can());
        if let Some(peer) = imago {
            contenders.push(contender(peer, words.iter().rev().take(2).rev().cloned().collect()));
        }

        // qemu-img first: if it cannot do it, the benchmark is wrong.
        let expected = self.try_once(&contenders[1])?;
        let traces = match self.try_once(&contenders[0]) {
            Ok(traces) => traces,
            Err(error) => return Ok(Measured::Failed(error.to_string())),
        };
        if let Err(error) = self.verify(&traces, &expected) {
            return Ok(Measured::Failed(error.to_string()));
        }

        // What the programs themselves need in memory comes on top of what they write.
        let touched =
            expected.target_allocated_bytes.max(traces.target_allocated_bytes) + (64 << 20);
        for round in 0..options.runs {
            let count = contenders.len();
            for turn in 0..count {
                let contender = &mut contenders[(round + turn) % count];
                self.prepare()?;
                memory::touch(&self.folder.join("out"), touched)?;
                let sample = measure::measure(
                    contender.program,
                    &contender.args,
                    self.folder,
                    self.row.repeat,
                );
                match sample {
                    Ok(sample) => contender.samples.push(sample),
                    Err(error) => return Ok(Measured::Failed(error.to_string())),
                }
            }
        }

        let mut medians = contenders.iter().map(|contender| median(&contender.samples));
        let mut next = || medians.next().ok_or("a contender is missing");
        let compressed = matches!(self.row.verify, Verify::CompressedTarget { .. });
        Ok(Measured::Times(Box::new(Times {
            rimg: next()?,
            qemu: next()?,
            qemu_best: best.map(|_| next()).transpose()?,
            imago: imago.map(|_| next()).transpose()?,
            size_ratio: compressed
                .then(|| float(traces.target_len_bytes) / float(expected.target_len_bytes)),
        })))
    }

    /// The peer converts qcow2 without zstd to raw.
    fn imago_can(&self) -> bool {
        self.row.args.starts_with("convert -f qcow2 -O raw ") && !self.row.args.contains("zstd")
    }

    /// Runs once, unmeasured; this also brings the sources into memory.
    fn try_once(&self, contender: &Contender<'_>) -> Result<Traces> {
        self.prepare()?;
        let mut command = Command::new(contender.program);
        command.args(&contender.args).current_dir(self.folder).stdin(Stdio::null());
        let printed = run::output(&mut command)?;
        let (target_len_bytes, target_allocated_bytes) = fs::metadata(self.folder.join(TARGET))
            .map_or((0, 0), |meta| (meta.len(), meta.blocks() * 512));
        Ok(Traces { printed, target_len_bytes, target_allocated_bytes })
    }

    /// Looks at what rimg, who ran last, has done.
    fn verify(&self, rimg: &Traces, qemu: &Traces) -> Result {
        match self.row.verify {
            Verify::Target { source, source_format, format } => {
                self.compare(source, source_format, format)
            }
            Verify::CompressedTarget { source, source_format } => {
                self.qemu_img(&["check", "-q", "-f", "qcow2", TARGET])?;
                self.compare(source, source_format, "qcow2")?;
                let ratio = float(rimg.target_len_bytes) / float(qemu.target_len_bytes);
                if ratio > 1.03 {
                    return Err(format!("target is {ratio:.3} times as large as qemu-img's").into());
                }
                Ok(())
            }
            Verify::EncryptedTarget { source, options } => self.qemu_img(&[
                "compare",
                "-q",
                "--object",
                "secret,id=key,data=swordfish",
                "--image-opts",
                &format!("driver=raw,file.filename={source}"),
                &format!("{options},file.filename={TARGET}"),
            ]),
            Verify::Check => self.qemu_img(&["check", "-q", "-f", "qcow2", TARGET]),
            Verify::Output if rimg.printed != qemu.printed => {
                let differ = |(a, b): &(&str, &str)| a != b;
                let lines = rimg.printed.lines().zip(qemu.printed.lines()).find(differ);
                Err(format!("prints something else than qemu-img: {lines:?}").into())
            }
            Verify::Output | Verify::Success => Ok(()),
        }
    }

    fn compare(&self, source: &str, source_format: &str, format: &str) -> Result {
        self.qemu_img(&["compare", "-q", "-f", source_format, "-F", format, source, TARGET])
    }

    fn qemu_img(&self, args: &[&str]) -> Result {
        run::output(Command::new(self.qemu_img).args(args).current_dir(self.folder))?;
        Ok(())
    }

    /// Puts `out/` into the state in which the command finds it.
    fn prepare(&self) -> Result {
        self.remove_target()?;
        for (source, copy) in self.row.copies {
            fs::copy(self.folder.join(source), self.folder.join(copy))?;
        }
        Ok(())
    }

    fn remove_target(&self) -> Result {
        match fs::remove_file(self.folder.join(TARGET)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The median of each quantity by itself.
fn median(samples: &[Sample]) -> Sample {
    let of = |quantity: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(quantity).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        }
    };
    Sample { wall_s: of(|s| s.wall_s), cpu_s: of(|s| s.cpu_s), peak_kib: of(|s| s.peak_kib) }
}

/// Sizes of files, for ratios.
#[expect(clippy::as_conversions, reason = "no lossless conversion exists, and a ratio needs none")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_the_two() {
        let sample = |wall_s| Sample { wall_s, cpu_s: -wall_s, peak_kib: 1.0 };
        let odd = median(&[sample(9.0), sample(1.0), sample(2.0)]);
        assert_eq!((odd.wall_s, odd.cpu_s), (2.0, -2.0));
        let even = median(&[sample(9.0), sample(1.0), sample(2.0), sample(4.0)]);
        assert_eq!(even.wall_s, 3.0);
    }
}
