//! `commit`: what an overlay holds into an image below it.

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::watch::{Watch, cancel_on_signals};
use crate::commands::{Command, MAX_SIZE, common, parse, ranged_size, text};
use crate::images::{self, How, ImageName, Opened, combine};
use crate::message::{Stop, describe_io};
use crate::program::Run;
use crate::secrets::add_object;
use rimg_convert::{CommitOptions, ConvertError, commit};
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::Path;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "commit",
        summary: "Write what an image holds into the one below it",
        usage: "[-f FMT | --image-opts] [-t CACHE] [-b BASE_IMG] [-r RATE] [-d] [-p] [-q] \
                [--object OBJDEF] FILENAME",
        own_usage: "",
        operands: &[("FILENAME", "the image whose contents go down")],
        own_operands: &[],
        examples: &[
            Example {
                does: "Write an overlay into its backing image, and empty it",
                line: "commit overlay.qcow2",
            },
            Example {
                does: "Write all layers above a base into it",
                line: "commit -b base.qcow2 top.qcow2",
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
    Drop,
    Base,
    Rate,
    Object,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, common::QUIET),
    (Key::Progress, Flag::new(&["progress"], "show how far the work is").short(b'p')),
    (Key::Format, common::FORMAT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (
        Key::Cache,
        Flag::new(&["cache"], "how the images are written: writeback (the default), none, ...")
            .short(b't')
            .value("CACHE"),
    ),
    (Key::Drop, Flag::new(&["drop"], "do not empty FILENAME afterwards").short(b'd')),
    (
        Key::Base,
        Flag::new(
            &["base"],
            "the image of the chain to write into, in place of the next one (implies --drop)",
        )
        .short(b'b')
        .value("BASE_IMG"),
    ),
    (
        Key::Rate,
        Flag::new(&["rate"], "write so many bytes a second at most").short(b'r').value("RATE"),
    ),
    (Key::Object, common::OBJECT),
];

fn run(run: &mut Run<'_>, words: Vec<OsString>) -> Result<u8, Stop> {
    let mut how = How { writable: true, ..How::default() };
    let (mut quiet, mut progress, mut image_opts, mut drop) = (false, false, false, false);
    let (mut base, mut cache) = (None, None);
    let mut options = CommitOptions::default();
    let operands = parse(FLAGS, words, |key, value| {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Quiet => quiet = true,
            Key::Progress => progress = true,
            Key::Format => how.format = Some(text(&value)),
            Key::ImageOpts => image_opts = true,
            Key::Cache => cache = Some(text(&value)),
            Key::Drop => drop = true,
            Key::Base => base = Some(text(&value)),
            Key::Rate => {
                let rate = ranged_size("rate limit", &value, MAX_SIZE)?;
                options.bytes_per_second = NonZeroU64::new(rate);
            }
            Key::Object => add_object(&mut how.options, &value)?,
        }
        Ok(())
    })?;
    let [filename] = operands.as_slice() else {
        return Err(Stop::Advice("Expecting one image file name".to_owned()));
    };
    options.keep = drop || base.is_some();
    let watch = Watch::new(run, run.progress(progress && !quiet, 1.0));
    watch.show(0.0);
    let committed = images::image_cache(cache.as_deref()).and_then(|cache| {
        how.cache = cache;
        let name = ImageName::parse(filename, image_opts, &mut how)?;
        commit_image(&name, how, base.as_deref(), options, &watch)
    });
    if committed.is_ok() {
        watch.show(100.0);
    }
    watch.end();
    committed?;
    if !quiet {
        run.print("Image committed.\n")?;
    }
    Ok(0)
}

fn commit_image(
    name: &ImageName,
    mut how: How,
    base: Option<&str>,
    mut options: CommitOptions,
    watch: &Watch<'_>,
) -> Result<(), Stop> {
    let looked_at = images::open(name, &how)?;
    looked_at.warn_if_guessed();
    options.depth = match base {
        None => 1,
        Some(base) => depth_of(&looked_at, base).ok_or_else(|| {
            let filename = &looked_at.filename;
            Stop::failed(format!("Did not find '{base}' in the backing chain of '{filename}'"))
        })?,
    };
    if looked_at.disk().backing().is_none() {
        return Err(Stop::failed("Image does not have a backing file"));
    }
    drop(looked_at);
    how.writable_depth = u32::try_from(options.depth).ok();
    let overlay = images::open_or_reason(name, &how).map_err(|reason| {
        // It could be opened for reading: this is about the base alone.
        let text = reason.text.rsplit("Could not open backing file: ").next().unwrap_or_default();
        Stop::failed(text).of(reason.class)
    })?;
    let cancel = cancel_on_signals()?;
    let base = overlay.file_name(options.depth, 0);
    commit(overlay.disk(), &options, watch, &cancel).map_err(|error| match error {
        ConvertError::Cancelled => Stop::interrupted(),
        // Where the system refused something, these are qemu-img's words for all of it.
        other => match other.as_io() {
            Some(io) => {
                let what = match other {
                    ConvertError::Empty { .. } => {
                        format!("Failed to empty {}", overlay.filename)
                    }
                    _ => "Block job failed".to_owned(),
                };
                let stop = Stop::failed(format!("{what}: {}", describe_io(io)));
                let stop = stop.of(Class::of(io));
                match other {
                    ConvertError::Write { .. } | ConvertError::Target { .. } => {
                        stop.in_image(&base)
                    }
                    _ => stop,
                }
            }
            None => Stop::caused_by(&other),
        },
    })?;
    overlay.close()
}

/// Which image of the chain is called `base`, as seen from the image above it: by its name there
/// or any other name of the same file.
fn depth_of(top: &Opened, base: &str) -> Option<usize> {
    let layers = top.image.layers();
    let same_file = |name: &str, path: &Path| {
        let canonical = |path: &Path| path.canonicalize().ok();
        canonical(name.as_ref()).is_some_and(|found| canonical(path) == Some(found))
    };
    let is_called = |above: &rimg::Layer, path: &Path| {
        let above = above.path.as_deref().map(|path| path.to_string_lossy());
        same_file(&combine(above.as_deref().unwrap_or_default(), base), path)
    };
    let below = layers.iter().zip(layers.iter().skip(1));
    let found = below.map(|(above, layer)| {
        layer.path.as_deref().is_some_and(|path| !base.is_empty() && is_called(above, path))
    });
    found.into_iter().position(|found| found).map(|index| index.saturating_add(1))
}
