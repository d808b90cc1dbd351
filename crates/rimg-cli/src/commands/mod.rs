//! The sub-commands, one file each.

mod amend;
mod bench;
mod bitmap;
mod check;
mod checksum;
mod commit;
mod compare;
mod completions;
mod convert;
mod create;
mod dd;
mod formats;
mod info;
mod man;
mod map;
mod measure;
mod platform;
mod rebase;
mod resize;
mod snapshot;
mod snapshot_name;
mod watch;

use crate::args::{CommandHelp, Flag, Getopt, Order};
use crate::message::Stop;
use crate::output::Form;
use crate::program::Run;
use crate::size::{SizeError, parse_size};
use std::ffi::{OsStr, OsString};

/// The qemu-img whose command line this is.
pub(crate) const QEMU_IMG_VERSION: &str = "10.0.2";

/// A sub-command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    /// What help says of it.
    pub(crate) help: CommandHelp,
    /// Does it, with its part of the command line, and gives the exit code.
    pub(crate) run: fn(&mut Run<'_>, Vec<OsString>) -> Result<u8, Stop>,
}

/// The commands of qemu-img, in the order of help.
pub(crate) const ALL: &[Command] = &[
    amend::COMMAND,
    bench::COMMAND,
    bitmap::COMMAND,
    check::COMMAND,
    commit::COMMAND,
    compare::COMMAND,
    convert::COMMAND,
    create::COMMAND,
    dd::COMMAND,
    info::COMMAND,
    map::COMMAND,
    measure::COMMAND,
    rebase::COMMAND,
    resize::COMMAND,
    snapshot::COMMAND,
];

/// The commands that qemu-img has not, and that are not there under that name.
pub(crate) const OWN: &[Command] =
    &[checksum::COMMAND, completions::COMMAND, formats::COMMAND, man::COMMAND];

/// What help says of all commands, those that qemu-img has first.
fn helps() -> Vec<CommandHelp> {
    ALL.iter().chain(OWN).map(|command| command.help).collect()
}

/// Flags that several commands have.
mod common {
    use crate::args::Flag;

    pub(super) const HELP: Flag = Flag::new(&["help"], "print this help and exit").short(b'h');
    pub(super) const QUIET: Flag = Flag::new(&["quiet"], "print nothing but errors").short(b'q');
    pub(super) const FORMAT: Flag =
        Flag::new(&["format"], "the image's format (found by itself when not given)")
            .short(b'f')
            .value("FMT");
    pub(super) const OUTPUT: Flag =
        Flag::new(&["output"], "print for people (the default) or for programs")
            .value("human|json");
    pub(super) const OBJECT: Flag =
        Flag::new(&["object"], "a secret that the image needs: secret,id=ID,data=... or file=...")
            .value("OBJDEF");
    pub(super) const IMAGE_OPTS: Flag = Flag::new(
        &["image-opts"],
        "FILENAME is a list of options (driver=qcow2,file.filename=a.img) and not a name",
    );
    pub(super) const FORCE_SHARE: Flag =
        Flag::new(&["force-share"], "open an image that another program is writing to").short(b'U');
}

/// The flags of a command that are known: those that qemu-img has not only if `own`.
pub(crate) fn known<K: Copy>(table: &[(K, Flag)], own: bool) -> Vec<(K, Flag)> {
    table.iter().filter(|(_, flag)| own || !flag.own).copied().collect()
}

/// Goes through the flags of a command, giving each to `take`, and returns its operands.
fn parse<K: Copy + PartialEq>(
    table: &[(K, Flag)],
    args: Vec<OsString>,
    take: impl FnMut(K, OsString) -> Result<(), Stop>,
) -> Result<Vec<OsString>, Stop> {
    parse_in(Order::Permute, table, args, take)
}

fn parse_in<K: Copy + PartialEq>(
    order: Order,
    table: &[(K, Flag)],
    args: Vec<OsString>,
    mut take: impl FnMut(K, OsString) -> Result<(), Stop>,
) -> Result<Vec<OsString>, Stop> {
    let mut getopt = Getopt::new(table, order, args);
    while let Some((key, value)) = getopt.next_flag()? {
        take(key, value.unwrap_or_default())?;
    }
    Ok(getopt.into_operands())
}

fn text(value: &OsStr) -> String {
    value.to_string_lossy().into_owned()
}

fn output_form(value: &OsStr) -> Result<Form, Stop> {
    let value = text(value);
    Form::parse(&value)
        .ok_or_else(|| Stop::Advice(format!("--output expects 'human' or 'json' not '{value}'")))
}

/// A number of bytes called `what` between 0 and `max`.
fn ranged_size(what: &str, value: &OsStr, max: u64) -> Result<u64, Stop> {
    size_between(what, value, 0, max)
}

/// A number, with a suffix if need be, called `what` between `min` and `max`.
fn size_between(what: &str, value: &OsStr, min: u64, max: u64) -> Result<u64, Stop> {
    let value = text(value);
    match parse_size(&value) {
        Ok(bytes) if (min..=max).contains(&bytes) => Ok(bytes),
        Ok(_) | Err(SizeError::OutOfRange) => {
            Err(Stop::failed(format!("Invalid {what} specified. Must be between {min} and {max}.")))
        }
        Err(SizeError::Malformed) => {
            Err(Stop::failed(format!("Invalid {what} specified: '{value}'.")))
        }
    }
}

/// The largest size of anything, in bytes.
const MAX_SIZE: u64 = i64::MAX.cast_unsigned();
