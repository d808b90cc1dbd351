//! `measure`: how large the file of an image would become.

use crate::args::{CommandHelp, Example, Flag};
use crate::commands::bitmap::has_bitmaps;
use crate::commands::snapshot_name::SnapshotName;
use crate::commands::watch::cancel_on_signals;
use crate::commands::{Command, MAX_SIZE, common, output_form, parse, ranged_size, text};
use crate::images::{self, How, ImageName, Opened};
use crate::json::pretty;
use crate::message::Stop;
use crate::options::{self, OptionList};
use crate::output::Form;
use crate::program::Run;
use crate::secrets::add_object;
use rimg::{BlockImage, FORMATS, InfoValue, Measure, Measured, driver};
use rimg_convert::{ConvertError, measure};
use std::ffi::OsString;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "measure",
        summary: "Calculate how large the file of a new image would become",
        usage: "[-f FMT | --image-opts] [-l SNAPSHOT] [-U] [-O OUTPUT_FMT] [-o OPTIONS] \
                [--output human|json] [--object OBJDEF] (--size SIZE | FILENAME)",
        own_usage: "",
        operands: &[("FILENAME", "the image that would be converted")],
        own_operands: &[],
        examples: &[
            Example {
                does: "How much room converting to qcow2 takes",
                line: "measure -O qcow2 disk.raw",
            },
            Example {
                does: "How much room a new image of 20 GiB may come to take",
                line: "measure -O qcow2 --size 20G",
            },
        ],
        flags: || FLAGS.iter().map(|(_, flag)| *flag).collect(),
    },
    run,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Help,
    TargetFormat,
    Options,
    Size,
    Format,
    ImageOpts,
    Snapshot,
    Output,
    ForceShare,
    Object,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (
        Key::TargetFormat,
        Flag::new(&["target-format"], "the format of the new image (default raw)")
            .short(b'O')
            .value("OUTPUT_FMT"),
    ),
    (
        Key::Options,
        Flag::new(&["options"], "options of the new image, as create takes them")
            .short(b'o')
            .value("OPTIONS"),
    ),
    (
        Key::Snapshot,
        Flag::new(&["snapshot"], "measure this internal snapshot: its name or its ID")
            .short(b'l')
            .value("SNAPSHOT"),
    ),
    (
        Key::Size,
        Flag::new(&["size"], "the size of an empty disk, in place of an image").value("SIZE"),
    ),
    (Key::Format, common::FORMAT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (Key::Object, common::OBJECT),
    (Key::Output, common::OUTPUT),
    (Key::ForceShare, common::FORCE_SHARE),
];

/// The command line.
struct Args {
    target_format: String,
    options: OptionList,
    size: Option<u64>,
    image_opts: bool,
    snapshot: Option<SnapshotName>,
    form: Form,
    how: How,
}

fn run(run: &mut Run<'_>, words: Vec<OsString>) -> Result<u8, Stop> {
    let mut args = Args {
        target_format: "raw".to_owned(),
        options: OptionList::default(),
        size: None,
        image_opts: false,
        snapshot: None,
        form: Form::Human,
        how: How::default(),
    };
    let operands = parse(FLAGS, words, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::TargetFormat => args.target_format = text(&value),
            Key::Options => args.options.add(&text(&value)).map_err(Stop::failed)?,
            Key::Size => args.size = Some(ranged_size("image size", &value, MAX_SIZE)?),
            Key::Format => args.how.format = Some(text(&value)),
            Key::ImageOpts => args.image_opts = true,
            Key::Snapshot => {
                let name = SnapshotName::parse(&text(&value), &mut |text| run.say(text))?;
                args.snapshot = Some(name);
            }
            Key::Output => args.form = output_form(&value)?,
            Key::ForceShare => args.how.force_share = true,
            Key::Object => add_object(&mut args.how.options, &value)?,
        }
        Ok(())
    })?;
    let source = open_source(&mut args, &operands)?;
    let snapshot = match (&args.snapshot, &source) {
        (Some(name), Some(source)) => Some(name.open(source)?),
        _ => None,
    };
    let disk = match (&snapshot, &source) {
        (Some(snapshot), _) => Some(snapshot.as_ref()),
        (None, Some(source)) => Some(source.disk()),
        (None, None) => None,
    };
    let measurement = measure_disk(run, &args, disk)?;
    let measured = measurement.measured();
    let bitmaps = match &source {
        Some(source) => bitmaps_bytes(source, measurement.as_ref())?,
        None => None,
    };
    run.print(&match args.form {
        Form::Human => report(&measured, bitmaps),
        Form::Json => pretty(&report_json(&measured, bitmaps)),
    })?;
    Ok(0)
}

