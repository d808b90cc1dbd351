//! `rebase`: an overlay onto another image, or onto none.

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::watch::{Watch, cancel_on_signals};
use crate::commands::{Command, common, parse, text};
use crate::images::{self, How, ImageName, Opened, combine};
use crate::message::{Stop, describe};
use crate::program::Run;
use crate::secrets::add_object;
use rimg_convert::{ConvertError, NewBacking, RebaseOptions, rebase};
use rimg_core::Error;
use std::ffi::OsString;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "rebase",
        summary: "Change what lies below an image",
        usage: "[-f FMT | --image-opts] [-t CACHE] [-q] [-U] [-p] \
                [-b BACKING_FILENAME [-F BACKING_FMT] [-T BACKING_CACHE]] [-u] [-c] \
                [--object OBJDEF] FILENAME",
        own_usage: "",
        operands: &[("FILENAME", "the image that gets another one below")],
        own_operands: &[],
        examples: &[
            Example {
                does: "Put an overlay onto another base, with what that lacks",
                line: "rebase -b new-base.qcow2 -F qcow2 overlay.qcow2",
            },
            Example { does: "Make an overlay stand alone", line: "rebase -b \"\" overlay.qcow2" },
            Example {
                does: "Tell an overlay that its base has moved",
                line: "rebase -u -b ../base.qcow2 -F qcow2 overlay.qcow2",
            },
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
    Backing,
    BackingFormat,
    BackingCache,
    Unsafe,
    Compress,
    ForceShare,
    Object,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, common::QUIET),
    (Key::Progress, Flag::new(&["progress"], "show how far the work is").short(b'p')),
    (Key::ForceShare, common::FORCE_SHARE),
    (Key::Format, common::FORMAT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (
        Key::Cache,
        Flag::new(&["cache"], "how FILENAME is written: writeback (the default), none, ...")
            .short(b't')
            .value("CACHE"),
    ),
    (
        Key::Backing,
        Flag::new(&["backing"], "the image to be below, or \"\" for none")
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
        Key::BackingCache,
        Flag::new(&["backing-cache"], "how the images below are read")
            .short(b'T')
            .value("BACKING_CACHE"),
    ),
    (
        Key::Unsafe,
        Flag::new(
            &["backing-unsafe"],
            "change the name only: nothing is compared, no image below has to be there",
        )
        .short(b'u'),
    ),
    (Key::Compress, Flag::new(&["compress"], "compress what is copied (qcow2)").short(b'c')),
    (Key::Object, common::OBJECT),
];

/// The command line.
#[derive(Default)]
struct Args {
    how: How,
    /// Of the new image below: what is written is not shared.
    force_share: bool,
    image_opts: bool,
    quiet: bool,
    progress: bool,
    cache: Option<String>,
    backing: Option<String>,
    backing_format: Option<String>,
    backing_cache: Option<String>,
    name_only: bool,
    compress: bool,
}

/// What QEMU knows beside formats, and lets an image say of the one below.
const PROTOCOLS: &[&str] = &[
    "blkdebug",
    "blkverify",
    "copy-on-read",
    "file",
    "host_cdrom",
    "host_device",
    "nbd",
    "null-aio",
    "null-co",
    "quorum",
    "throttle",
    "vvfat",
];

fn run(run: &mut Run<'_>, words: Vec<OsString>) -> Result<u8, Stop> {
    let mut args = Args::default();
    let operands = parse(FLAGS, words, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Quiet => args.quiet = true,
            Key::Progress => args.progress = true,
            Key::Format => args.how.format = Some(text(&value)),
            Key::ImageOpts => args.image_opts = true,
            Key::Cache => args.cache = Some(text(&value)),
            Key::Backing => args.backing = Some(text(&value)),
            Key::BackingFormat => args.backing_format = Some(text(&value)),
            Key::BackingCache => args.backing_cache = Some(text(&value)),
            Key::Unsafe => args.name_only = true,
            Key::Compress => args.compress = true,
            Key::ForceShare => args.force_share = true,
            Key::Object => add_object(&mut args.how.options, &value)?,
        }
        Ok(())
    })?;
    let [filename] = operands.as_slice() else {
        return Err(Stop::Advice("Expecting one image file name".to_owned()));
    };
    if args.backing.is_none() && !args.name_only {
        let message = "Must specify backing file (-b) or use unsafe mode (-u)";
        return Err(Stop::Advice(message.to_owned()));
    }
    let watch = Watch::new(run, run.progress(args.progress && !args.quiet, 1.0));
    watch.show(0.0);
    let result = rebase_image(&mut args, filename, &watch);
    if result.is_ok() {
        watch.show(100.0);
    }
    watch.end();
    result.map(|()| 0)
}

