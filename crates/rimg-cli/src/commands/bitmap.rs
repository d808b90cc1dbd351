//! `bitmap`: changing the persistent dirty bitmaps of an image.

use crate::args::{CommandHelp, Example, Flag};
use crate::commands::{Command, MAX_SIZE, common, parse, ranged_size, text};
use crate::images::{self, How, ImageName, Opened, Reason};
use crate::message::{Stop, describe};
use crate::program::Run;
use crate::secrets::add_object;
use rimg::{BitmapEdit, Bitmaps, BlockImage, Error, InfoValue};
use std::ffi::OsString;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "bitmap",
        summary: "Change what an image remembers of the writes to it",
        usage: "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... \
                [-b SRC_FILENAME [-F SRC_FMT]] [-g GRANULARITY] [-f FMT | --image-opts] \
                [--object OBJDEF] FILENAME BITMAP",
        own_usage: "",
        operands: &[
            ("FILENAME", "the image"),
            ("BITMAP", "the name of the bitmap; what is to be done to it is done in order"),
        ],
        own_operands: &[],
        examples: &[
            Example {
                does: "Remember from now on what is written",
                line: "bitmap --add disk.qcow2 since-backup",
            },
            Example {
                does: "Begin anew after a backup",
                line: "bitmap --clear disk.qcow2 since-backup",
            },
            Example {
                does: "Copy a bitmap of another image",
                line: "bitmap --add --merge since-backup -b base.qcow2 -F qcow2 top.qcow2 copy",
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
    ImageOpts,
    Add,
    Granularity,
    Remove,
    Clear,
    Enable,
    Disable,
    Merge,
    SourceFile,
    SourceFormat,
    Object,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Format, common::FORMAT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (Key::Add, Flag::new(&["add"], "create BITMAP, empty; writes set bits of it from now on")),
    (
        Key::Granularity,
        Flag::new(&["granularity"], "how many bytes a bit of a new BITMAP stands for")
            .short(b'g')
            .value("GRANULARITY"),
    ),
    (Key::Remove, Flag::new(&["remove"], "drop BITMAP, even one that is in use")),
    (Key::Clear, Flag::new(&["clear"], "reset every bit of BITMAP")),
    (Key::Enable, Flag::new(&["enable"], "let writes set bits of BITMAP from now on")),
    (Key::Disable, Flag::new(&["disable"], "let writes leave BITMAP as it is from now on")),
    (
        Key::Merge,
        Flag::new(&["merge"], "set the bits of BITMAP that are set in the bitmap SOURCE")
            .value("SOURCE"),
    ),
    (
        Key::SourceFile,
        Flag::new(&["source-file"], "the image that has SOURCE, if it is another one")
            .short(b'b')
            .value("SRC_FILENAME"),
    ),
    (
        Key::SourceFormat,
        Flag::new(&["source-format"], "the format of SRC_FILENAME").short(b'F').value("SRC_FMT"),
    ),
    (Key::Object, common::OBJECT),
];

/// One thing to do to a bitmap.
enum Action {
    Add,
    Remove,
    Clear,
    Enable,
    Disable,
    Merge(String),
}

impl Action {
    const fn name(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Clear => "clear",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Merge(_) => "merge",
        }
    }
}

/// The command line.
#[derive(Default)]
struct Args {
    how: How,
    image_opts: bool,
    actions: Vec<Action>,
    granularity: Option<u64>,
    source: Option<OsString>,
    source_format: Option<String>,
    operands: Vec<OsString>,
}

fn run(run: &mut Run<'_>, words: Vec<OsString>) -> Result<u8, Stop> {
    let mut args = Args::parse(words)?;
    let [filename, bitmap] = args.operands.as_slice() else {
        return Err(Stop::failed("Expecting filename and bitmap name"));
    };
    let (filename, bitmap) = (filename.clone(), text(bitmap));
    args.how.writable = true;
    // No data is read; and what lies below one image may be the other one.
    args.how.backing = false;
    let name = ImageName::parse(&filename, args.image_opts, &mut args.how)?;
    let opened = images::open(&name, &args.how)?;
    opened.warn_if_guessed();
    let source = match &args.source {
        Some(source) => Some(open_source(source, args.source_format.clone())?),
        None => None,
    };
    let done = args.actions.iter().try_for_each(|action| {
        let done = act(action, &opened, source.as_ref(), &bitmap, args.granularity);
        let name = action.name();
        done.map_err(|reason| {
            Stop::failed(format!("Operation {name} on bitmap {bitmap} failed: {reason}"))
                .in_image(&opened.filename)
        })
    });
    // What was done before a failure stays.
    let closed = if run.has_own() {
        opened.close()
    } else {
        opened.close_or_reason().map_err(|reason| lost(run, &bitmap, &reason))
    };
    done.and(closed).map(|()| 0)
}

/// What qemu-img says when it cannot store bitmaps at the end.
fn lost(run: &Run<'_>, bitmap: &str, reason: &Reason) -> Stop {
    run.say(&format!(
        "Lost persistent bitmaps during inactivation of node '{NODE}': Failed to write bitmap \
         '{bitmap}' to file: {}",
        reason.text
    ));
    Stop::failed("Error while closing the image: Invalid argument").of(reason.class)
}