fn open_source(args: &mut Args, operands: &[OsString]) -> Result<Option<Opened>, Stop> {
    let filename = match operands {
        [] => None,
        [filename] => Some(filename),
        _ => return Err(Stop::failed("At most one filename argument is allowed.")),
    };
    let of_a_file = args.image_opts || args.how.format.is_some() || args.snapshot.is_some();
    match (filename, args.size) {
        (None, _) if of_a_file => {
            Err(Stop::failed("--image-opts, -f, and -l require a filename argument."))
        }
        (None, None) => Err(Stop::failed("Either --size N or one filename must be specified.")),
        (Some(_), Some(_)) => {
            Err(Stop::failed("--size N cannot be used together with a filename."))
        }
        (None, Some(_)) => Ok(None),
        (Some(filename), None) => {
            let name = ImageName::parse(filename, args.image_opts, &mut args.how)?;
            images::open(&name, &args.how).map(Some)
        }
    }
}

/// Measures an image of what `disk` holds, or an empty one, and checks the options for it.
fn measure_disk(
    run: &Run<'_>,
    args: &Args,
    disk: Option<&dyn BlockImage>,
) -> Result<Box<dyn Measure>, Stop> {
    let name = &args.target_format;
    let format = images::creatable_format(name).map_err(Stop::failed)?;
    let table = options::table(format, true);
    let chosen = args.options.resolve(&table).map_err(|message| {
        run.say(&message);
        Stop::failed(format!("Invalid options for file format '{name}'"))
    })?;
    let unsized_format =
        || Stop::failed(format!("Block driver '{name}' does not support size measurement"));
    if name == images::PLAIN_FILE {
        return Err(unsized_format());
    }
    let size = disk.map_or(args.size.unwrap_or(0), BlockImage::size_bytes);
    let mut unseen = options::HINTS.to_vec();
    unseen.push("size");
    let target = driver(FORMATS, name).ok_or_else(unsized_format)?;
    let mut new = chosen.for_driver(&unseen);
    new.add_secrets_of(&args.how.options);
    let mut measurement = target
        .measure(size, &new)
        .map_err(|error| Stop::described(&error))?
        .ok_or_else(unsized_format)?;
    if disk.is_some() && chosen.plain("backing_file").is_some() {
        // Whatever that holds, all of it may have to be hidden.
        measurement.add_data(0..size);
    } else if let Some(disk) = disk {
        let cancel = cancel_on_signals()?;
        measure(disk, measurement.as_mut(), &cancel).map_err(|error| match error {
            ConvertError::Cancelled => Stop::interrupted(),
            other => Stop::caused_by(&other),
        })?;
    }
    Ok(measurement)
}

/// How much room the source's bitmaps take in the target, where both can have some.
fn bitmaps_bytes(source: &Opened, measurement: &dyn Measure) -> Result<Option<u64>, Stop> {
    let Some(bitmaps) = source.disk().bitmaps().filter(|_| has_bitmaps(source.disk())) else {
        // Its extensions may hold some, though none that are carried over.
        let may_have = source.format() == "parallels";
        return Ok(if may_have { measurement.bitmaps_bytes(&[]) } else { None });
    };
    let list = bitmaps.list().map_err(|error| Stop::described(&error))?;
    Ok(measurement.bitmaps_bytes(&list))
}

fn report(measured: &Measured, bitmaps: Option<u64>) -> String {
    let Measured { required_bytes, fully_allocated_bytes } = measured;
    let mut text =
        format!("required size: {required_bytes}\nfully allocated size: {fully_allocated_bytes}\n");
    if let Some(bytes) = bitmaps {
        text.push_str(&format!("bitmaps size: {bytes}\n"));
    }
    text
}

fn report_json(measured: &Measured, bitmaps: Option<u64>) -> InfoValue {
    let mut members = Vec::new();
    members.extend(bitmaps.map(|bytes| ("bitmaps", InfoValue::Number(bytes))));
    members.push(("required", InfoValue::Number(measured.required_bytes)));
    members.push(("fully-allocated", InfoValue::Number(measured.fully_allocated_bytes)));
    InfoValue::Map(members)
}