fn rebase_image(args: &mut Args, filename: &OsString, watch: &Watch<'_>) -> Result<(), Stop> {
    args.how.cache = images::image_cache(args.cache.as_deref())?;
    args.how.writable = true;
    args.how.backing = !args.name_only;
    let below = How {
        format: args.backing_format.clone(),
        force_share: args.force_share,
        cache: images::source_cache(args.backing_cache.as_deref())?,
        options: args.how.options.clone(),
        ..How::default()
    };
    let name = ImageName::parse(filename, args.image_opts, &mut args.how)?;
    let overlay = images::open(&name, &args.how)?;
    overlay.warn_if_guessed();
    if args.compress {
        images::require_compression(overlay.format()).map_err(Stop::failed)?;
    }
    if let Some(unknown) = &args.backing_format
        && !images::is_backing_format(unknown)
        && !(args.name_only && PROTOCOLS.contains(&unknown.as_str()))
    {
        return Err(Stop::failed(format!("Invalid format name: '{unknown}'")));
    }
    let done = if args.name_only {
        change_names(args, &overlay)
    } else {
        copy(args, &overlay, &below, watch)
    };
    done?;
    overlay.close()
}

/// Changes nothing but the names in the overlay.
fn change_names(args: &Args, overlay: &Opened) -> Result<(), Stop> {
    let shown = args.backing.as_deref().unwrap_or("(null)");
    let failed = |reason: &str| unchanged(shown, reason);
    let names = overlay.disk().overlay().filter(|names| names.can_change_backing());
    let names = names.ok_or_else(|| failed("Operation not supported"))?;
    let name = args.backing.as_deref().filter(|name| !name.is_empty());
    let format = args.backing_format.as_deref();
    if name.is_some() && format.is_none() {
        return Err(failed("backing format must be specified"));
    }
    names.change_backing(name, format).map_err(|error| failed(&describe(&error)))
}

/// Changes the names once what the overlay will not get from below any more is in it.
fn copy(args: &Args, overlay: &Opened, how: &How, watch: &Watch<'_>) -> Result<(), Stop> {
    let shown = args.backing.as_deref().unwrap_or_default();
    let opened = match args.backing.as_deref() {
        None | Some("") => None,
        Some(name) => Some((name, open_backing(overlay, name, how)?)),
    };
    if overlay.disk().overlay().is_none_or(|names| !names.can_change_backing()) {
        return Err(unchanged(shown, "Operation not supported"));
    }
    let onto = match (&opened, args.backing_format.as_deref()) {
        (None, _) => None,
        (Some(_), None) => return Err(unchanged(shown, "backing format must be specified")),
        (Some((name, opened)), Some(format)) => {
            Some(NewBacking { image: opened.disk(), name, format })
        }
    };
    let mut options = RebaseOptions::default();
    options.compress = args.compress;
    let cancel = cancel_on_signals()?;
    match rebase(overlay.disk(), onto, &options, watch, &cancel) {
        Ok(_) => Ok(()),
        Err(ConvertError::ChangeBacking { source, .. }) => {
            Err(unchanged(shown, &describe(&source)))
        }
        Err(ConvertError::Cancelled) => Err(Stop::interrupted()),
        Err(error) => {
            let failed = |doing: &str, source: &Error| {
                Stop::failed(format!("{doing}: {}", describe(source))).of(Class::of(source))
            };
            let stop = match &error {
                ConvertError::Write { source, .. } => {
                    failed("Error while writing to COW image", source)
                }
                ConvertError::Map { source, .. } => {
                    failed("error while reading image metadata", source)
                }
                error => Stop::caused_by(error),
            };
            Err(stop.in_image(&overlay.filename))
        }
    }
}

fn open_backing(overlay: &Opened, name: &str, how: &How) -> Result<Opened, Stop> {
    let failed = |reason: String| {
        Stop::failed(format!("Could not open new backing file '{name}': {reason}"))
    };
    let mut how = how.clone();
    let found = if name.starts_with("json:") {
        ImageName::parse(name.as_ref(), false, &mut how)?
    } else {
        let from = overlay.image.path().map(|path| path.to_string_lossy()).unwrap_or_default();
        ImageName::of_user(combine(&from, name).as_ref(), &mut how).map_err(failed)?
    };
    images::open_or_reason(&found, &how).map_err(|reason| failed(reason.text).of(reason.class))
}

fn unchanged(name: &str, reason: &str) -> Stop {
    Stop::failed(format!("Could not change the backing file to '{name}': {reason}"))
}
