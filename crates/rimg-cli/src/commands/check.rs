//! `check`: whether an image's metadata holds together.

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::{Command, common, known, output_form, parse, platform, text};
use crate::images::{self, How, ImageName};
use crate::message::Stop;
use crate::output::Form;
use crate::output::check as output;
use crate::program::Run;
use crate::secrets::add_object;
use rimg_core::{CheckSummary, Error, Finding, Repair};
use std::ffi::OsString;
use std::io::{self, Write};

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "check",
        summary: "Check that an image's metadata holds together",
        usage: "[-f FMT | --image-opts] [-T CACHE_MODE] [-r leaks|all] [-q] [-U] \
                [--output human|json] [--object OBJDEF] FILENAME",
        own_usage: "--for PLATFORM [-f FMT] [-q] [-U] [--output human|json] FILENAME",
        operands: &[("FILENAME", "the image")],
        own_operands: &[],
        examples: &[
            Example { does: "Check an image", line: "check disk.qcow2" },
            Example { does: "Check an image and repair it", line: "check -r all disk.qcow2" },
            Example {
                does: "Check an image, for a program",
                line: "check --output=json disk.qcow2",
            },
            Example {
                does: "See whether Azure would take a disk",
                line: "check --for azure disk.vhd",
            },
        ],
        flags: || FLAGS.iter().map(|(_, flag)| *flag).collect(),
    },
    run,
};

/// The exit codes of `check`.
mod exit {
    pub(super) const CLEAN: u8 = 0;
    pub(super) const NOT_DONE: u8 = 1;
    pub(super) const CORRUPT: u8 = 2;
    pub(super) const LEAKS: u8 = 3;
    pub(super) const NO_CHECK: u8 = 63;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Help,
    Quiet,
    Format,
    Cache,
    Repair,
    Output,
    Object,
    ImageOpts,
    ForceShare,
    For,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, common::QUIET),
    (Key::Format, common::FORMAT),
    (
        Key::Cache,
        Flag::new(&["cache"], "how the image is read: writeback (the default), none, ...")
            .short(b'T')
            .value("CACHE_MODE"),
    ),
    (
        Key::Repair,
        Flag::new(
            &["repair"],
            "repair clusters that nobody uses (leaks), or everything that can be (all)",
        )
        .short(b'r')
        .value("leaks|all"),
    ),
    (Key::Output, common::OUTPUT),
    (Key::Object, common::OBJECT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (Key::ForceShare, common::FORCE_SHARE),
    (
        Key::For,
        Flag::new(
            &["for"],
            "check instead whether this platform takes the image: azure, aws, gcp, vsphere, hyperv, \
             virtualbox or openstack",
        )
        .value("PLATFORM")
        .own(),
    ),
];

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    let mut how = How::default();
    let mut form = Form::Human;
    let (mut quiet, mut image_opts) = (false, false);
    let mut repair = Repair::Nothing;
    let mut cache = None;
    let mut wanted_by = None;
    let operands = parse(&known(FLAGS, run.has_own()), args, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Quiet => quiet = true,
            Key::Format => how.format = Some(text(&value)),
            Key::Cache => cache = Some(text(&value)),
            Key::Repair => match text(&value).as_str() {
                "leaks" => repair = Repair::Leaks,
                "all" => repair = Repair::All,
                other => {
                    let expected = "--repair (-r) expects 'leaks' or 'all'";
                    return Err(Stop::Advice(format!("{expected} not '{other}'")));
                }
            },
            Key::Output => form = output_form(&value)?,
            Key::Object => add_object(&mut how.options, &value)?,
            Key::ImageOpts => image_opts = true,
            Key::ForceShare => how.force_share = true,
            Key::For => wanted_by = Some(platform::platform(&text(&value))?),
        }
        Ok(())
    })?;
    let [operand] = operands.as_slice() else {
        return Err(Stop::Advice("Expecting one image file name".to_owned()));
    };
    how.cache = images::source_cache(cache.as_deref())?;
    if let Some(platform) = wanted_by {
        if repair != Repair::Nothing {
            return Err(Stop::Advice("--for looks, and repairs nothing: leave -r out".to_owned()));
        }
        // Some of what platforms take cannot be told from raw by looking.
        how.format = how.format.or(platform.recipe().format.map(str::to_owned));
        let name = ImageName::parse(operand, image_opts, &mut how)?;
        let verdicts = platform::look_at(platform, &name, &how)?;
        if !quiet {
            run.print(&platform::report(&verdicts, form))?;
        }
        return Ok(if platform::broken(&verdicts) == 0 { exit::CLEAN } else { exit::CORRUPT });
    }
    // What is wrong with an image must not keep it from being checked.
    how.metadata_only = true;
    how.writable = repair != Repair::Nothing;
    let name = ImageName::parse(operand, image_opts, &mut how)?;
    let opened = images::open(&name, &how)?;
    opened.warn_if_guessed();
    let Some(checker) = opened.disk().checker() else {
        let message = "This image format does not support checks";
        return Err(Stop::failed(message).with_exit(exit::NO_CHECK));
    };
    let has_own = run.has_own();
    let look = |repair| {
        let tell = &mut |finding: &Finding| {
            if finding.wordless_in_qemu && !has_own {
                return;
            }
            // Findings are diagnostics: nothing can be done when nobody reads them.
            let _ = writeln!(io::stderr(), "{}{}", finding.message, output::hint(&finding.message));
        };
        checker.check(repair, tell)
    };
    let mut summary = look(repair).map_err(|error| failed(run, &opened.filename, &error))?;
    let CheckSummary { corruptions_fixed, leaks_fixed, .. } = summary;
    if corruptions_fixed > 0 || leaks_fixed > 0 {
        if !quiet && form == Form::Human {
            run.print(&output::repaired(&summary))?;
        }
        summary = look(Repair::Nothing).map_err(|error| failed(run, &opened.filename, &error))?;
        summary.corruptions_fixed = corruptions_fixed;
        summary.leaks_fixed = leaks_fixed;
    }
    if summary.check_errors > 0 {
        run.say("Check failed");
    }
    if !quiet {
        let printed = match form {
            Form::Human => output::human(&summary),
            Form::Json => output::json(name.given(), opened.format(), &summary),
        };
        run.print(&printed)?;
    }
    Ok(exit_code(&summary))
}

/// A check that could not be finished.
fn failed(run: &Run<'_>, name: &str, error: &Error) -> Stop {
    let (before, reason) = output::failure(error);
    if let Some(before) = before {
        run.say(&before);
    }
    let stop = Stop::failed(format!("Check failed: {reason}")).with_exit(exit::NOT_DONE);
    stop.of(Class::of(error)).in_image(name)
}

const fn exit_code(summary: &CheckSummary) -> u8 {
    match summary {
        CheckSummary { check_errors: 1.., .. } => exit::NOT_DONE,
        CheckSummary { corruptions: 1.., .. } => exit::CORRUPT,
        CheckSummary { leaks: 1.., .. } => exit::LEAKS,
        _ => exit::CLEAN,
    }
}
