//! What the command line of `convert` says, and what it must not say.

use crate::args::Flag;
use crate::commands::platform::platform;
use crate::commands::snapshot_name::SnapshotName;
use crate::commands::{MAX_SIZE, common, known, parse, ranged_size, text};
use crate::message::Stop;
use crate::options::{OptionList, parse_number};
use crate::secrets::add_object;
use crate::size::{SizeError, parse_size};
use rimg::RawOptions;
use rimg_platform::Platform;
use std::ffi::{OsStr, OsString};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Help,
    Quiet,
    Object,
    SourceImageOpts,
    SourceFormat,
    SourceCache,
    Snapshot,
    SparseSize,
    TargetFormat,
    Options,
    TargetCache,
    Backing,
    BackingFormat,
    ForceShare,
    TargetImageOpts,
    Salvage,
    TargetIsZero,
    Bitmaps,
    SkipBrokenBitmaps,
    Rate,
    Parallel,
    OutOfOrder,
    CopyOffload,
    Compress,
    NoCreate,
    Progress,
    Verify,
    For,
    Size,
}

const FLAGS: &[(Key, Flag)] = &[
    (Key::Help, common::HELP),
    (Key::Quiet, common::QUIET),
    (Key::Object, common::OBJECT),
    (
        Key::SourceImageOpts,
        Flag::new(
            &["image-opts", "source-image-opts"],
            "SRC_FILENAME is a list of options (driver=qcow2,file.filename=a.img) and not a name",
        ),
    ),
    (
        Key::SourceFormat,
        Flag::new(&["source-format"], "the source's format (found by itself when not given)")
            .short(b'f')
            .value("SRC_FMT"),
    ),
    (
        Key::SourceCache,
        Flag::new(&["source-cache"], "how the source is read: writeback (the default), none, ...")
            .short(b'T')
            .value("SRC_CACHE"),
    ),
    (
        Key::Snapshot,
        Flag::new(
            &["snapshot"],
            "read this internal snapshot: its name, its ID, or snapshot.id=ID,snapshot.name=NAME",
        )
        .short(b'l')
        .value("SNAPSHOT"),
    ),
    (
        Key::SparseSize,
        Flag::new(
            &["sparse-size"],
            "leave out runs of so many zeroes (default 4k); 0 writes everything",
        )
        .short(b'S')
        .value("SPARSE_SIZE"),
    ),
    (
        Key::TargetFormat,
        Flag::new(&["output-format"], "the target's format (default raw)")
            .short(b'O')
            .value("TGT_FMT"),
    ),
    (
        Key::Options,
        Flag::new(
            &["options"],
            "options of the target's format, name=value,... ('-o help' lists them)",
        )
        .short(b'o')
        .value("TGT_OPTS"),
    ),
    (
        Key::TargetCache,
        Flag::new(&["output-cache"], "how the target is written: unsafe (the default), none, ...")
            .short(b't')
            .value("TGT_CACHE"),
    ),
    (
        Key::Backing,
        Flag::new(&["backing"], "write only what differs from this backing image of the target")
            .short(b'B')
            .value("BACKING_FILENAME"),
    ),
    (
        Key::BackingFormat,
        Flag::new(&["backing-format"], "the format of BACKING_FILENAME")
            .short(b'F')
            .value("BACKING_FMT"),
    ),
    (Key::ForceShare, common::FORCE_SHARE),
    (
        Key::TargetImageOpts,
        Flag::new(
            &["target-image-opts"],
            "TGT_FILENAME is a list of options and not a name (needs -n)",
        ),
    ),
    (Key::Salvage, Flag::new(&["salvage"], "go on where the source cannot be read, with zeroes")),
    (
        Key::TargetIsZero,
        Flag::new(&["target-is-zero"], "the target is known to read as zeroes (needs -n)"),
    ),
    (Key::Bitmaps, Flag::new(&["bitmaps"], "copy persistent bitmaps, too")),
    (
        Key::SkipBrokenBitmaps,
        Flag::new(&["skip-broken-bitmaps"], "leave out bitmaps that are inconsistent"),
    ),
    (
        Key::Rate,
        Flag::new(&["rate"], "write so many bytes a second at most").short(b'r').value("RATE"),
    ),
    (
        Key::Parallel,
        Flag::new(&["parallel"], "how many pieces of work may be under way (1 to 16)")
            .short(b'm')
            .value("NUM_COROUTINES"),
    ),
    (
        Key::OutOfOrder,
        Flag::new(&["oob-writes"], "accepted; writes are as independent as the format allows")
            .short(b'W'),
    ),
    (
        Key::CopyOffload,
        Flag::new(&["copy-range-offloading"], "let the kernel copy, without a look at the data")
            .short(b'C'),
    ),
    (Key::Compress, Flag::new(&[], "compress the target (qcow2)").short(b'c')),
    (
        Key::NoCreate,
        Flag::new(&[], "do not create the target: write into what is there").short(b'n'),
    ),
    (Key::Progress, Flag::new(&[], "show how far the work is").short(b'p')),
    (
        Key::For,
        Flag::new(
            &["for"],
            "make what this platform takes, and hold the result against its rules: azure, aws, gcp, \
             vsphere, hyperv, virtualbox or openstack",
        )
        .value("PLATFORM")
        .own(),
    ),
    (
        Key::Verify,
        Flag::new(
            &["verify"],
            "read both images again when all is written, and fail if their hashes differ",
        )
        .own(),
    ),
    (
        Key::Size,
        Flag::new(&["size"], "how large the disk is that comes from standard input")
            .value("SIZE")
            .own(),
    ),
];

