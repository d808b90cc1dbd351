//! `resize`: makes a disk larger or smaller.

use crate::args::{CommandHelp, Example, Flag, Order};
use crate::class::Class;
use crate::commands::{Command, common, parse_in, text};
use crate::images::{self, How, ImageName};
use crate::message::{Stop, describe};
use crate::options::size_error;
use crate::program::Run;
use crate::secrets::add_object;
use crate::size::{SizeError, parse_size};
use rimg_core::{Error, Preallocation, op};
use std::ffi::OsString;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "resize",
        summary: "Make a disk larger or smaller",
        usage: "[-f FMT | --image-opts] [--preallocation PREALLOC] [--shrink] [--object OBJDEF] \
                [-q] FILENAME [+-]SIZE[bkKMGTPE]",
        own_usage: "",
        operands: &[
            ("FILENAME", "the image"),
            (
                "[+-]SIZE",
                "how large the disk becomes, or with a sign by how much it grows or shrinks, with \
                 an optional suffix (in powers of 1024)",
            ),
        ],
        own_operands: &[],
        examples: &[
            Example { does: "Make a disk 10 GiB larger", line: "resize disk.qcow2 +10G" },
            Example {
                does: "Give up everything behind the first 5 GiB",
                line: "resize --shrink disk.qcow2 5G",
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
    Shrink,
    Preallocation,
    Object,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, common::QUIET),
    (Key::Format, common::FORMAT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (Key::Shrink, Flag::new(&["shrink"], "allow the disk to lose its end")),
    (
        Key::Preallocation,
        Flag::new(
            &["preallocation"],
            "how much space the new part takes: off (the default), metadata, falloc, full",
        )
        .value("PREALLOC"),
    ),
    (Key::Object, common::OBJECT),
];

/// A size, or a step from the size that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Size(i64),
    Step(i64),
}

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    let mut how = How { writable: true, ..How::default() };
    let (mut quiet, mut image_opts, mut shrink) = (false, false, false);
    let mut preallocation = Preallocation::Off;
    let operands = parse_in(Order::PermuteBeforeNumber, FLAGS, args, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Quiet => quiet = true,
            Key::Format => how.format = Some(text(&value)),
            Key::ImageOpts => image_opts = true,
            Key::Shrink => shrink = true,
            Key::Preallocation => {
                let name = text(&value);
                preallocation = Preallocation::from_name(&name)
                    .ok_or_else(|| Stop::failed(format!("Invalid preallocation mode '{name}'")))?;
            }
            Key::Object => return add_object(&mut how.options, &value),
        }
        Ok(())
    })?;
    let (name, size) = match operands.as_slice() {
        [name, size] => (name, size),
        [_, _, _, ..] => {
            return Err(Stop::Advice("Extra argument(s) in command line".to_owned()));
        }
        _ => return Err(Stop::Advice("Expecting image file name and size".to_owned())),
    };
    if image_opts && how.format.is_some() {
        return Err(Stop::failed("--image-opts and --format are mutually exclusive"));
    }
    let wanted = wanted(&text(size))?;
    let name = ImageName::parse(name, image_opts, &mut how)?;
    let opened = images::open(&name, &how)?;
    opened.warn_if_guessed();
    let old = opened.disk().size_bytes().cast_signed();
    // As qemu-img adds them: what does not fit is below zero, and refused.
    let new = match wanted {
        Wanted::Size(size) => size,
        Wanted::Step(step) => old.wrapping_add(step),
    };
    if new <= 0 {
        return Err(Stop::failed("New image size must be positive"));
    }
    if new <= old && preallocation != Preallocation::Off {
        return Err(Stop::failed("Preallocation can only be used for growing images"));
    }
    if new < old && !shrink {
        run.say("Use the --shrink option to perform a shrink operation.");
        return Err(Stop::failed(
            "warning: Shrinking an image will delete all data beyond the shrunken image's end. \
             Before performing such an operation, make sure there is no important data there.",
        ));
    }
    let Some(resizer) = opened.disk().resizer() else {
        return Err(Stop::failed("Image format driver does not support resize"));
    };
    if opened.is_raw_over("nbd") {
        return Err(Stop::failed("Cannot resize NBD nodes"));
    }
    resizer.resize(new.cast_unsigned(), preallocation).map_err(|error| match error {
        Error::Limit { what: "L1 table in bytes", .. } => {
            Stop::failed("Failed to grow the L1 table: File too large")
        }
        error => {
            let stop = Stop::failed(reason(&error, opened.format())).of(Class::of(&error));
            stop.in_image(&opened.filename)
        }
    })?;
    opened.close()?;
    if !quiet {
        run.print("Image resized.\n")?;
    }
    Ok(0)
}

/// Why the size could not be changed: qemu-img says of some formats whose part it was.
fn reason(error: &Error, format: &str) -> String {
    let reason = describe(error);
    match error {
        Error::Io { op: op::RESERVE_SPACE | op::WRITE_RESERVED_ZEROES, .. }
            if format == "qcow2" =>
        {
            format!("Failed to resize underlying file: {reason}")
        }
        Error::Io { op: op::GROW_L1_TABLE, .. } => format!("Failed to grow the L1 table: {reason}"),
        _ => reason,
    }
}

fn wanted(size: &str) -> Result<Wanted, Stop> {
    let (sign, digits) = match size.as_bytes().first() {
        Some(b'+') => (1, size.get(1..).unwrap_or_default()),
        Some(b'-') => (-1, size.get(1..).unwrap_or_default()),
        _ => (0, size),
    };
    let refused = |error| Stop::failed(size_error("size", digits, error));
    if digits.starts_with('-') {
        return Err(refused(SizeError::Malformed));
    }
    let bytes = parse_size(digits).map_err(refused)?.cast_signed();
    Ok(if sign == 0 { Wanted::Size(bytes) } else { Wanted::Step(bytes.wrapping_mul(sign)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_makes_a_step() {
        let read = |text| wanted(text).ok();
        assert_eq!(read("1k"), Some(Wanted::Size(1024)));
        assert_eq!(read("+1k"), Some(Wanted::Step(1024)));
        assert_eq!(read("-1k"), Some(Wanted::Step(-1024)));
        assert_eq!(read("9E"), Some(Wanted::Size(i64::MIN + (1 << 60))));
        assert_eq!(read("k"), None);
    }
}
