//! `--for`: what a platform takes, made by its recipe and held against its rules.

use super::args::Args;
use super::{Sources, Trouble};
use crate::class::Class;
use crate::commands::platform::{broken, look_at, report};
use crate::commands::text;
use crate::commands::watch::{Watch, cancel_on_signals};
use crate::epoch::source_date_epoch;
use crate::images::{How, ImageName, Opened};
use crate::message::{Stop, chain, describe, describe_io};
use crate::output::Form;
use rimg::{CacheMode, Creation, FileOptions, FileStorage, Storage as _};
use rimg_convert::{Observer as _, TargetGuard};
use rimg_platform::{ArchiveError, Platform, fill_holes, write_archive};
use std::io::{BufWriter, Write};

/// The size of the target for sources of `bytes`.
pub(super) fn target_size(args: &Args, bytes: u64) -> Result<u64, Stop> {
    let Some(platform) = args.platform else { return Ok(bytes) };
    let size = platform.recipe().size_for(bytes);
    size.ok_or_else(|| Stop::failed(format!("{platform} takes no disk of {bytes} bytes")))
}

/// What is to be done to a target that holds all its data, before it is closed.
pub(super) fn complete(platform: Platform, target: &Opened) -> Result<(), Trouble> {
    if !platform.recipe().without_holes {
        return Ok(());
    }
    let Some(file) = target.disk().file(0) else { return Ok(()) };
    let failed =
        |error| Stop::failed(format!("filling holes: {}", describe(&error))).of(Class::of(&error));
    // What is still in memory makes the file longer.
    let flushed = target.disk().writer().map_or(Ok(()), |writer| writer.flush());
    flushed.and_then(|()| fill_holes(file.as_ref())).map_err(|error| Trouble::Half(failed(error)))
}

/// Holds a target that was closed against the rules of its platform.
pub(super) fn verify(
    platform: Platform,
    name: &ImageName,
    how: &How,
    args: &Args,
    watch: &Watch<'_>,
) -> Result<(), Stop> {
    let how =
        How { writable: false, shares_raw: false, cache: CacheMode::Writeback, ..how.clone() };
    let verdicts = look_at(platform, name, &how)?;
    if !args.quiet {
        watch.print(&report(&verdicts, Form::Human));
    }
    match broken(&verdicts) {
        0 => Ok(()),
        some => {
            let message = format!("{}: {some} rules of {platform} are broken", name.shown());
            Err(Stop::failed(message))
        }
    }
}

/// Makes the archive that Compute Engine takes.
pub(super) fn to_archive(platform: Platform, args: &Args, watch: &Watch<'_>) -> Result<(), Stop> {
    let sources = Sources::open(args)?;
    let [source] = sources.images()[..] else {
        return Err(Stop::failed(format!("--for {platform} takes one source")));
    };
    if sources.include(&args.target) {
        return Err(Stop::failed(format!("'{}' is a source, too", text(&args.target))));
    }
    let size = target_size(args, source.size_bytes())?;
    let mtime = source_date_epoch().map_err(Stop::failed)?.map_or(0, u64::from);
    let cancel = cancel_on_signals()?;
    let failed = |doing: &str, error: &std::io::Error| {
        Stop::failed(format!("{}: {doing}: {}", text(&args.target), describe_io(error)))
            .of(Class::of(error))
    };
    let name = ImageName::parse(&args.target, false, &mut How::default())?;
    let Some(path) = name.path() else {
        return Err(Stop::failed(format!("{platform} takes an archive in a local file")));
    };
    // Whoever has the file open keeps it as it is.
    let options = FileOptions { creation: Creation::CreateOrEmpty, ..FileOptions::write() };
    let file = FileStorage::open(path, options)
        .map_err(|error| failed("Could not create file", &error))?;
    let Some(file) = file.local_file() else {
        return Err(Stop::failed(format!("{platform} takes an archive in a local file")));
    };
    let guard = TargetGuard::created([path]);
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = write_archive(
        source,
        size,
        mtime,
        &mut out,
        &mut |done| watch.progress(done, size),
        &cancel,
    );
    let written = written.map_err(|error| match error {
        ArchiveError::Cancelled => Stop::interrupted(),
        error => Stop::failed(format!("{}: {}", text(&args.target), chain(&error))),
    });
    let written = written.and_then(|()| {
        let synced = out.flush().and_then(|()| out.get_ref().sync_all());
        synced.map_err(|error| failed("writing", &error))
    });
    let kept = written.and_then(|()| verify(platform, &name, &How::default(), args, watch));
    match kept {
        Ok(()) => {
            guard.complete();
            Ok(())
        }
        Err(stop) => Err(watch.half_made(stop, guard)),
    }
}
