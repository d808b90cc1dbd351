//! `bench`: how long requests to an image take.

use crate::args::{CommandHelp, Example, Flag};
use crate::class::Class;
use crate::commands::{Command, MAX_SIZE, common, parse, ranged_size, size_between, text};
use crate::images::{self, How, ImageName};
use crate::message::{Stop, describe};
use crate::program::Run;
use crate::secrets::add_object;
use rimg::CacheMode;
use rimg_convert::{BenchOptions, bench};
use std::ffi::OsString;
use std::num::NonZeroU64;

pub(super) const COMMAND: Command = Command {
    help: CommandHelp {
        name: "bench",
        summary: "Measure how long requests to an image take",
        usage: "[-f FMT | --image-opts] [-t CACHE] [-c COUNT] [-d DEPTH] [-o OFFSET] \
                [-s BUFFER_SIZE] [-S STEP_SIZE] [-i AIO] [-n] [-w [--pattern PATTERN] \
                [--flush-interval INTERVAL [--no-drain]]] [-q] [-U] FILENAME",
        own_usage: "",
        operands: &[("FILENAME", "the image; with -w its contents are overwritten")],
        own_operands: &[],
        examples: &[Example {
            does: "Read 64 KiB at a time, 16 requests at once",
            line: "bench -c 10000 -d 16 -s 64k disk.qcow2",
        }],
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
    Cache,
    Count,
    BufferSize,
    Depth,
    Offset,
    StepSize,
    Aio,
    Native,
    Write,
    Pattern,
    FlushInterval,
    NoDrain,
    ForceShare,
    Object,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, common::QUIET),
    (Key::Format, common::FORMAT),
    (Key::ImageOpts, common::IMAGE_OPTS),
    (
        Key::Cache,
        Flag::new(&["cache"], "how the image is used: writeback (the default), none, ...")
            .short(b't')
            .value("CACHE"),
    ),
    (
        Key::Count,
        Flag::new(&["count"], "how many requests (default 75000)").short(b'c').value("COUNT"),
    ),
    (
        Key::BufferSize,
        Flag::new(&["buffer-size"], "the size of each (default 4k)")
            .short(b's')
            .value("BUFFER_SIZE"),
    ),
    (
        Key::Depth,
        Flag::new(&["depth"], "how many at the same time (default 64)").short(b'd').value("DEPTH"),
    ),
    (Key::Offset, Flag::new(&["offset"], "where the first one goes").short(b'o').value("OFFSET")),
    (
        Key::StepSize,
        Flag::new(&["step-size"], "how far the next one is from it (default BUFFER_SIZE)")
            .short(b'S')
            .value("STEP_SIZE"),
    ),
    (
        Key::Aio,
        Flag::new(&["aio"], "threads, native or io_uring; accepted, it is always threads")
            .short(b'i')
            .value("AIO"),
    ),
    (Key::Native, Flag::new(&["native"], "the same as -i native").short(b'n')),
    (Key::Write, Flag::new(&["write"], "write in place of reading").short(b'w')),
    (
        Key::Pattern,
        Flag::new(&["pattern"], "write bytes of this value (default 0)").value("PATTERN"),
    ),
    (
        Key::FlushInterval,
        Flag::new(&["flush-interval"], "flush after so many requests").value("INTERVAL"),
    ),
    (Key::NoDrain, Flag::new(&["no-drain"], "do not wait for other requests before a flush")),
    (Key::ForceShare, common::FORCE_SHARE),
    (Key::Object, common::OBJECT),
];

/// The largest of most numbers here.
const MAX_NUMBER: u64 = (1 << 31) - 1;

/// The command line.
struct Args {
    how: How,
    options: BenchOptions,
    image_opts: bool,
    is_write: bool,
    pattern: u8,
    step_bytes: u64,
    native: bool,
}