/// All flags, for help.
pub(super) fn flags() -> Vec<Flag> {
    FLAGS.iter().map(|(_, flag)| *flag).collect()
}

/// The command line, checked as far as it can be without a look at any file.
#[derive(Debug, Default)]
pub(super) struct Args {
    /// Secrets that options may name.
    pub(super) secrets: RawOptions,
    pub(super) quiet: bool,
    pub(super) progress: bool,
    pub(super) source_image_opts: bool,
    pub(super) source_format: Option<String>,
    pub(super) source_cache: Option<String>,
    pub(super) snapshot: Option<SnapshotName>,
    pub(super) target_image_opts: bool,
    pub(super) target_format: Option<String>,
    pub(super) target_cache: Option<String>,
    pub(super) options: OptionList,
    pub(super) backing: Option<String>,
    pub(super) backing_format: Option<String>,
    pub(super) force_share: bool,
    /// `None` for the default.
    pub(super) sparse_bytes: Option<u32>,
    pub(super) rate: Option<u64>,
    pub(super) parallel: Option<usize>,
    pub(super) copy_offload: bool,
    pub(super) compress: bool,
    pub(super) no_create: bool,
    pub(super) target_is_zero: bool,
    pub(super) salvage: bool,
    pub(super) verify: bool,
    pub(super) platform: Option<Platform>,
    pub(super) size: Option<u64>,
    pub(super) bitmaps: bool,
    pub(super) skip_broken_bitmaps: bool,
    pub(super) sources: Vec<OsString>,
    pub(super) target: OsString,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Task {
    /// Convert.
    Convert(Box<Args>),
    /// Print what `-o` knows for a format; with the file's own options if files are named.
    OptionHelp { format: String, file: bool },
}

impl Task {
    /// Reads a command line, with the flags that qemu-img has not if `own`. `warn` is told what is
    /// not wrong enough to stop.
    pub(super) fn parse(
        words: Vec<OsString>,
        own: bool,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Self, Stop> {
        let mut args = Box::<Args>::default();
        let mut operands = parse(&known(FLAGS, own), words, |key, value| {
            match key {
                Key::Help => return Err(Stop::Help),
                Key::Quiet => args.quiet = true,
                Key::Object => add_object(&mut args.secrets, &value)?,
                Key::SourceImageOpts => args.source_image_opts = true,
                Key::SourceFormat => args.source_format = Some(text(&value)),
                Key::SourceCache => args.source_cache = Some(text(&value)),
                Key::Snapshot => args.snapshot = Some(SnapshotName::parse(&text(&value), warn)?),
                Key::SparseSize => args.sparse_bytes = Some(sparse_size(&value)?),
                Key::TargetFormat => args.target_format = Some(text(&value)),
                Key::Options => args.options.add(&text(&value)).map_err(Stop::failed)?,
                Key::TargetCache => args.target_cache = Some(text(&value)),
                Key::Backing => args.backing = Some(text(&value)),
                Key::BackingFormat => args.backing_format = Some(text(&value)),
                Key::ForceShare => args.force_share = true,
                Key::TargetImageOpts => args.target_image_opts = true,
                Key::Salvage => args.salvage = true,
                Key::TargetIsZero => args.target_is_zero = true,
                Key::Bitmaps => args.bitmaps = true,
                Key::SkipBrokenBitmaps => args.skip_broken_bitmaps = true,
                Key::Rate => args.rate = Some(ranged_size("rate limit", &value, MAX_SIZE)?),
                Key::Parallel => args.parallel = Some(parallel(&value)?),
                Key::OutOfOrder => {}
                Key::CopyOffload => args.copy_offload = true,
                Key::Compress => args.compress = true,
                Key::NoCreate => args.no_create = true,
                Key::Progress => args.progress = true,
                Key::Verify => args.verify = true,
                Key::For => args.platform = Some(platform(&text(&value))?),
                Key::Size => args.size = Some(ranged_size("size", &value, MAX_SIZE)?),
            }
            Ok(())
        })?;
        if args.skip_broken_bitmaps && !args.bitmaps {
            return Err(Stop::failed("Use of --skip-broken-bitmaps requires --bitmaps"));
        }
        args.check_combinations()?;
        args.follow_recipe()?;
        if args.options.wants_help() {
            let format = args.target_format.unwrap_or_else(|| "raw".to_owned());
            return Ok(Self::OptionHelp { format, file: operands.len() > 1 });
        }
        match operands.pop() {
            Some(target) if !operands.is_empty() => args.target = target,
            _ => return Err(Stop::failed("Must specify image file name")),
        }
        args.sources = operands;
        Ok(Self::Convert(args))
    }
}

impl Args {
    fn check_combinations(&self) -> Result<(), Stop> {
        let no = |message: &str| Err(Stop::failed(message));
        if self.copy_offload && self.compress {
            return no("Cannot enable copy offloading when -c is used");
        }
        if self.copy_offload && self.sparse_bytes.is_some() {
            return no("Cannot enable copy offloading when -S is used");
        }
        if self.copy_offload && self.salvage {
            return no("Cannot use copy offloading in salvaging mode");
        }
        if self.no_create && !self.options.is_empty() {
            return no("-o has no effect when skipping image creation");
        }
        if self.target_image_opts && !self.no_create {
            return no("--target-image-opts requires use of -n flag");
        }
        if self.target_is_zero && !self.no_create {
            return no("--target-is-zero requires use of -n flag");
        }
        Ok(())
    }
}

impl Args {
    /// Takes format and options from what the platform wants; what was said of them on the command
    /// line has to agree.
    fn follow_recipe(&mut self) -> Result<(), Stop> {
        let Some(platform) = self.platform else { return Ok(()) };
        let recipe = platform.recipe();
        let no = |message: String| Err(Stop::failed(message));
        for (given, name) in [(self.no_create, "-n"), (self.backing.is_some(), "-B")] {
            if given {
                return no(format!("{name} does not work with --for: the target stands alone"));
            }
        }
        match (recipe.format, &self.target_format) {
            (Some(wanted), Some(format)) if format != wanted => {
                return no(format!("{platform} takes {wanted}, not {format}"));
            }
            (None, Some(_)) => return no(format!("{platform} takes an archive: leave -O out")),
            _ => {}
        }
        if recipe.format.is_none() {
            for (given, name) in [
                (!self.options.is_empty(), "-o"),
                (self.compress, "-c"),
                (self.bitmaps, "--bitmaps"),
                (self.copy_offload, "-C"),
                (self.salvage, "--salvage"),
                (self.verify, "--verify"),
            ] {
                if given {
                    return no(format!("{name} does not work with --for {platform}"));
                }
            }
            return Ok(());
        }
        self.target_format = recipe.format.map(str::to_owned);
        self.options.put_first(recipe.options);
        Ok(())
    }
}

/// The largest `-S`, in bytes.
const MAX_SPARSE_BYTES: u32 = 16 << 20;

fn sparse_size(value: &OsStr) -> Result<u32, Stop> {
    let text = text(value);
    let what = "Invalid buffer size for sparse output specified";
    match parse_size(&text) {
        Err(SizeError::Malformed) => Err(Stop::failed(format!("{what}: '{text}'."))),
        Ok(bytes) if bytes <= u64::from(MAX_SPARSE_BYTES) && bytes % 512 == 0 => {
            Ok(u32::try_from(bytes).unwrap_or(MAX_SPARSE_BYTES))
        }
        Ok(MAX_SIZE..) | Err(SizeError::OutOfRange) => {
            Err(Stop::failed(format!("{what}. Must be between 0 and {MAX_SIZE}.")))
        }
        Ok(_) => Err(Stop::failed(format!(
            "{what}. Valid sizes are multiples of 512 up to {MAX_SPARSE_BYTES}. \
             Select 0 to disable sparse detection (fully allocates output)."
        ))),
    }
}

fn parallel(value: &OsStr) -> Result<usize, Stop> {
    let text = text(value);
    let what = "Invalid number of coroutines specified";
    match parse_number(&text) {
        None => Err(Stop::failed(format!("{what}: '{text}'."))),
        Some(Some(count @ 1..=16)) => Ok(usize::try_from(count).unwrap_or(1)),
        Some(_) => Err(Stop::failed(format!("{what}. Must be between 1 and 16."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(words: &[&str]) -> Result<Task, String> {
        let words = words.iter().map(OsString::from).collect();
        Task::parse(words, true, &mut |_| ()).map_err(|stop| match stop {
            Stop::Failed { message, .. } => message,
            other => format!("{other:?}"),
        })
    }

    fn args(words: &[&str]) -> Box<Args> {
        match task(words) {
            Ok(Task::Convert(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_operand_is_the_target() {
        let args = args(&["a", "-O", "qcow2", "b", "-c", "c"]);
        assert_eq!(args.sources, ["a", "b"]);
        assert_eq!(args.target, "c");
        assert!(args.compress);
        assert_eq!(args.target_format.as_deref(), Some("qcow2"));
    }

    #[test]
    fn snapshots_are_named_by_word_or_by_field() {
        let named = |value: &str| args(&["-l", value, "a", "b"]).snapshot.unwrap();
        assert_eq!(named("s1"), SnapshotName::IdOrName("s1".to_owned()));
        assert_eq!(
            named("snapshot.id=1,snapshot.name=x"),
            SnapshotName::Fields { id: Some("1".to_owned()), name: Some("x".to_owned()) }
        );
        assert_eq!(
            task(&["-l", "snapshot.foo=1", "a", "b"]).unwrap_err(),
            "Failed in parsing snapshot param 'snapshot.foo=1'"
        );
    }

    #[test]
    fn qemu_img_knows_nothing_of_verification() {
        assert!(args(&["--verify", "a", "b"]).verify);
        let words = ["--verify", "a", "b"].map(OsString::from).to_vec();
        match Task::parse(words, false, &mut |_| ()) {
            Err(Stop::Usage(message)) => assert_eq!(message, "unrecognized option '--verify'"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn zero_detection_has_a_grain_of_sectors() {
        assert_eq!(args(&["-S", "3k", "a", "b"]).sparse_bytes, Some(3072));
        assert_eq!(args(&["a", "b"]).sparse_bytes, None);
        assert!(task(&["-S", "513", "a", "b"]).unwrap_err().contains("multiples of 512"));
        assert!(task(&["-S", "17M", "a", "b"]).unwrap_err().contains("multiples of 512"));
    }

    #[test]
    fn options_for_an_image_that_is_not_made_are_refused() {
        let error = task(&["-n", "-o", "cluster_size=4k", "a", "b"]).unwrap_err();
        assert_eq!(error, "-o has no effect when skipping image creation");
        assert!(matches!(task(&["-o", "help"]), Ok(Task::OptionHelp { file: false, .. })));
        assert!(matches!(task(&["-o", "help", "a", "b"]), Ok(Task::OptionHelp { file: true, .. })));
    }
}