impl Args {
    fn parse(words: Vec<OsString>) -> Result<Self, Stop> {
        let mut args = Self::default();
        let mut operands = parse(FLAGS, words, |key, value| {
            match key {
                Key::Help => return Err(Stop::Help),
                Key::Format => args.how.format = Some(text(&value)),
                Key::ImageOpts => args.image_opts = true,
                Key::Add => args.actions.push(Action::Add),
                Key::Granularity => {
                    args.granularity = Some(ranged_size("granularity", &value, MAX_SIZE)?);
                }
                Key::Remove => args.actions.push(Action::Remove),
                Key::Clear => args.actions.push(Action::Clear),
                Key::Enable => args.actions.push(Action::Enable),
                Key::Disable => args.actions.push(Action::Disable),
                Key::Merge => args.actions.push(Action::Merge(text(&value))),
                Key::SourceFile => args.source = Some(value),
                Key::SourceFormat => args.source_format = Some(text(&value)),
                Key::Object => add_object(&mut args.how.options, &value)?,
            }
            Ok(())
        })?;
        args.operands.append(&mut operands);
        args.check_combinations()?;
        Ok(args)
    }

    fn check_combinations(&self) -> Result<(), Stop> {
        let no = |message: &str| Err(Stop::failed(message));
        let adds = self.actions.iter().any(|action| matches!(action, Action::Add));
        let merges = self.actions.iter().any(|action| matches!(action, Action::Merge(_)));
        if self.actions.is_empty() {
            return no(
                "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge",
            );
        }
        if self.granularity.is_some_and(|bytes| bytes != 0) && !adds {
            return no("granularity only supported with --add");
        }
        if self.source.is_some() && !merges {
            return no("Merge bitmap source file only supported with --merge");
        }
        if self.source_format.is_some() && self.source.is_none() {
            return no("-F only supported with -b");
        }
        Ok(())
    }
}

fn open_source(name: &OsString, format: Option<String>) -> Result<Opened, Stop> {
    let mut how = How { format, backing: false, ..How::default() };
    let name = ImageName::parse(name, false, &mut how)?;
    images::open(&name, &how)
}

/// Does one thing, or says why not.
fn act(
    action: &Action,
    opened: &Opened,
    source: Option<&Opened>,
    bitmap: &str,
    granularity: Option<u64>,
) -> Result<(), String> {
    let not_found = |name: &str| format!("Dirty bitmap '{name}' not found");
    if let (Action::Add, Some(bytes)) = (action, granularity.filter(|bytes| *bytes != 0)) {
        // Said of images without bitmaps, too.
        if !bitmap.is_empty() && (bytes < MIN_GRANULARITY || !bytes.is_power_of_two()) {
            return Err("Granularity must be power of 2 and at least 512".to_owned());
        }
    }
    let Some(bitmaps) = opened.disk().bitmaps() else {
        return Err(match action {
            Action::Add => {
                format!("Can't store persistent bitmaps to {NODE}: Operation not supported")
            }
            _ => not_found(bitmap),
        });
    };
    let explain = |error: Error| match &error {
        Error::InvalidOption { option: "persistent bitmap", reason } => {
            format!("Can't make bitmap '{bitmap}' persistent in '{NODE}': {reason}")
        }
        other => describe(other),
    };
    let editor = bitmaps.editor().ok_or_else(|| "Read-only file system".to_owned())?;
    match action {
        Action::Add => {
            let granularity = granularity.filter(|bytes| *bytes != 0);
            editor.add(bitmap, granularity).map_err(explain)
        }
        Action::Remove => editor.remove(bitmap).map_err(explain),
        Action::Clear => editor.clear(bitmap).map_err(explain),
        Action::Enable => editor.set_enabled(bitmap, true).map_err(explain),
        Action::Disable => editor.set_enabled(bitmap, false).map_err(explain),
        Action::Merge(from) => {
            let other = source.unwrap_or(opened);
            // Whether the target can be merged into is what is said first.
            bitmaps.dirty_run(bitmap, 0..0).map_err(explain)?;
            let others = other.disk().bitmaps().ok_or_else(|| not_found(from))?;
            others.dirty_run(from, 0..0).map_err(explain)?;
            refuse_other_size(opened.disk(), other.disk())?;
            merge(others, from, other.disk().size_bytes(), editor, bitmap).map_err(explain)
        }
    }
}

/// The least that a bit may stand for, in bytes.
const MIN_GRANULARITY: u64 = 512;

/// What qemu-img calls the image in messages, with a number that says nothing.
const NODE: &str = "#block100";

/// Whether an image can have persistent bitmaps; old versions of a format cannot.
pub(super) fn has_bitmaps(image: &dyn BlockImage) -> bool {
    image.info().is_ok_and(|info| {
        let old = ("compat", InfoValue::Text("0.10".to_owned()));
        !info.specific.contains(&old)
    })
}

/// Says no when two images are of different sizes.
pub(super) fn refuse_other_size(
    target: &dyn BlockImage,
    source: &dyn BlockImage,
) -> Result<(), String> {
    let (target, source) = (target.size_bytes(), source.size_bytes());
    if target == source {
        return Ok(());
    }
    Err(format!(
        "Bitmaps are of different sizes (destination size is {target}, source size is {source}) \
         and can't be merged"
    ))
}

/// Sets the bits of the bitmap `to` that are set in the bitmap `from`.
pub(super) fn merge(
    source: &dyn Bitmaps,
    from: &str,
    size_bytes: u64,
    target: &dyn BitmapEdit,
    to: &str,
) -> rimg::Result<()> {
    let mut at = 0;
    while let Some(run) = source.dirty_run(from, at..size_bytes)? {
        at = run.end;
        target.mark(to, run)?;
    }
    Ok(())
}
