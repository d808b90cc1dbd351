//! `checksum`: the hash of what the guest sees.

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::watch::{Watch, cancel_on_signals};
use crate::commands::{Command, common, parse, text};
use crate::images::{self, How, ImageName};
use crate::message::{Stop, chain};
use crate::program::Run;
use crate::secrets::add_object;
use rimg::RawOptions;
use rimg_convert::{ChecksumOptions, ConvertError, checksum};
use rimg_crypto::Hash;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "checksum",
        summary: "Print the hash of what the guest sees: the same for every format",
        usage: "",
        own_usage: "[-f FMT | --image-opts] [-a ALGORITHM] [-T CACHE] [-U] [--object OBJDEF] [-p] \
                    [-q] FILENAME [FILENAME2 ...]",
        operands: &[("FILENAME", "the images; a line is printed for each, as sha256sum does")],
        own_operands: &[],
        examples: &[
            Example {
                does: "The same as: qemu-img convert -O raw disk.qcow2 disk.raw; sha256sum disk.raw",
                line: "checksum disk.qcow2",
            },
            Example {
                does: "See whether two images hold the same, and are of the same size",
                line: "checksum -a sha512 disk.vmdk disk.vhdx",
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
    Format,
    ImageOpts,
    Algorithm,
    Cache,
    ForceShare,
    Object,
    Progress,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, Flag::new(&["quiet"], "show no progress").short(b'q')),
    (Key::Format, common::FORMAT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (
        Key::Algorithm,
        Flag::new(&["algorithm"], "sha256 (the default), sha1, sha224, sha384, sha512, md5, ...")
            .short(b'a')
            .value("ALGORITHM"),
    ),
    (
        Key::Cache,
        Flag::new(&["cache"], "how the images are read: writeback (the default), none, ...")
            .short(b'T')
            .value("CACHE"),
    ),
    (Key::ForceShare, common::FORCE_SHARE),
    (Key::Object, common::OBJECT),
    (Key::Progress, Flag::new(&["progress"], "show how far the work is").short(b'p')),
];

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    // A hash of what somebody is writing to is that of no state of it.
    let mut how = How { shares_raw: false, ..How::default() };
    let (mut quiet, mut progress, mut image_opts) = (false, false, false);
    let (mut cache, mut hash) = (None, Hash::Sha256);
    let mut secrets = RawOptions::new();
    let names = parse(FLAGS, args, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Quiet => quiet = true,
            Key::Format => how.format = Some(text(&value)),
            Key::ImageOpts => image_opts = true,
            Key::Algorithm => hash = algorithm(&value)?,
            Key::Cache => cache = Some(text(&value)),
            Key::ForceShare => how.force_share = true,
            Key::Object => add_object(&mut secrets, &value)?,
            Key::Progress => progress = true,
        }
        Ok(())
    })?;
    if names.is_empty() {
        return Err(Stop::Advice("Expecting at least one image file name".to_owned()));
    }
    how.cache = images::source_cache(cache.as_deref())?;
    how.options.add(&secrets);
    let cancel = cancel_on_signals()?;
    let watch = Watch::new(run, run.progress(progress && !quiet, 1.0));
    for name in names {
        let mut how = how.clone();
        let name = ImageName::parse(&name, image_opts, &mut how)?;
        let opened = images::open(&name, &how)?;
        let options = ChecksumOptions::default();
        let digest = checksum(&[opened.disk()], hash, &options, &watch, &cancel)
            .map_err(|error| explain(&error, &opened.filename))?;
        watch.print(&format!("{}  {}\n", hex(&digest), opened.filename));
    }
    watch.end();
    Ok(0)
}

fn algorithm(value: &OsStr) -> Result<Hash, Stop> {
    let name = text(value);
    Hash::from_name(&name).ok_or_else(|| {
        let names: Vec<_> = Hash::ALL.iter().map(|hash| hash.name()).collect();
        let known = names.join(", ");
        Stop::Advice(format!("Unknown algorithm '{name}'; known are {known}"))
    })
}

fn explain(error: &ConvertError, filename: &str) -> Stop {
    match error {
        ConvertError::Cancelled => Stop::interrupted(),
        other => Stop::failed(format!("{filename}: {}", chain(other))).of(Class::of(other)),
    }
}

/// Bytes as digests are written.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
