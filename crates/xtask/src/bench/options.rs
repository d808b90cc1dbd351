//! The options of `cargo xtask bench`.

use crate::Result;
use std::path::PathBuf;

pub(super) const HELP: &str = "\
Usage: cargo xtask bench [OPTION]...

  --set small|full   300 MiB or 1.5 GiB of real files in 8 GiB (default: small)
  --filter TEXT      only rows with TEXT in their name
  --runs N           measured runs of each program and row (default: 5)
  --dir DIR          where data and targets go (default: /dev/shm, $TMPDIR or target/bench,
                     the first with room); the data stay there for the next time
  --rimg PATH        the program to measure (default: rimg, built for release)
  --best-flags       also compare with qemu-img's best flags (-W -m 16; -W -m 8 with -c)
  --imago            also compare with imago, built for it, where it can do the work
  --markdown         print the table as Markdown
  --update-readme    put the table into README.md, between its markers
  --check            fail when a goal is missed";

/// Which data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Small,
    Full,
}

impl Set {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Full => "full",
        }
    }

    /// How much of real files.
    pub(super) fn files_bytes(self) -> u64 {
        match self {
            Self::Small => 300 << 20,
            Self::Full => 1536 << 20,
        }
    }
}

#[derive(Debug)]
pub(super) struct Options {
    pub(super) set: Set,
    pub(super) filter: Option<String>,
    pub(super) runs: usize,
    pub(super) dir: Option<PathBuf>,
    pub(super) rimg: Option<PathBuf>,
    pub(super) best_flags: bool,
    pub(super) imago: bool,
    pub(super) markdown: bool,
    pub(super) update_readme: bool,
    pub(super) check: bool,
    /// As it was given, for the table's caption.
    pub(super) command: String,
}

impl Options {
    /// `None` when only help was asked for.
    pub(super) fn parse(args: &[String]) -> Result<Option<Self>> {
        let mut options = Self {
            set: Set::Small,
            filter: None,
            runs: 5,
            dir: None,
            rimg: None,
            best_flags: false,
            imago: false,
            markdown: false,
            update_readme: false,
            check: false,
            command: caption(args),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().cloned().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--help" | "-h" => return Ok(None),
                "--set" => {
                    options.set = match value()?.as_str() {
                        "small" => Set::Small,
                        "full" => Set::Full,
                        other => return Err(format!("no set '{other}'").into()),
                    }
                }
                "--filter" => options.filter = Some(value()?),
                "--runs" => options.runs = value()?.parse()?,
                "--dir" => options.dir = Some(value()?.into()),
                "--rimg" => options.rimg = Some(value()?.into()),
                "--best-flags" => options.best_flags = true,
                "--imago" => options.imago = true,
                "--markdown" => options.markdown = true,
                "--update-readme" => options.update_readme = true,
                "--check" => options.check = true,
                other => return Err(format!("no option '{other}' (see --help)").into()),
            }
        }
        if options.runs == 0 {
            return Err("--runs must be at least 1".into());
        }
        if options.update_readme && options.filter.is_some() {
            return Err("--update-readme wants the whole table: drop --filter".into());
        }
        Ok(Some(options))
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.filter.as_deref().is_none_or(|text| name.contains(text))
    }
}

/// The command for others to repeat: without what holds for this machine only.
fn caption(args: &[String]) -> String {
    let mut shown = "cargo xtask bench".to_owned();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if matches!(arg.as_str(), "--dir" | "--rimg") {
            args.next();
        } else {
            shown.push(' ');
            shown.push_str(arg);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Option<Options>> {
        Options::parse(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let options = parse(&["--set", "full", "--runs", "3", "--dir", "/x"]).unwrap().unwrap();
        assert_eq!((options.set, options.runs), (Set::Full, 3));
        assert_eq!(options.command, "cargo xtask bench --set full --runs 3");
        assert!(parse(&["--help"]).unwrap().is_none());
    }

    #[test]
    fn wrong_options_are_refused() {
        for bad in [&["--sett"][..], &["--runs"], &["--runs", "0"], &["--set", "big"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&["--filter", "x", "--update-readme"]).is_err());
    }
}
