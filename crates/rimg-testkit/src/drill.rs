//! What every writable format has to go through, whatever it is: random changes against plain
//! bytes, crashes, threads, a storage that fails, and wrong bytes.
//!
//! A format's `tests/model.rs`, `crash.rs`, `concurrent.rs` and `hostile.rs` name the kinds of
//! images to try, and what is done to them is here. Random numbers come from fixed seeds, which a
//! failure names; `RIMG_TEST_CASES` asks for more of them.

mod concurrent;
mod crash;
mod failing;
mod hostile;
mod model;
mod ops;
mod peer;

pub use hostile::{MEMORY_BYTES, survive, survive_within};
pub use ops::{Op, apply};
pub use peer::Qemu;

use crate::guest::GuestContents;
use crate::{MemoryDir, MemoryStorage, ModelDisk};
use rimg_core::{BlockImage, FormatDriver, RawOptions, Repair};
use std::sync::Arc;

/// A kind of image that a format is tried with.
#[derive(Debug, Clone)]
pub struct Drill {
    drivers: &'static [&'static dyn FormatDriver],
    create: RawOptions,
    open: RawOptions,
    size_bytes: u64,
    step_bytes: u64,
    below_bytes: u64,
    /// Otherwise it is raw.
    below_has_own_format: bool,
}

impl Drill {
    /// Images of the first of `drivers`, with disks of `size_bytes`.
    #[must_use]
    pub fn new(drivers: &'static [&'static dyn FormatDriver], size_bytes: u64) -> Self {
        let (create, open) = (RawOptions::new(), RawOptions::new());
        Self {
            drivers,
            create,
            open,
            size_bytes,
            step_bytes: 512,
            below_bytes: 0,
            below_has_own_format: false,
        }
    }

    /// With this creation option.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.create.set(name, value);
        self
    }

    /// With these options, and the secrets they name, at every opening; the secrets at creation,
    /// too.
    #[must_use]
    pub fn opened_with(mut self, options: RawOptions) -> Self {
        self.create.add_secrets_of(&options);
        self.open = options;
        self
    }

    /// Disks have sizes that are multiples of `bytes`: 512 unless said.
    #[must_use]
    pub fn in_steps_of(mut self, bytes: u64) -> Self {
        self.step_bytes = bytes;
        self
    }

    /// Over a raw image of `bytes`, by the options `backing_file` and `backing_fmt`.
    #[must_use]
    pub fn over(mut self, bytes: u64) -> Self {
        self.below_bytes = bytes;
        self
    }

    /// As [`over`](Self::over), but the image below is of the same format, which allows no other.
    #[must_use]
    pub fn over_own_format(mut self, bytes: u64) -> Self {
        self.below_has_own_format = true;
        self.over(bytes)
    }

    fn format(&self) -> &'static str {
        self.drivers[0].format().name
    }

    fn dir(&self) -> MemoryDir {
        MemoryDir::new(self.drivers)
    }

    /// Creates `disk`, and the disk that it should be.
    fn make(&self, dir: &MemoryDir) -> ModelDisk {
        let mut options = self.create.clone();
        let mut below = Vec::new();
        if self.below_bytes > 0 {
            below = GuestContents::new(7, self.below_bytes).to_vec();
            options.set("backing_file", "base");
            if self.below_has_own_format {
                dir.create("base", self.format(), self.below_bytes, RawOptions::NONE).unwrap();
                let base = dir.open("base", self.format(), true).unwrap();
                base.writer().unwrap().write_at(&below, 0).unwrap();
                base.close().unwrap();
                options.set("backing_fmt", self.format());
            } else {
                dir.put("base", Arc::new(MemoryStorage::from(below.clone())));
                options.set("backing_fmt", "raw");
            }
        }
        dir.create("disk", self.format(), self.size_bytes, &options).unwrap();
        // Formats round sizes up to what they can express.
        let mut model = ModelDisk::new(self.opened(dir, false).size_bytes());
        assert!(model.size_bytes() >= self.size_bytes, "smaller than asked for");
        let seen = below.len().min(usize::try_from(model.size_bytes()).unwrap());
        model.write(&below[..seen], 0);
        model
    }

    fn opened(&self, dir: &MemoryDir, writable: bool) -> Box<dyn BlockImage> {
        match dir.open_with("disk", self.format(), writable, &self.open) {
            Ok(image) => image,
            Err(error) => panic!("{self:?} cannot be opened: {error:?}"),
        }
    }
}

/// How many of something a test tries: `RIMG_TEST_CASES`, or else `default`.
fn cases(default: u64) -> u64 {
    std::env::var("RIMG_TEST_CASES").map_or(default, |number| number.parse().unwrap())
}

/// Nothing is wrong with an image that was closed, and nothing lost.
#[track_caller]
fn assert_sound(image: &dyn BlockImage, what: &str) {
    let Some(checker) = image.checker() else { return };
    let mut findings = Vec::new();
    let summary =
        checker.check(Repair::Nothing, &mut |finding| findings.push(finding.message.clone()));
    let summary = summary.unwrap_or_else(|error| panic!("{what}: cannot be checked: {error:?}"));
    let sum = (summary.corruptions, summary.leaks, summary.check_errors);
    assert_eq!(sum, (0, 0, 0), "{what}: {findings:#?}");
}
