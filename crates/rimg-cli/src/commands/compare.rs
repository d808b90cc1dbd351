//! `compare`: whether two images show the guest the same disk.

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::watch::{Watch, cancel_on_signals};
use crate::commands::{Command, common, parse, text};
use crate::images::{self, How, ImageName};
use crate::message::{Stop, chain, describe};
use crate::program::Run;
use crate::secrets::add_object;
use rimg::RawOptions;
use rimg_convert::{CompareError, CompareOptions, Comparison, Difference, Side, compare};
use std::ffi::OsString;
use std::fmt::Write as _;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "compare",
        summary: "Check if two images have the same contents",
        usage: "[--image-opts | [-f FMT] [-F FMT]] [-s] [-p] [-q] [-T CACHE] [-U] \
                [--object OBJDEF] FILENAME1 FILENAME2",
        own_usage: "",
        operands: &[("FILENAME1, FILENAME2", "the images, of any formats")],
        own_operands: &[],
        examples: &[
            Example {
                does: "Compare what two images hold, whatever their formats",
                line: "compare disk.qcow2 disk.raw",
            },
            Example {
                does: "Compare their sizes and their holes, too",
                line: "compare -s -f raw -F raw a.img b.img",
            },
        ],
        flags: || FLAGS.iter().map(|(_, flag)| *flag).collect(),
    },
    run,
};

/// The exit codes of `compare`.
mod exit {
    pub(super) const IDENTICAL: u8 = 0;
    pub(super) const DIFFERENT: u8 = 1;
    pub(super) const TROUBLE: u8 = 2;
    pub(super) const READ_FAILED: u8 = 4;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Help,
    Quiet,
    Object,
    Cache,
    ImageOpts,
    FormatA,
    FormatB,
    ForceShare,
    Strict,
    Progress,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, common::QUIET),
    (Key::Object, common::OBJECT),
    (
        Key::Cache,
        Flag::new(&["cache"], "how the images are read: writeback (the default), none, ...")
            .short(b'T')
            .value("CACHE_MODE"),
    ),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (
        Key::FormatA,
        Flag::new(&["a-format", "left-format"], "the format of FILENAME1").short(b'f').value("FMT"),
    ),
    (
        Key::FormatB,
        Flag::new(&["b-format", "right-format"], "the format of FILENAME2")
            .short(b'F')
            .value("FMT"),
    ),
    (Key::ForceShare, common::FORCE_SHARE),
    (
        Key::Strict,
        Flag::new(&["strict"], "sizes and allocation have to be the same, too").short(b's'),
    ),
    (Key::Progress, Flag::new(&["progress"], "show how far the work is").short(b'p')),
];

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    let (mut left, mut right) = (How::default(), How::default());
    let (mut quiet, mut progress, mut strict, mut image_opts) = (false, false, false, false);
    let mut cache = None;
    let mut secrets = RawOptions::new();
    let operands = parse(FLAGS, args, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Quiet => quiet = true,
            Key::Object => add_object(&mut secrets, &value)?,
            Key::Cache => cache = Some(text(&value)),
            Key::ImageOpts => image_opts = true,
            Key::FormatA => left.format = Some(text(&value)),
            Key::FormatB => right.format = Some(text(&value)),
            Key::ForceShare => (left.force_share, right.force_share) = (true, true),
            Key::Strict => strict = true,
            Key::Progress => progress = true,
        }
        Ok(())
    })?;
    let [name_a, name_b] = operands.as_slice() else {
        return Err(Stop::Advice("Expecting two image file names".to_owned()));
    };
    let trouble = |stop: Stop| stop.with_exit(exit::TROUBLE);
    left.cache = images::source_cache(cache.as_deref()).map_err(trouble)?;
    right.cache = left.cache;
    left.options.add(&secrets);
    right.options.add(&secrets);
    let open = |name: &OsString, how: &mut How| {
        let name = ImageName::parse(name, image_opts, how)?;
        images::open(&name, how)
    };

    let watch = Watch::new(run, run.progress(progress && !quiet, PROGRESS_STEP));
    let opened = open(name_a, &mut left).and_then(|a| Ok((a, open(name_b, &mut right)?)));
    let mut fails_behind_common = false;
    let compared = opened.map_err(trouble).and_then(|(a, b)| {
        watch.show(0.0);
        let mut options = CompareOptions::default();
        options.strict = strict;
        let cancel = cancel_on_signals()?;
        compare(a.disk(), b.disk(), &options, &watch, &cancel).map_err(|error| {
            let common = a.disk().size_bytes().min(b.disk().size_bytes());
            fails_behind_common = error.at().is_some_and(|at| at >= common);
            explain(&error, &text(name_a), &text(name_b))
        })
    });
    if let Ok(comparison) = &compared
        && !quiet
    {
        watch.print(&report(comparison));
    }
    watch.end();
    if fails_behind_common && !quiet {
        run.print(SIZES_DIFFER)?;
    }
    compared.map(|comparison| match comparison.difference {
        None => exit::IDENTICAL,
        Some(_) => exit::DIFFERENT,
    })
}

/// By how many percent progress has to grow to be printed.
const PROGRESS_STEP: f32 = 2.0;

/// Is said between what both have and the rest of the longer one.
const SIZES_DIFFER: &str = "Warning: Image size mismatch!\n";

fn report(comparison: &Comparison) -> String {
    let mut text = String::new();
    if comparison.sizes_differ && !matches!(comparison.difference, Some(Difference::Size)) {
        text.push_str(SIZES_DIFFER);
    }
    match &comparison.difference {
        None => text.push_str("Images are identical.\n"),
        Some(difference) => {
            let _ = writeln!(text, "{difference}");
        }
    }
    text
}

fn explain(error: &CompareError, a: &str, b: &str) -> Stop {
    let name = |side: &Side| match side {
        Side::First => a,
        Side::Second => b,
    };
    let message = match error {
        CompareError::Map { side, source, .. } => {
            format!("Error while reading block status of '{}': {}", name(side), describe(source))
        }
        CompareError::Read { side, at, source } => {
            format!("Error while reading offset {at} of {}: {}", name(side), describe(source))
        }
        CompareError::Cancelled => return Stop::interrupted(),
        other => chain(other),
    };
    Stop::failed(message).with_exit(exit::READ_FAILED).of(Class::of(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_image_is_warned_of_before_the_verdict() {
        let mut comparison = Comparison::default();
        assert_eq!(report(&comparison), "Images are identical.\n");
        comparison.sizes_differ = true;
        assert_eq!(report(&comparison), "Warning: Image size mismatch!\nImages are identical.\n");
        comparison.difference = Some(Difference::Content { at: 512 });
        assert_eq!(
            report(&comparison),
            "Warning: Image size mismatch!\nContent mismatch at offset 512!\n"
        );
        comparison.difference = Some(Difference::Size);
        assert_eq!(report(&comparison), "Strict mode: Image size mismatch!\n");
    }
}
