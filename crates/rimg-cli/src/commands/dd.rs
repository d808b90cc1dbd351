//! `dd`: part of an image copied into a new one.

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::watch::{Watch, cancel_on_signals};
use crate::commands::{Command, MAX_SIZE, common, parse, ranged_size, size_between};
use crate::images::{self, How, ImageName, TargetWishes};
use crate::message::{Stop, describe};
use crate::options::OptionList;
use crate::program::Run;
use crate::secrets::add_object;
use rimg_convert::{ConvertError, ConvertOptions, convert_range};
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::Path;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "dd",
        summary: "Copy part of an image into a new one",
        usage: "[-f FMT | --image-opts] [-O OUTPUT_FMT] [-U] [--object OBJDEF] \
                [bs=BLOCK_SIZE] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT",
        own_usage: "",
        operands: &[
            ("bs=BLOCK_SIZE", "what count and skip count in (default 512)"),
            ("count=BLOCKS", "where to end, counted from the start of INPUT"),
            ("skip=BLOCKS", "where to begin"),
            ("if=INPUT", "the image to read"),
            ("of=OUTPUT", "the image to write; what is there already is replaced"),
        ],
        own_operands: &[],
        examples: &[Example {
            does: "Copy the first GiB of a disk",
            line: "dd -O qcow2 bs=1M count=1024 if=disk.raw of=start.qcow2",
        }],
        flags: || FLAGS.iter().map(|(_, flag)| *flag).collect(),
    },
    run,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Help,
    Format,
    ImageOpts,
    TargetFormat,
    ForceShare,
    Object,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Format, common::FORMAT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (Key::Object, common::OBJECT),
    (
        Key::TargetFormat,
        Flag::new(&["output-format"], "the format of OUTPUT (default raw)")
            .short(b'O')
            .value("OUTPUT_FMT"),
    ),
    (Key::ForceShare, common::FORCE_SHARE),
];

/// The command line.
#[derive(Default)]
struct Args {
    how: How,
    image_opts: bool,
    target_format: Option<String>,
    block_bytes: Option<u64>,
    count: Option<u64>,
    skip: Option<u64>,
    input: Option<OsString>,
    output: Option<OsString>,
}

/// The largest `bs`.
const MAX_BLOCK_BYTES: u64 = (1 << 31) - 1;

fn run(run: &mut Run<'_>, words: Vec<OsString>) -> Result<u8, Stop> {
    let mut args = Args::default();
    let operands = parse(FLAGS, words, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Format => args.how.format = Some(super::text(&value)),
            Key::ImageOpts => args.image_opts = true,
            Key::TargetFormat => args.target_format = Some(super::text(&value)),
            Key::ForceShare => args.how.force_share = true,
            Key::Object => add_object(&mut args.how.options, &value)?,
        }
        Ok(())
    })?;
    for operand in &operands {
        args.take(operand)?;
    }
    let (Some(input), Some(output)) = (args.input.take(), args.output.take()) else {
        return Err(Stop::failed("Must specify both input and output files"));
    };
    copy(run, args, &input, &output)?;
    Ok(0)
}

