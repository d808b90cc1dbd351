//! `-`: raw disks from standard input, images to standard output.

use super::{Sources, Target, Trouble, explain, open_target, options};
use crate::class::Class;
use crate::commands::convert::args::Args;
use crate::commands::watch::{Watch, cancel_on_signals};
use crate::images::{self, TargetWishes};
use crate::message::{Stop, describe_io};
use rimg_convert::{ConvertError, Inflow, StreamTarget, convert_to_stream, pour};
use std::fs::File;
use std::io::{self, IsTerminal, Seek};
use std::os::fd::AsFd;

/// Which side of a conversion is a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pipes {
    None,
    Input,
    Output,
}

const PIPE: &str = "-";

/// The size that a disk of unknown size begins with, in bytes.
const FIRST_SIZE: u64 = 64 << 20;

impl Pipes {
    /// Looks for `-`, and whether the rest of the command line can be done with it.
    pub(super) fn of(args: &Args) -> Result<Self, Stop> {
        let from = args.sources.iter().any(|source| source == PIPE) && !args.source_image_opts;
        let to = args.target == PIPE && !args.target_image_opts;
        let no = |message: &str| Err(Stop::failed(message));
        if args.size.is_some() && !from {
            return no("--size is for a disk that comes from standard input");
        }
        match (from, to) {
            (false, false) => Ok(Self::None),
            (true, true) => no(
                "Standard input cannot be converted to standard output: what an image begins with \
                 depends on all of the disk",
            ),
            (true, false) => Self::check_input(args),
            (false, true) => Self::check_output(args),
        }
    }

    fn check_input(args: &Args) -> Result<Self, Stop> {
        let no = |message: &str| Err(Stop::failed(message));
        if args.source_format.as_deref() != Some("raw") {
            return no("Only raw disks can be read from standard input: say -f raw");
        }
        if args.sources.len() > 1 {
            return no("Standard input cannot be put together with other sources");
        }
        if args.size.is_some() && args.no_create {
            return no("--size is for a target that is made");
        }
        for (given, name) in [
            (args.snapshot.is_some(), "-l"),
            (args.backing.is_some(), "-B"),
            (args.bitmaps, "--bitmaps"),
            (args.verify, "--verify"),
            (args.platform.is_some(), "--for"),
            (args.salvage, "--salvage"),
            (args.copy_offload, "-C"),
            (args.rate.is_some(), "-r"),
        ] {
            if given {
                return no(&format!("{name} does not work with standard input"));
            }
        }
        if io::stdin().is_terminal() {
            return no("No disk comes from a terminal: standard input has to be a file or a pipe");
        }
        Ok(Self::Input)
    }

    fn check_output(args: &Args) -> Result<Self, Stop> {
        let no = |message: &str| Err(Stop::failed(message));
        for (given, name) in [
            (args.no_create, "-n"),
            (args.backing.is_some(), "-B"),
            (args.bitmaps, "--bitmaps"),
            (args.verify, "--verify"),
            (args.platform.is_some(), "--for"),
            (args.copy_offload, "-C"),
        ] {
            if given {
                return no(&format!("{name} does not work with standard output"));
            }
        }
        if io::stdout().is_terminal() {
            return no(
                "An image is nothing for a terminal: redirect standard output, or name a file",
            );
        }
        Ok(Self::Output)
    }
}

/// Writes an image to standard output.
pub(super) fn to_output(args: &Args, watch: &Watch<'_>) -> Result<(), Stop> {
    let sources = Sources::open(args)?;
    let wishes = TargetWishes {
        list: &args.options,
        backing: None,
        backing_format: None,
        several_sources: false,
        compress: args.compress,
        secrets: &args.secrets,
    };
    let format = args.target_format.as_deref().unwrap_or("raw");
    let planned = images::plan_target(&args.target, format, wishes, sources.size_bytes())
        .map_err(Stop::failed)?
        .plan()
        .map_err(|reason| Stop::failed(reason.text).of(reason.class))?;
    let target = StreamTarget {
        driver: planned.driver,
        size_bytes: planned.size_bytes,
        options: &planned.options,
    };
    let out = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let out = out.map_err(|error| {
        Stop::failed(format!("standard output: {}", describe_io(&error))).of(Class::of(&error))
    })?;
    let cancel = cancel_on_signals()?;
    let images = sources.images();
    let done = convert_to_stream(&images, target, Box::new(out), &options(args), watch, &cancel);
    done.map(|_| ()).map_err(|error| {
        let is_closed =
            error.as_io().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        if is_closed {
            return Stop::failed("standard output was closed before all of the image was written");
        }
        match explain(error) {
            Trouble::NotBegun(stop) => stop,
            Trouble::Half(stop) => stop.with_hint("standard output got only a part of an image"),
        }
    })
}

/// Writes what comes from standard input into an image.
pub(super) fn from_input(args: &Args, watch: &Watch<'_>) -> Result<(), Stop> {
    let failed = |error: io::Error| {
        Stop::failed(format!("standard input: {}", describe_io(&error))).of(Class::of(&error))
    };
    let mut input = io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(failed)?;
    let rest = rest_of(&mut input);
    let cancel = cancel_on_signals()?;
    let stopped = |error| match explain(error) {
        Trouble::NotBegun(stop) | Trouble::Half(stop) => stop,
    };
    let inflow = Inflow::begin(input, &cancel).map_err(stopped)?;
    let size = args.size.or(rest).or(inflow.size_bytes());
    let size = size.map(|size| size.checked_next_multiple_of(512).unwrap_or(size));
    let Target { opened: target, guard, .. } =
        open_target(args, size.unwrap_or(FIRST_SIZE), || Ok(()))?;
    let fits = size.is_none() && !args.no_create;
    let mut options = options(args);
    options.compress &= target.format() != "vmdk" || target.disk().compressor().is_some();
    let poured = pour(inflow, target.disk(), fits, &options, watch, &cancel);
    let whole = poured.map_err(|error| explain_pour(error, args)).and_then(|came| {
        match args.size.or(rest).filter(|expected| came < *expected) {
            None => Ok(()),
            Some(expected) => Err(Stop::failed(format!(
                "Only {came} bytes of the disk's {expected} came from standard input"
            ))),
        }
    });
    let closed = whole.and_then(|()| target.close());
    match closed {
        Ok(()) => {
            guard.complete();
            Ok(())
        }
        Err(stop) => Err(watch.half_made(stop, guard)),
    }
}

/// How much of a file is still to come, where it is one.
fn rest_of(input: &mut File) -> Option<u64> {
    let metadata = input.metadata().ok()?;
    let at = input.stream_position().ok()?;
    metadata.is_file().then(|| metadata.len().saturating_sub(at))
}

fn explain_pour(error: ConvertError, args: &Args) -> Stop {
    if let ConvertError::TargetTooSmall { size, .. } = error {
        return Stop::failed(match args.size.is_some() || args.no_create {
            true => format!("More comes from standard input than the {size} bytes of the disk"),
            false => "Images of this format cannot grow: say how large the disk is with --size"
                .to_owned(),
        });
    }
    match explain(error) {
        Trouble::NotBegun(stop) | Trouble::Half(stop) => stop,
    }
}
