//! `info`: what an image, or every image of a chain, says of itself.

use crate::args::{CommandHelp, Example, Flag};
use crate::commands::{Command, common, output_form, parse, text};
use crate::images::{self, How, ImageName};
use crate::message::Stop;
use crate::output::Form;
use crate::output::info::{self as output, ImageReport};
use crate::program::Run;
use crate::secrets::add_object;
use rimg::{ImageInfo, InfoValue, RawOptions};
use std::ffi::OsString;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "info",
        summary: "Show what an image says of itself",
        usage: "[-f FMT | --image-opts] [-b] [-U] [--object OBJDEF] [--output human|json] FILENAME",
        own_usage: "",
        operands: &[("FILENAME", "the image")],
        own_operands: &[],
        examples: &[
            Example { does: "Show format, sizes and backing file", line: "info disk.qcow2" },
            Example {
                does: "Show a whole backing chain, for a program",
                line: "info --backing-chain --output=json top.qcow2",
            },
            Example {
                does: "Look at the image of a machine that is running",
                line: "info -U running.qcow2",
            },
        ],
        flags: || FLAGS.iter().map(|(_, flag)| *flag).collect(),
    },
    run,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Help,
    Format,
    Output,
    BackingChain,
    Object,
    ImageOpts,
    ForceShare,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Format, common::FORMAT),
    (Key::Output, common::OUTPUT),
    (
        Key::BackingChain,
        Flag::new(&["backing-chain"], "show the images below FILENAME too").short(b'b'),
    ),
    (Key::Object, common::OBJECT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (Key::ForceShare, common::FORCE_SHARE),
];

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    let mut how = How::default();
    let mut form = Form::Human;
    let mut whole_chain = false;
    let mut image_opts = false;
    let operands = parse(FLAGS, args, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Format => how.format = Some(text(&value)),
            Key::Output => form = output_form(&value)?,
            Key::BackingChain => whole_chain = true,
            Key::Object => add_object(&mut how.options, &value)?,
            Key::ImageOpts => image_opts = true,
            Key::ForceShare => how.force_share = true,
        }
        Ok(())
    })?;
    let [name] = operands.as_slice() else {
        return Err(Stop::Advice("Expecting one image file name".to_owned()));
    };
    let name = ImageName::parse(name, image_opts, &mut how)?;
    how.backing = false;
    how.inspect_only = true;

    let chain = if whole_chain { report_chain(name, how)? } else { vec![report(&name, &how)?] };
    let printed = match (form, chain.as_slice()) {
        (Form::Human, chain) => output::human(chain),
        (Form::Json, [one]) if !whole_chain => output::json_image(one),
        (Form::Json, chain) => output::json_chain(chain),
    };
    run.print(&printed)?;
    Ok(0)
}

/// Opens the images of a chain one after the other, so that each is shown as it is.
fn report_chain(name: ImageName, how: How) -> Result<Vec<ImageReport>, Stop> {
    let (mut name, mut how) = (name, how);
    let mut chain: Vec<ImageReport> = Vec::new();
    loop {
        if chain.iter().any(|above| above.filename == name.shown()) {
            let message = format!("Backing file '{}' creates an infinite loop.", name.shown());
            return Err(Stop::failed(message));
        }
        chain.push(report(&name, &how)?);
        // What was said of the top image holds for none below it.
        how.options = RawOptions::new();
        let Some(top) = chain.last() else { return Ok(chain) };
        let Some(below) = &top.full_backing_filename else { return Ok(chain) };
        how.format.clone_from(&top.info.backing_format);
        let unopened = |reason: String| Stop::failed(format!("Could not open '{below}': {reason}"));
        name = ImageName::of_file(below.as_ref()).map_err(unopened)?;
        let is_plain =
            |name: &str| images::format(name).is_none() && images::is_backing_format(name);
        if how.format.as_deref().is_some_and(is_plain) {
            name = ImageName::of_user(below.as_ref(), &mut how).map_err(unopened)?;
        }
    }
}

fn report(name: &ImageName, how: &How) -> Result<ImageReport, Stop> {
    let opened = images::open(name, how)?;
    let mut info = opened.info()?;
    let file = name.path().map(images::path_name).unwrap_or_default();
    name_extents(&mut info, &file);
    let full_backing_filename =
        info.backing_file.as_deref().and_then(|backing| match name.node_without_folder() {
            Some(_) if images::is_relative(backing) => None,
            _ => Some(images::combine(&file, backing)),
        });
    Ok(ImageReport { full_backing_filename, ..opened.report(info)? })
}

/// Extents are shown by the names of their files from here; an image gives them from its own
/// folder, and none where it is the file itself.
fn name_extents(info: &mut ImageInfo, image: &str) {
    let lists = info.specific.iter_mut().filter(|(name, _)| *name == "extents");
    for (_, value) in lists {
        let InfoValue::List(extents) = value else { continue };
        for extent in extents {
            let InfoValue::Map(members) = extent else { continue };
            for (name, value) in members {
                match value {
                    InfoValue::Text(file) if *name == "filename" && file.is_empty() => {
                        image.clone_into(file);
                    }
                    InfoValue::Text(file) if *name == "filename" => {
                        *file = images::combine(image, file);
                    }
                    _ => {}
                }
            }
        }
    }
}
