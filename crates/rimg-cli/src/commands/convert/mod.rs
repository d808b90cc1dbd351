//! `convert`: one or more images copied into another one.

mod args;
mod bitmaps;
mod pipe;
mod platform;
mod verify;

use crate::args::{CommandHelp, Example};
use crate::commands::watch::{Watch, cancel_on_signals};
use crate::commands::{Command, create, text};
use crate::images::{self, How, ImageName, Opened, TargetWishes};
use crate::message::Stop;
use crate::program::Run;
use args::{Args, Task};
use bitmaps::BitmapCopies;
use pipe::Pipes;
use rimg::{BlockImage, Layer};
use rimg_convert::{ConvertError, ConvertOptions, TargetBacking, TargetGuard, convert};
use std::ffi::{OsStr, OsString};
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::AtomicBool;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "convert",
        summary: "Copy an image into another one, of another format if need be",
        usage: "[-f SRC_FMT | --image-opts] [-T SRC_CACHE] [-l SNAPSHOT] [-U] [-O TGT_FMT] \
                [-o TGT_OPTS | --target-image-opts] [-t TGT_CACHE] [-n [--target-is-zero]] [-c] \
                [-S SPARSE_SIZE] [-B BACKING_FILENAME -F BACKING_FMT] [-m NUM_COROUTINES] [-W] \
                [-C] [-r RATE] [--bitmaps [--skip-broken-bitmaps]] [--salvage] [-p] [-q] SRC_FILENAME [SRC_FILENAME2 ...] TGT_FILENAME",
        own_usage: "[--for PLATFORM] [--verify] [--size SIZE] ... SRC_FILENAME|- [SRC_FILENAME2 ...] TGT_FILENAME|-",
        operands: &[
            ("SRC_FILENAME", "the image to read; of several, one is put behind the other"),
            ("TGT_FILENAME", "the image to write; what is there already is replaced"),
        ],
        own_operands: &[(
            "-",
            "as SRC_FILENAME, with -f raw: standard input; as TGT_FILENAME: standard output \
                 (./- is a file)",
        )],
        examples: &[
            Example {
                does: "Make a raw image of a qcow2 image",
                line: "convert -f qcow2 -O raw disk.qcow2 disk.raw",
            },
            Example {
                does: "Make a small image to give away",
                line: "convert -c -O qcow2 -o compression_type=zstd disk.raw disk.qcow2",
            },
            Example {
                does: "Write an image to a disk, past the page cache, and show how far it is",
                line: "convert -p -n -t none -O raw disk.qcow2 /dev/sdX",
            },
            Example {
                does: "Convert, and be sure that what was written is what was read",
                line: "convert --verify -O qcow2 disk.vmdk disk.qcow2",
            },
            Example {
                does: "Send an image over the network, in one go and without a temporary file",
                line: "convert -O qcow2 disk.vmdk - | ssh host 'cat > disk.qcow2'",
            },
            Example {
                does: "Make an image of what comes out of a pipe",
                line: "convert -f raw -O qcow2 - disk.qcow2 < /dev/sdX",
            },
            Example {
                does: "Make the VHD that Azure takes, and check that it does",
                line: "convert --for azure disk.qcow2 disk.vhd",
            },
            Example {
                does: "Take the disk out of an internal snapshot",
                line: "convert -l before-upgrade -O raw disk.qcow2 before.raw",
            },
            Example {
                does: "Copy one layer of a chain, onto the same base",
                line: "convert -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 copy.qcow2",
            },
        ],
        flags: args::flags,
    },
    run,
};

/// By how many percent progress has to grow to be printed.
const PROGRESS_STEP: f32 = 1.0;

fn run(run: &mut Run<'_>, words: Vec<OsString>) -> Result<u8, Stop> {
    match Task::parse(words, run.has_own(), &mut |text| run.say(text))? {
        Task::OptionHelp { format, file } => create::print_options(run, &format, file),
        Task::Convert(args) => {
            let pipes = if run.has_own() { Pipes::of(&args)? } else { Pipes::None };
            let wanted = args.progress && !args.quiet;
            let progress = match pipes {
                Pipes::Output => run.progress_beside_output(wanted, PROGRESS_STEP),
                _ => run.progress(wanted, PROGRESS_STEP),
            };
            let watch = Watch::new(run, progress).quiet(args.quiet);
            watch.show(0.0);
            let result = match pipes {
                Pipes::None => match args.platform {
                    Some(platform) if platform.recipe().format.is_none() => {
                        platform::to_archive(platform, &args, &watch)
                    }
                    _ => convert_images(&args, &watch),
                },
                Pipes::Input => pipe::from_input(&args, &watch),
                Pipes::Output => pipe::to_output(&args, &watch),
            };
            if result.is_ok() {
                watch.show(100.0);
            }
            watch.end();
            result.map(|()| 0)
        }
    }
}

