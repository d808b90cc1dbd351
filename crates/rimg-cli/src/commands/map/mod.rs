//! `map`: which parts of the guest's disk are stored, and where.

mod holes;
mod picture;
mod unsaid;

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::{Command, MAX_SIZE, common, known, output_form, parse, ranged_size, text};
use crate::images::{self, How, ImageName, Opened};
use crate::message::{Stop, describe};
use crate::output::Form;
use crate::output::map::{HEADING, human_row, json_row};
use crate::program::Run;
use crate::secrets::add_object;
use holes::Holes;
use rimg::{MapEntries, MapEntry};
use std::ffi::OsString;
use std::ops::Range;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "map",
        summary: "Show which parts of an image are stored, and where",
        usage: "[-f FMT | --image-opts] [--object OBJDEF] [--output human|json] \
                [--start-offset OFFSET] [--max-length LENGTH] [-U] FILENAME",
        own_usage: "--picture [-o FILE.svg] ... FILENAME",
        operands: &[("FILENAME", "the image")],
        own_operands: &[],
        examples: &[
            Example { does: "List what is stored", line: "map disk.qcow2" },
            Example {
                does: "List everything in the first GiB, for a program",
                line: "map --output=json --max-length 1G disk.qcow2",
            },
            Example {
                does: "See how an image and the images below it share the disk",
                line: "map --picture top.qcow2",
            },
            Example {
                does: "Draw how scattered an image lies in its file",
                line: "map --picture -o disk.svg disk.qcow2",
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
    Object,
    ImageOpts,
    ForceShare,
    StartOffset,
    MaxLength,
    Picture,
    PictureFile,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Format, common::FORMAT),
    (Key::Output, common::OUTPUT),
    (Key::Object, common::OBJECT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (Key::ForceShare, common::FORCE_SHARE),
    (
        Key::StartOffset,
        Flag::new(&["start-offset"], "begin at this byte").short(b's').value("OFFSET"),
    ),
    (
        Key::MaxLength,
        Flag::new(&["max-length"], "end after this many bytes").short(b'l').value("LENGTH"),
    ),
    (
        Key::Picture,
        Flag::new(&["picture"], "draw it: data, zeroes, compression, images below, pieces").own(),
    ),
    (
        Key::PictureFile,
        Flag::new(&[], "draw it into this file, as SVG").short(b'o').value("FILE").own(),
    ),
];

fn run(run: &mut Run<'_>, args: Vec<OsString>) -> Result<u8, Stop> {
    let mut how = How::default();
    let mut form = Form::Human;
    let mut image_opts = false;
    let (mut start, mut max_length) = (0, MAX_SIZE);
    let (mut is_picture, mut picture_file) = (false, None);
    let operands = parse(&known(FLAGS, run.has_own()), args, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Format => how.format = Some(text(&value)),
            Key::Output => form = output_form(&value)?,
            Key::Object => add_object(&mut how.options, &value)?,
            Key::ImageOpts => image_opts = true,
            Key::ForceShare => how.force_share = true,
            Key::StartOffset => start = ranged_size("start offset", &value, MAX_SIZE)?,
            Key::Picture => is_picture = true,
            Key::PictureFile => picture_file = Some(value),
            Key::MaxLength => max_length = ranged_size("max length", &value, MAX_SIZE)?,
        }
        Ok(())
    })?;
    let [name] = operands.as_slice() else {
        return Err(Stop::Advice("Expecting one image file name".to_owned()));
    };
    if picture_file.is_some() && !is_picture {
        return Err(Stop::Advice("-o is for --picture".to_owned()));
    }
    let name = ImageName::parse(name, image_opts, &mut how)?;
    let name = name.below_filter(&mut how).map_err(Stop::failed)?;
    let opened = images::open(&name, &how)?;
    let end = start.saturating_add(max_length).min(opened.disk().size_bytes());
    if is_picture {
        picture::draw(run, &opened, start..end.max(start), picture_file.as_deref())?;
        return Ok(0);
    }
    let all = entries(&opened, start..end);
    let entries: Box<dyn Iterator<Item = _>> = match run.has_own() {
        true => Box::new(all),
        false => Box::new(unsaid::as_qemu_knows(&opened, all)),
    };
    match form {
        Form::Human => print_table(run, &opened, entries),
        Form::Json => print_json(run, start..end, entries),
    }?;
    Ok(0)
}