impl Args {
    fn take(&mut self, operand: &OsStr) -> Result<(), Stop> {
        let (name, value) = split(operand);
        let unknown = || Stop::failed(format!("unrecognized operand {}", super::text(&name)));
        let value = value.ok_or_else(unknown)?;
        match super::text(&name).as_str() {
            "bs" => self.block_bytes = Some(size_between("bs", &value, 1, MAX_BLOCK_BYTES)?),
            "count" => self.count = Some(ranged_size("count", &value, MAX_SIZE)?),
            "skip" => self.skip = Some(ranged_size("skip", &value, MAX_SIZE)?),
            "if" => self.input = Some(value),
            "of" => self.output = Some(value),
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// The bytes of an image of `size` bytes that are copied: `count` tells the end, not the
    /// length. `None` when they begin behind it.
    fn range(&self, size: u64) -> Option<Range<u64>> {
        let block = self.block_bytes.unwrap_or(512);
        let end = self.count.map_or(size, |count| count.saturating_mul(block).min(size));
        let start = self.skip.unwrap_or(0).saturating_mul(block);
        (start <= end).then_some(start..end)
    }
}

/// Both sides of the first `=`.
#[cfg(unix)]
fn split(operand: &OsStr) -> (OsString, Option<OsString>) {
    use std::os::unix::ffi::OsStrExt;
    let bytes = operand.as_bytes();
    let mut sides =
        bytes.splitn(2, |byte| *byte == b'=').map(|side| OsStr::from_bytes(side).to_owned());
    (sides.next().unwrap_or_default(), sides.next())
}

/// Both sides of the first `=`.
#[cfg(not(unix))]
fn split(operand: &OsStr) -> (OsString, Option<OsString>) {
    let text = operand.to_string_lossy();
    match text.split_once('=') {
        Some((name, value)) => (name.into(), Some(value.into())),
        None => (text.as_ref().into(), None),
    }
}

fn copy(run: &Run<'_>, mut args: Args, input: &OsStr, output: &OsStr) -> Result<(), Stop> {
    // A name may add what only the input is to be told.
    let secrets = args.how.options.clone();
    let name = ImageName::parse(input, args.image_opts, &mut args.how)?;
    let source = images::open(&name, &args.how)?;
    let format = args.target_format.clone().unwrap_or_else(|| "raw".to_owned());
    if images::format(&format).is_none() && format != images::PLAIN_FILE {
        return Err(Stop::failed("Unknown file format"));
    }
    let canonical = |path: &Path| path.canonicalize().ok();
    if args.how.force_share
        && name
            .path()
            .and_then(canonical)
            .is_some_and(|path| Some(path) == canonical(output.as_ref()))
    {
        // With -U no lock stands between the source and its own end.
        return Err(Stop::failed(format!("'{}' is the source, too", super::text(output))));
    }
    let range = args.range(source.disk().size_bytes()).unwrap_or_else(|| {
        run.say(&format!("{}: cannot skip to specified offset", source.filename));
        0..0
    });
    let list = OptionList::default();
    let wishes = TargetWishes {
        list: &list,
        backing: None,
        backing_format: None,
        several_sources: false,
        compress: false,
        secrets: &secrets,
    };
    let size = range.end.saturating_sub(range.start);
    let planned = images::plan_target(output, &format, wishes, size).map_err(Stop::failed)?;
    let files = planned.create().map_err(|reason| {
        let output = super::text(output);
        let text = reason.text;
        Stop::failed(format!("{output}: error while creating output image: {text}"))
            .of(reason.class)
    })?;
    let guard = images::guard(files, output);
    let mut how = How { writable: true, format: Some(format), ..How::default() };
    how.cache = images::image_cache(None)?;
    let name = ImageName::parse(output, false, &mut how)?;
    let target = images::open(&name, &how)?;
    // Everything is written, zeroes included.
    let mut options = ConvertOptions::default();
    options.sparse_bytes = 0;
    options.target_is_new = true;
    let watch = Watch::new(run, run.progress(false, 1.0));
    let cancel = cancel_on_signals()?;
    let copied = convert_range(source.disk(), range, target.disk(), &options, &watch, &cancel)
        .map_err(|error| match error {
            ConvertError::Cancelled => Stop::interrupted(),
            ConvertError::Write { source, .. } => Stop::failed(format!(
                "error while writing to output image file: {}",
                describe(&source)
            ))
            .of(Class::of(&source))
            .in_image(&target.filename),
            ConvertError::Read { source: error, .. } | ConvertError::Map { source: error, .. } => {
                Stop::failed(format!(
                    "error while reading from input image file: {}",
                    describe(&error)
                ))
                .of(Class::of(&error))
                .in_image(&source.filename)
            }
            other => Stop::caused_by(&other),
        });
    match copied.and_then(|_| target.close()) {
        Ok(()) => {
            guard.complete();
            Ok(())
        }
        Err(stop) => Err(watch.half_made(stop, guard)),
    }
}
