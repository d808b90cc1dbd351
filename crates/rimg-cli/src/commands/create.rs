//! `create`: a new, empty image.

use crate::args::{CommandHelp, Example, Flag};
use crate::commands::{Command, MAX_SIZE, common, parse, ranged_size, text};
use crate::images::{self, NewImage, Reason};
use crate::message::Stop;
use crate::options::{self, OptionList};
use crate::program::Run;
use crate::secrets::add_object;
use std::ffi::OsString;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "create",
        summary: "Create a new, empty image",
        usage: "[-f FMT] [-o FMT_OPTS] [-b BACKING_FILENAME -F BACKING_FMT] [-u] [-q] \
                [--object OBJDEF] FILENAME [SIZE[bkKMGTPE]]",
        own_usage: "",
        operands: &[
            ("FILENAME", "the image to create; what is there already is replaced"),
            (
                "SIZE",
                "how large the disk is, with an optional suffix (in powers of 1024); by default \
                 as large as that of BACKING_FILENAME",
            ),
        ],
        own_operands: &[],
        examples: &[
            Example {
                does: "Create an image for a disk of 20 GiB",
                line: "create -f qcow2 disk.qcow2 20G",
            },
            Example {
                does: "Create an image that holds what differs from another one",
                line: "create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2",
            },
            Example {
                does: "Create a raw image with all its space reserved",
                line: "create -f raw -o preallocation=falloc disk.raw 1.5G",
            },
            Example { does: "List the options of a format", line: "create -f qcow2 -o help" },
        ],
        flags: || FLAGS.iter().map(|(_, flag)| *flag).collect(),
    },
    run,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Help,
    Quiet,
    Object,
    Format,
    Backing,
    BackingFormat,
    BackingUnsafe,
    Options,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, common::QUIET),
    (Key::Object, common::OBJECT),
    (
        Key::Format,
        Flag::new(&["format"], "the format to create (default raw)").short(b'f').value("FMT"),
    ),
    (
        Key::Backing,
        Flag::new(&["backing"], "what the new image shows until it is written to")
            .short(b'b')
            .value("BACKING_FILENAME"),
    ),
    (
        Key::BackingFormat,
        Flag::new(&["backing-format"], "the format of BACKING_FILENAME")
            .short(b'F')
            .value("BACKING_FMT"),
    ),
    (
        Key::BackingUnsafe,
        Flag::new(&["backing-unsafe"], "do not look whether BACKING_FILENAME can be opened")
            .short(b'u'),
    ),
    (
        Key::Options,
        Flag::new(&["options"], "options of the format, name=value,... ('-o help' lists them)")
            .short(b'o')
            .value("FMT_OPTS"),
    ),
];

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    let mut new = NewImage::default();
    let mut format = "raw".to_owned();
    let mut list = OptionList::default();
    let (mut quiet, mut unchecked) = (false, false);
    let operands = parse(FLAGS, args, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Quiet => quiet = true,
            Key::Object => add_object(&mut new.secrets, &value)?,
            Key::Format => format = text(&value),
            Key::Backing => new.backing = Some(text(&value)),
            Key::BackingFormat => new.backing_format = Some(text(&value)),
            Key::BackingUnsafe => unchecked = true,
            Key::Options => list.add(&text(&value)).map_err(Stop::failed)?,
        }
        Ok(())
    })?;
    let mut operands = operands.into_iter();
    let filename = operands.next();
    if list.wants_help() {
        return print_options(run, &format, filename.is_some());
    }
    let Some(filename) = filename else {
        return Err(Stop::Advice("Expecting image file name".to_owned()));
    };
    new.filename = filename;
    if let Some(size) = operands.next() {
        new.size_bytes = Some(ranged_size("image size", &size, MAX_SIZE)?);
    }
    if let Some(more) = operands.next() {
        return Err(Stop::Advice(format!("Unexpected argument: {}", text(&more))));
    }

    let named = |reason: Reason| {
        let message = format!("{}: {}", text(&new.filename), reason.text);
        Stop::failed(message).of(reason.class)
    };
    let planned = new.plan(&format, &list, !unchecked).map_err(|message| named(message.into()))?;
    if !quiet {
        run.print(&planned.announcement())?;
        run.flush()?;
    }
    planned.create().map_err(named)?;
    Ok(0)
}

/// Prints what `-o` knows for a format, and for a file if one was named.
pub(super) fn print_options(run: &mut Run<'_>, format: &str, file: bool) -> Result<u8, Stop> {
    let info = images::creatable_format(format).map_err(Stop::failed)?;
    let of_file = file || format == images::PLAIN_FILE;
    let lines = options::help(&options::table(info, of_file), info.extra_options);
    if file {
        run.print(&format!("Supported options:\n{lines}"))?;
    } else {
        run.print(&format!(
            "Supported {format} options:\n{lines}\n\
             The protocol level may support further options.\n\
             Specify the target filename to include those options.\n"
        ))?;
    }
    Ok(0)
}
