//! What the command line of `cargo xtask peer` says.

use crate::{Result, run};
use std::path::PathBuf;

const HELP: &str = "\
Usage: cargo xtask peer [OPTION]...

  --steps N          about how many commands to run (default: 1000)
  --seed N           the first seed; every sequence takes the next one (default: 1)
  --formats A,B,...  only these formats
  --most N           stop after so many sequences that differ (default: 10)
  --rimg PATH        the program to try (default: rimg, built now)
";

/// Formats that both programs write.
const FORMATS: &[&str] =
    &["raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhdx", "parallels"];

pub(super) struct Options {
    pub(super) steps: u64,
    pub(super) seed: u64,
    pub(super) formats: Vec<&'static str>,
    pub(super) most: u64,
    pub(super) rimg: PathBuf,
}

impl Options {
    /// `None` when help was asked for, which is printed.
    pub(super) fn parse(args: &[String]) -> Result<Option<Self>> {
        let mut options = Self {
            steps: 1000,
            seed: 1,
            formats: FORMATS.to_vec(),
            most: 10,
            rimg: PathBuf::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--help" {
                print!("{HELP}");
                return Ok(None);
            }
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            match arg.as_str() {
                "--steps" => options.steps = value.parse()?,
                "--seed" => options.seed = value.parse()?,
                "--most" => options.most = value.parse()?,
                "--rimg" => options.rimg = PathBuf::from(value).canonicalize()?,
                "--formats" => options.formats = formats(value)?,
                _ => return Err(format!("'{arg}' is no option: see --help").into()),
            }
        }
        if options.rimg.as_os_str().is_empty() {
            run::cargo(&["build", "--quiet", "-p", "rimg-cli", "--bin", "rimg"])?;
            options.rimg = run::root().join("target").join("debug").join("rimg").canonicalize()?;
        }
        Ok(Some(options))
    }
}

fn formats(list: &str) -> Result<Vec<&'static str>> {
    list.split(',')
        .map(|name| {
            let known = FORMATS.iter().find(|format| **format == name);
            known.copied().ok_or_else(|| format!("'{name}' is none of {FORMATS:?}").into())
        })
        .collect()
}