fn convert_images(args: &Args, watch: &Watch<'_>) -> Result<(), Stop> {
    let sources = Sources::open(args)?;
    let mut bitmaps = None;
    let plan_bitmaps = || {
        if args.bitmaps {
            bitmaps = Some(BitmapCopies::plan(&sources.opened, args.skip_broken_bitmaps)?);
        }
        Ok(())
    };
    if args.force_share && sources.include(&args.target) {
        // With -U no lock stands between a source and its own end.
        return Err(Stop::failed(format!("'{}' is a source, too", text(&args.target))));
    }
    let options = options(args);
    let cancel = cancel_on_signals()?;
    let size = platform::target_size(args, sources.size_bytes())?;
    let Target { opened: target, guard, name, how } = open_target(args, size, plan_bitmaps)?;
    if let Some(bitmaps) = &bitmaps {
        bitmaps.check_target(&target)?;
    }
    let copied =
        copy(args, &sources, &target, options, watch, &cancel).and_then(|()| match &bitmaps {
            // The data is whole, whatever becomes of these.
            Some(bitmaps) => bitmaps.copy(&target, watch).map_err(Trouble::NotBegun),
            None => Ok(()),
        });
    let completed = copied.and_then(|()| match args.platform {
        Some(platform) => platform::complete(platform, &target),
        None => Ok(()),
    });
    let closed = completed.and_then(|()| target.close().map_err(Trouble::Half));
    let closed = closed.and_then(|()| match args.platform {
        Some(platform) => {
            platform::verify(platform, &name, &how, args, watch).map_err(Trouble::Half)
        }
        None => Ok(()),
    });
    let verified = closed.and_then(|()| match args.verify {
        true => verify::verify(
            &sources.images(),
            sources.size_bytes(),
            (&name, how),
            args.salvage,
            watch,
            &cancel,
        )
        .map_err(Trouble::Half),
        false => Ok(()),
    });
    match verified {
        Ok(()) => {
            guard.complete();
            Ok(())
        }
        // Dropping the guard removes a target that was made for this.
        Err(Trouble::NotBegun(stop)) => Err(stop),
        Err(Trouble::Half(stop)) => Err(watch.half_made(stop, guard)),
    }
}

/// What a failure leaves behind.
enum Trouble {
    /// The target as it was.
    NotBegun(Stop),
    /// A target that holds a part.
    Half(Stop),
}

fn copy(
    args: &Args,
    sources: &Sources,
    target: &Opened,
    mut options: ConvertOptions,
    watch: &Watch<'_>,
    cancel: &AtomicBool,
) -> Result<(), Trouble> {
    if options.compress && target.disk().info().is_ok_and(|info| info.cluster_bytes.is_none()) {
        return Err(Trouble::Half(Stop::failed("invalid cluster size")));
    }
    // Of VMDKs some kinds compress; for the other sparse ones qemu-img passes over the wish.
    options.compress &= target.format() != "vmdk" || target.disk().compressor().is_some();
    if let Some(below) = target.disk().backing() {
        if args.target_is_zero && args.backing.is_some() {
            let message =
                "Cannot use --target-is-zero when the destination image has a backing file";
            return Err(Trouble::NotBegun(Stop::failed(message)));
        }
        if !args.no_create || args.backing.is_some() {
            let layers_above = sources.layers_above(target);
            options.backing = Some(TargetBacking { layers_above, size_bytes: below.size_bytes() });
        }
    }
    let images = sources.images();
    convert(&images, target.disk(), &options, watch, cancel).map(|_| ()).map_err(|error| {
        let image = match (&error, sources.opened.as_slice()) {
            (ConvertError::Write { .. } | ConvertError::Target { .. }, _) => Some(target),
            (ConvertError::Read { .. } | ConvertError::Map { .. }, [source]) => Some(source),
            _ => None,
        };
        match (explain(error), image) {
            (Trouble::Half(stop), Some(image)) => Trouble::Half(stop.in_image(&image.filename)),
            (trouble, _) => trouble,
        }
    })
}

fn explain(error: ConvertError) -> Trouble {
    match error {
        ConvertError::Cancelled => Trouble::Half(Stop::interrupted()),
        // Its format could; this image cannot, as its data is another program's to read, too.
        ConvertError::NoCompression => Trouble::NotBegun(Stop::failed(
            "error while writing at byte 0: Operation not supported",
        )),
        ConvertError::Target { doing: "creating" | "laying out", .. }
        | ConvertError::ReadOnly
        | ConvertError::TargetTooSmall { .. }
        | ConvertError::Options(_) => Trouble::NotBegun(Stop::caused_by(&error)),
        other => Trouble::Half(Stop::caused_by(&other)),
    }
}