fn run(run: &mut Run<'_>, words: Vec<OsString>) -> Result<u8, Stop> {
    let mut args = Args {
        how: How::default(),
        options: BenchOptions::default(),
        image_opts: false,
        is_write: false,
        pattern: 0,
        step_bytes: 0,
        native: false,
    };
    let operands = parse(FLAGS, words, |key, value| {
        let number = |what, min| size_between(what, &value, min, MAX_NUMBER);
        let options = &mut args.options;
        match key {
            Key::Help => return Err(Stop::Help),
            // There is nothing that it would silence.
            Key::Quiet => {}
            Key::Format => args.how.format = Some(text(&value)),
            Key::ImageOpts => args.image_opts = true,
            Key::Cache => {
                let mode = CacheMode::from_name(&text(&value));
                args.how.cache = mode.ok_or_else(|| Stop::failed("Invalid cache mode"))?;
            }
            Key::Count => options.count = number("request count", 1)?,
            Key::BufferSize => options.buffer_bytes = number("buffer size", 1)?,
            Key::Depth => {
                options.depth = usize::try_from(number("queue depth", 1)?).unwrap_or(usize::MAX);
            }
            Key::Offset => options.offset = ranged_size("offset", &value, MAX_SIZE)?,
            Key::StepSize => args.step_bytes = number("step size", 0)?,
            Key::Aio => match text(&value).as_str() {
                "threads" | "io_uring" => args.native = false,
                "native" => args.native = true,
                other => return Err(Stop::failed(format!("Invalid aio option: {other}"))),
            },
            Key::Native => args.native = true,
            Key::Write => args.is_write = true,
            Key::Pattern => {
                let byte = size_between("pattern byte", &value, 0, u8::MAX.into())?;
                args.pattern = u8::try_from(byte).unwrap_or_default();
            }
            Key::FlushInterval => {
                options.flush_interval = NonZeroU64::new(number("flush interval", 0)?);
            }
            Key::NoDrain => options.drain = false,
            Key::ForceShare => args.how.force_share = true,
            Key::Object => add_object(&mut args.how.options, &value)?,
        }
        Ok(())
    })?;
    let [filename] = operands.as_slice() else {
        return Err(Stop::Advice("Expecting one image file name".to_owned()));
    };
    bench_image(run, args, filename)?;
    Ok(0)
}

fn bench_image(run: &mut Run<'_>, mut args: Args, filename: &OsString) -> Result<(), Stop> {
    let options = &mut args.options;
    let depth = u64::try_from(options.depth).unwrap_or(u64::MAX);
    match options.flush_interval {
        Some(_) if !args.is_write => {
            return Err(Stop::failed("--flush-interval is only available in write tests"));
        }
        Some(interval) if interval.get() < depth => {
            return Err(Stop::failed("Flush interval can't be smaller than depth"));
        }
        _ => {}
    }
    let name = ImageName::parse(filename, args.image_opts, &mut args.how)?;
    if args.native && !args.how.cache_mode().is_direct() {
        return Err(Stop::failed(format!(
            "Could not open '{}': aio=native was specified, but it requires cache.direct=on, \
             which was not specified.",
            name.given()
        )));
    }
    args.how.writable = args.is_write;
    let image = images::open(&name, &args.how)?;
    image.warn_if_guessed();
    options.write = args.is_write.then_some(args.pattern);
    options.step_bytes = if args.step_bytes == 0 { options.buffer_bytes } else { args.step_bytes };
    run.print(&format!(
        "Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, step size \
         {})\n",
        options.count,
        if args.is_write { "write" } else { "read" },
        options.buffer_bytes,
        options.depth,
        options.offset,
        options.step_bytes
    ))?;
    if let Some(interval) = options.flush_interval {
        run.print(&format!("Sending flush every {interval} requests\n"))?;
    }
    run.show()?;
    let took = bench(image.disk(), options).map_err(|error| {
        Stop::failed(format!("Failed request: {}", describe(&error)))
            .of(Class::of(&error))
            .in_image(&image.filename)
    })?;
    run.print(&format!("Run completed in {:.3} seconds.\n", took.as_secs_f64()))?;
    image.close()
}
