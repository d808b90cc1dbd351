//! `amend`: changes the options of an image.

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::{Command, common, parse, text};
use crate::damage;
use crate::images::{self, How, ImageName};
use crate::message::{Stop, describe};
use crate::options::{self, OptionList};
use crate::program::Run;
use crate::secrets::add_object;
use rimg_core::{Error, FormatInfo, OptionSpec, op};
use std::ffi::OsString;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "amend",
        summary: "Change the options that an image was created with",
        usage: "[-f FMT | --image-opts] [-t CACHE] [--force] [-p] [-q] [--object OBJDEF] \
                -o OPTIONS FILENAME",
        own_usage: "",
        operands: &[("FILENAME", "the image")],
        own_operands: &[],
        examples: &[
            Example {
                does: "Make an image readable for old programs",
                line: "amend -o compat=0.10 disk.qcow2",
            },
            Example { does: "List what can be changed", line: "amend -f qcow2 -o help" },
        ],
        flags: || FLAGS.iter().map(|(_, flag)| *flag).collect(),
    },
    run,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Help,
    Quiet,
    Progress,
    Format,
    ImageOpts,
    Cache,
    Force,
    Object,
    Options,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, common::QUIET),
    (Key::Progress, Flag::new(&["progress"], "show how far the work is").short(b'p')),
    (Key::Format, common::FORMAT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (
        Key::Cache,
        Flag::new(&["cache"], "how the image is written: writeback (the default), none, ...")
            .short(b't')
            .value("CACHE"),
    ),
    (Key::Force, Flag::new(&["force"], "allow changes that may make the image unusable")),
    (Key::Object, common::OBJECT),
    (
        Key::Options,
        Flag::new(&["options"], "what to change, name=value,... ('-o help' lists what there is)")
            .short(b'o')
            .value("OPTIONS"),
    ),
];

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    let mut how = How { writable: true, ..How::default() };
    let mut list = OptionList::default();
    let (mut progress, mut quiet, mut image_opts, mut force) = (false, false, false, false);
    let mut cache = "writeback".to_owned();
    let operands = parse(FLAGS, args, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Quiet => quiet = true,
            Key::Progress => progress = true,
            Key::Format => how.format = Some(text(&value)),
            Key::ImageOpts => image_opts = true,
            Key::Cache => cache = text(&value),
            Key::Force => force = true,
            Key::Object => return add_object(&mut how.options, &value),
            Key::Options => list.add(&text(&value)).map_err(Stop::failed)?,
        }
        Ok(())
    })?;
    if list.is_empty() {
        return Err(Stop::Advice("Must specify options (-o)".to_owned()));
    }
    if let (true, Some(format)) = (list.wants_help(), &how.format) {
        return print_options(run, format);
    }
    let [name] = operands.as_slice() else {
        return Err(Stop::failed("Expecting one image file name"));
    };
    how.cache = images::target_cache(Some(&cache))?;
    let name = ImageName::parse(name, image_opts, &mut how)?;
    let opened = images::open(&name, &how)?;
    opened.warn_if_guessed();
    if list.wants_help() {
        return print_options(run, opened.format());
    }
    let info = amendable(opened.format())?;
    let chosen = list.resolve(&table(info)).map_err(|message| {
        let is_for_create = |name: &str| info.create_option(name).is_some();
        match list.iter().find(|(name, _)| message == format!("Invalid parameter '{name}'")) {
            Some((name, _)) if is_for_create(name) => {
                Stop::failed(message).with_hint("This option is only supported for image creation")
            }
            _ => Stop::failed(message),
        }
    })?;
    let Some(amender) = opened.disk().amender() else {
        return Err(unsupported(info.name));
    };
    let mut shown = run.progress(progress && !quiet, 1.0);
    shown.set(0.0);
    let mut wanted = chosen.for_driver(&[]);
    wanted.add_secrets_of(&how.options);
    let amended = amender.amend(&wanted, force, &mut |done, total| shown.bytes_anew(done, total));
    if let Err(error) = amended {
        if damage::snapshot_l1(&error).is_some() {
            run.say(&describe(&error));
        }
        if !run.has_own() {
            // As qemu-img has it: this is the end, if not the one that was hoped for.
            shown.set(100.0);
        }
        shown.end();
        return Err(Stop::failed(reason(&error)).of(Class::of(&error)).in_image(&opened.filename));
    }
    opened.close()?;
    shown.set(100.0);
    shown.end();
    Ok(0)
}

/// Why the image could not be amended: qemu-img says what it was about to do.
fn reason(error: &Error) -> String {
    if let Some(why) = damage::snapshot_l1(error) {
        return format!("Failed to turn zero into data clusters: {why}");
    }
    let reason = describe(error);
    match error {
        Error::Io { op: op::WRITE_REFCOUNT_BLOCK, .. } => {
            format!("Failed to write refblock: {reason}")
        }
        Error::Io { op: op::ZERO_CLUSTER, .. } => {
            format!("Failed to turn zero into data clusters: {reason}")
        }
        _ => reason,
    }
}

fn print_options(run: &mut Run<'_>, format: &str) -> Result<u8, Stop> {
    let info = amendable(format)?;
    let lines = options::help(&table(info), &[]);
    run.print(&format!("Amend options for '{}':\n{lines}", info.name))?;
    Ok(0)
}

fn amendable(format: &str) -> Result<&'static FormatInfo, Stop> {
    let info = images::format(format)
        .ok_or_else(|| Stop::failed(format!("Unknown file format '{format}'")))?;
    if info.amend_options.is_empty() { Err(unsupported(format)) } else { Ok(info) }
}

fn table(info: &'static FormatInfo) -> Vec<&'static OptionSpec> {
    info.amend_options.iter().collect()
}

fn unsupported(format: &str) -> Stop {
    Stop::failed(format!("Format driver '{format}' does not support option amendment"))
}
