//! `snapshot`: the internal snapshots of an image.

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::{Command, common, parse, text};
use crate::damage;
use crate::epoch::source_date_epoch;
use crate::images::{self, How, ImageName, Opened};
use crate::message::{Stop, describe, describe_io};
use crate::output::snapshots as output;
use crate::program::Run;
use crate::secrets::add_object;
use rimg_core::{Error, NewSnapshot, SnapshotEdit, SnapshotSelector, op};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "snapshot",
        summary: "List, take, restore and delete the internal snapshots of an image",
        usage: "[-f FMT | --image-opts] [-l | -a|-c|-d SNAPSHOT] [-q] [-U] [--object OBJDEF] \
                FILENAME",
        own_usage: "",
        operands: &[("FILENAME", "the image")],
        own_operands: &[],
        examples: &[
            Example { does: "List the snapshots of an image", line: "snapshot -l disk.qcow2" },
            Example {
                does: "Keep the disk as it is now, to go back to it later",
                line: "snapshot -c clean disk.qcow2",
            },
            Example { does: "Make the disk what it was", line: "snapshot -a clean disk.qcow2" },
        ],
        flags: || FLAGS.iter().map(|(_, flag)| *flag).collect(),
    },
    run,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Help,
    Quiet,
    Format,
    ImageOpts,
    ForceShare,
    Object,
    List,
    Create,
    Apply,
    Delete,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, common::QUIET),
    (Key::Format, common::FORMAT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (Key::ForceShare, common::FORCE_SHARE),
    (Key::Object, common::OBJECT),
    (Key::List, Flag::new(&["list"], "list the snapshots (the default)").short(b'l')),
    (
        Key::Create,
        Flag::new(&["create"], "take a snapshot of this name").short(b'c').value("SNAPSHOT"),
    ),
    (
        Key::Apply,
        Flag::new(
            &["apply"],
            "make the disk what it was at this snapshot, named by its \
             identifier or else its name",
        )
        .short(b'a')
        .value("SNAPSHOT"),
    ),
    (
        Key::Delete,
        Flag::new(&["delete"], "delete the first snapshot of this name")
            .short(b'd')
            .value("SNAPSHOT"),
    ),
];

/// What is to be done, and to which snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    List,
    Create(String),
    Apply(String),
    Delete(String),
}

/// Longer names of new snapshots are cut off, as qemu-img cuts them.
const MAX_NAME_BYTES: usize = 255;

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    let mut how = How::default();
    let mut image_opts = false;
    let mut action = None;
    let operands = parse(FLAGS, args, |key, value| {
        let wanted = match key {
            Key::Help => return Err(Stop::Help),
            // The list is what was asked for, and nothing else is printed.
            Key::Quiet => return Ok(()),
            Key::Format => {
                how.format = Some(text(&value));
                return Ok(());
            }
            Key::ImageOpts => {
                image_opts = true;
                return Ok(());
            }
            Key::ForceShare => {
                how.force_share = true;
                return Ok(());
            }
            Key::Object => return add_object(&mut how.options, &value),
            Key::List => Action::List,
            Key::Create => Action::Create(text(&value)),
            Key::Apply => Action::Apply(text(&value)),
            Key::Delete => Action::Delete(text(&value)),
        };
        if action.replace(wanted).is_some() {
            return Err(Stop::Advice("Cannot mix '-l', '-a', '-c', '-d'".to_owned()));
        }
        Ok(())
    })?;
    let [name] = operands.as_slice() else {
        return Err(Stop::Advice("Expecting one image file name".to_owned()));
    };
    let action = action.unwrap_or(Action::List);
    how.writable = action != Action::List;
    let name = ImageName::parse(name, image_opts, &mut how)?;
    let opened = images::open(&name, &how)?;
    opened.warn_if_guessed();
    let done = match action {
        Action::List => list(run, &opened),
        Action::Create(name) => create(run, &opened, &name),
        Action::Apply(name) => apply(run, &opened, &name),
        Action::Delete(name) => delete(run, &opened, &name),
    };
    done.map_err(|stop| stop.in_image(&opened.filename))?;
    opened.close()?;
    Ok(0)
}

fn list(run: &mut Run<'_>, opened: &Opened) -> Result<(), Stop> {
    let Some(snapshots) = opened.disk().snapshots() else { return Ok(()) };
    let all = snapshots.list().map_err(|error| {
        let name = &opened.filename;
        Stop::failed(format!("Could not open '{name}': {}", describe(&error))).of(Class::of(&error))
    })?;
    if all.is_empty() { Ok(()) } else { run.print(&output::table(&all)) }
}