fn print_table(
    run: &mut Run<'_>,
    opened: &Opened,
    entries: impl Iterator<Item = Result<MapEntry, Stop>>,
) -> Result<(), Stop> {
    run.print(HEADING)?;
    let mut text = String::new();
    let mut names = FileNames { opened, last: None };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(stop) => {
                run.print(&text)?;
                return Err(stop);
            }
        };
        if !entry.data || entry.zero {
            continue;
        }
        let Some(place) = entry.place else {
            run.print(&text)?;
            let message = "File contains external, encrypted or compressed clusters.";
            return Err(Stop::failed(message));
        };
        human_row(&mut text, &entry, place.host.0, names.get(entry.depth, place.file));
        print_if_long(run, &mut text)?;
    }
    run.print(&text)
}

/// The names of files, of which one is mostly asked for again and again.
struct FileNames<'a> {
    opened: &'a Opened,
    last: Option<((usize, u16), String)>,
}

impl FileNames<'_> {
    fn get(&mut self, depth: usize, file: u16) -> &str {
        let wanted = (depth, file);
        if self.last.as_ref().is_none_or(|(known, _)| *known != wanted) {
            self.last = Some((wanted, self.opened.file_name(depth, file)));
        }
        self.last.as_ref().map_or("", |(_, name)| name)
    }
}

fn print_json(
    run: &mut Run<'_>,
    range: Range<u64>,
    entries: impl Iterator<Item = Result<MapEntry, Stop>>,
) -> Result<(), Stop> {
    let mut text = String::from("[");
    if range.is_empty() {
        json_row(&mut text, &nothing_at(range.start));
    }
    let mut separator = "";
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(stop) => {
                run.print(&text)?;
                return Err(stop);
            }
        };
        text.push_str(separator);
        json_row(&mut text, &entry);
        separator = ",\n";
        print_if_long(run, &mut text)?;
    }
    text.push_str("]\n");
    run.print(&text)
}

/// Prints what has gathered, once that is worth a system call.
fn print_if_long(run: &mut Run<'_>, text: &mut String) -> Result<(), Stop> {
    const LONG: usize = 64 << 10;
    if text.len() >= LONG {
        run.print(text)?;
        text.clear();
    }
    Ok(())
}

fn entries(opened: &Opened, range: Range<u64>) -> impl Iterator<Item = Result<MapEntry, Stop>> {
    let mut entries = MapEntries::within(opened.disk(), range);
    let disk = opened.disk();
    let is_served = !opened.is_local() && opened.format_at(0) == "raw";
    let server = disk.file(0).filter(|_| is_served).map(|file| &**file);
    let mut holes = Holes::new(disk, server);
    let failed = |error| {
        Stop::failed(format!("Could not read file metadata: {}", describe(&error)))
            .of(Class::of(&error))
    };
    std::iter::from_fn(move || {
        loop {
            if let Some(piece) = holes.next_piece() {
                return Some(Ok(piece));
            }
            let entry = entries.next()?.map(|entry| as_shown(opened, entry));
            if let Err(error) = entry.and_then(|entry| holes.cut(entry)) {
                return Some(Err(failed(error)));
            }
        }
    })
}

/// Holes in the files of flat extents are data that is zero, unlike those of raw images. What a
/// server calls a hole but not zero has nothing.
fn as_shown(opened: &Opened, entry: MapEntry) -> MapEntry {
    let is_raw = opened.format_at(entry.depth) == "raw";
    if is_raw && entry.data && entry.place.is_none() {
        return MapEntry { present: false, data: false, ..entry };
    }
    let is_flat = entry.zero && entry.place.is_some() && opened.format_at(entry.depth) == "vmdk";
    MapEntry { data: entry.data || is_flat, ..entry }
}

/// What is shown of a range that holds nothing.
const fn nothing_at(start: u64) -> MapEntry {
    MapEntry {
        start,
        len_bytes: 0,
        depth: 0,
        present: false,
        zero: false,
        data: false,
        compressed: false,
        place: None,
    }
}