fn options(args: &Args) -> ConvertOptions {
    let mut options = ConvertOptions::default();
    options.units_in_flight = args.parallel.and_then(NonZeroUsize::new);
    options.sparse_bytes = args.sparse_bytes.unwrap_or(options.sparse_bytes);
    options.compress = args.compress;
    options.target_is_new = !args.no_create;
    options.target_is_zero = args.target_is_zero;
    options.salvage = args.salvage;
    options.copy_offload = args.copy_offload;
    options.bytes_per_second = args.rate.and_then(NonZeroU64::new);
    options
}

/// The images that are read.
struct Sources {
    opened: Vec<Opened>,
    /// The disk as it was, when one is wanted in place of the image as it is.
    snapshot: Option<Box<dyn BlockImage>>,
}

impl Sources {
    fn open(args: &Args) -> Result<Self, Stop> {
        let cache = images::source_cache(args.source_cache.as_deref())?;
        let mut opened = Vec::with_capacity(args.sources.len());
        for source in &args.sources {
            let mut how = How {
                format: args.source_format.clone(),
                force_share: args.force_share,
                shares_raw: false,
                cache,
                options: args.secrets.clone(),
                ..How::default()
            };
            let name = ImageName::parse(source, args.source_image_opts, &mut how)?;
            opened.push(images::open(&name, &how)?);
        }
        let snapshot = match &args.snapshot {
            Some(wanted) => {
                let [image] = opened.as_slice() else {
                    return Err(Stop::failed("No support for concatenating multiple snapshot"));
                };
                Some(wanted.open(image)?)
            }
            None => None,
        };
        Ok(Self { opened, snapshot })
    }

    fn images(&self) -> Vec<&dyn BlockImage> {
        match &self.snapshot {
            Some(snapshot) => vec![snapshot.as_ref()],
            None => self.opened.iter().map(Opened::disk).collect(),
        }
    }

    /// How large the target has to be.
    fn size_bytes(&self) -> u64 {
        let sizes = self.images().into_iter().map(|image| image.size_bytes());
        sizes.fold(0, u64::saturating_add)
    }

    /// Whether one of them lies in the file `path`.
    fn include(&self, path: &OsStr) -> bool {
        self.opened.iter().any(|opened| opened.consists_of(path.as_ref()))
    }

    /// How many layers of the source lie above the target's backing image: one, if nothing else
    /// is known, since the user says that the two belong together.
    fn layers_above(&self, target: &Opened) -> usize {
        let path = |layer: &Layer| images::identity(layer.path.as_ref()?);
        let backing = target.image.layers().get(1).and_then(path);
        let ([source], Some(backing)) = (self.opened.as_slice(), backing) else { return 1 };
        let mut layers = source.image.layers().iter().map(path);
        layers.position(|layer| layer == Some(backing)).map_or(1, |index| index.max(1))
    }
}

/// The image that is written.
struct Target {
    opened: Opened,
    guard: TargetGuard,
    /// How to find it again.
    name: ImageName,
    how: How,
}

/// Makes the target, unless it is there already, and opens it. `check` is asked before anything is
/// made, or opened, but after what can be wrong with options.
fn open_target(
    args: &Args,
    size_bytes: u64,
    check: impl FnOnce() -> Result<(), Stop>,
) -> Result<Target, Stop> {
    let format = args.target_format.as_deref();
    let mut how = How {
        writable: true,
        format: format.map(str::to_owned),
        options: args.secrets.clone(),
        ..How::default()
    };
    if args.no_create {
        let name = ImageName::parse(&args.target, args.target_image_opts, &mut how)?;
        how.format.get_or_insert_with(|| "raw".to_owned());
        if args.backing.is_some() && args.sources.len() > 1 {
            return Err(Stop::failed(images::BACKING_FOR_SEVERAL));
        }
        how.cache = images::target_cache(args.target_cache.as_deref())?;
        check()?;
        let opened = images::open(&name, &how)?;
        if args.compress {
            images::require_compression(opened.format()).map_err(Stop::failed)?;
        }
        let guard = TargetGuard::existing(name.given());
        return Ok(Target { opened, guard, name, how });
    }
    let format = format.unwrap_or("raw");
    let wishes = TargetWishes {
        list: &args.options,
        backing: args.backing.as_deref(),
        backing_format: args.backing_format.as_deref(),
        several_sources: args.sources.len() > 1,
        compress: args.compress,
        secrets: &args.secrets,
    };
    let planned =
        images::plan_target(&args.target, format, wishes, size_bytes).map_err(Stop::failed)?;
    how.cache = images::target_cache(args.target_cache.as_deref())?;
    check()?;
    how.format = Some(format.to_owned());
    how.options = planned.open_options();
    let files = planned.create().map_err(|reason| {
        let filename = text(&args.target);
        let text = reason.text;
        Stop::failed(format!("{filename}: error while converting {format}: {text}"))
            .of(reason.class)
    })?;
    let guard = images::guard(files, &args.target);
    let name = ImageName::parse(&args.target, false, &mut how)?;
    // On failure the guard removes what was made.
    let opened = images::open(&name, &how)?;
    Ok(Target { opened, guard, name, how })
}