fn editor(opened: &Opened) -> Option<&dyn SnapshotEdit> {
    opened.disk().snapshots().and_then(|snapshots| snapshots.editor())
}

fn create(run: &Run<'_>, opened: &Opened, name: &str) -> Result<(), Stop> {
    let failed = |why: &str| Stop::failed(format!("Could not create snapshot '{name}': {why}"));
    let editor = editor(opened).ok_or_else(|| failed(NOT_SUPPORTED).of(Class::Unsupported))?;
    let (date_seconds, date_nanoseconds) = now()?;
    let new = NewSnapshot { name: cut(name), date_seconds, date_nanoseconds };
    editor.create(&new).map(drop).map_err(|error| {
        let of_system = damage::not_counted(&error).filter(|_| !run.has_own());
        let why = of_system.map_or_else(|| words(&error), str::to_owned);
        failed(&why).of(Class::of(&error))
    })
}

fn apply(run: &Run<'_>, opened: &Opened, name: &str) -> Result<(), Stop> {
    let failed = |why: &str| Stop::failed(format!("Could not apply snapshot '{name}': {why}"));
    let none = "Block driver does not support snapshots";
    let editor = editor(opened).ok_or_else(|| failed(none).of(Class::Unsupported))?;
    match editor.apply(&SnapshotSelector::IdOrName(name)) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let none = "Failed to load snapshot: No such file or directory";
            Err(failed(none).of(Class::NotFound))
        }
        Err(Error::InvalidOption { option: "bitmap", reason }) => Err(failed(&reason)),
        Err(error) => {
            let why = match damage::snapshot_l1(&error) {
                Some(why) => {
                    run.say(&describe(&error));
                    why.to_owned()
                }
                None => words(&error),
            };
            let why = format!("Failed to load snapshot: {why}");
            Err(failed(&why).of(Class::of(&error)))
        }
    }
}

/// An identifier is no name here, unlike for `-a`.
fn delete(run: &Run<'_>, opened: &Opened, name: &str) -> Result<(), Stop> {
    let failed = |why: &str| Stop::failed(format!("Could not delete snapshot '{name}': {why}"));
    let editor = editor(opened).ok_or_else(|| failed(NOT_FOUND).of(Class::Unsupported))?;
    match editor.delete(&SnapshotSelector::Fields { id: None, name: Some(name) }) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(NOT_FOUND).of(Class::NotFound)),
        Err(error) => {
            let step = match &error {
                Error::Io { op: op::REMOVE_SNAPSHOT, .. } => {
                    "Failed to remove snapshot from snapshot list: "
                }
                Error::Io { op: op::FREE_SNAPSHOT, source, .. } => {
                    if !run.has_own() {
                        // QEMU says so of the old snapshot table, which it lets go first.
                        let why = describe_io(source);
                        let _ = writeln!(io::stderr(), "qcow2_free_clusters failed: {why}");
                    }
                    "Failed to free the cluster and L1 table: "
                }
                Error::Io { op: op::UPDATE_COPIED_FLAGS, .. } => {
                    "Failed to update snapshot status in disk: "
                }
                _ => "",
            };
            let why = format!("{step}{}", words(&error));
            Err(failed(&why).of(Class::of(&error)))
        }
    }
}

const NOT_FOUND: &str = "snapshot not found";
const NOT_SUPPORTED: &str = "Operation not supported";

/// Where qemu-img knows an error number only, its words.
fn words(error: &Error) -> String {
    match error {
        Error::Unsupported { .. } => NOT_SUPPORTED.to_owned(),
        Error::Limit { what: "refcount", .. } => "Invalid argument".to_owned(),
        Error::Limit { what: "number of snapshots" | "snapshot table in bytes", .. } => {
            "File too large".to_owned()
        }
        other => describe(other),
    }
}

fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(MAX_NAME_BYTES)).unwrap_or(name)
}

/// The time: that of `SOURCE_DATE_EPOCH` where it is set, so that the same commands make the same
/// files, else the clock's to the microsecond.
fn now() -> Result<(u32, u32), Stop> {
    if let Some(seconds) = source_date_epoch().map_err(Stop::failed)? {
        return Ok((seconds, 0));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The field ends in 2106, and wraps around then.
    let seconds = u32::try_from(since.as_secs() % (1 << 32)).unwrap_or_default();
    Ok((seconds, since.subsec_micros().saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_between_letters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"n".repeat(300)).len(), 255);
        assert_eq!(cut(&"ä".repeat(200)).len(), 254);
    }
}
