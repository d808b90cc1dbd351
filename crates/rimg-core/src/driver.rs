//! How a format presents itself.

use crate::{
    BlockImage, Measure, OpenOptions, OptionSpec, RawOptions, Result, Storage, TargetFiles,
};
use core::fmt::Debug;
use std::sync::Arc;

/// A format: recognises, opens and creates images. One `static` per format crate.
pub trait FormatDriver: Sync + Debug {
    /// Names and options.
    fn format(&self) -> &'static FormatInfo;

    /// Whether a file looks like an image of this format.
    fn probe(&self, window: &ProbeWindow<'_>) -> Match;

    /// Opens an image.
    ///
    /// # Errors
    /// [`Error::WrongFormat`](crate::Error::WrongFormat) when it is none of this format; otherwise
    /// what is wrong with it.
    fn open(&self, file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Box<dyn BlockImage>>;

    /// Writes a new, empty image of `size_bytes`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) before anything is written, or what
    /// the storage says.
    fn create(&self, target: &dyn TargetFiles, size_bytes: u64, options: &RawOptions)
    -> Result<()>;

    /// Begins to measure how large an image of `size_bytes` would become that was created with
    /// `options`; `None` when the format cannot tell.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for options that decide about the
    /// size and cannot be.
    fn measure(&self, size_bytes: u64, options: &RawOptions) -> Result<Option<Box<dyn Measure>>> {
        let _ = (size_bytes, options);
        Ok(None)
    }
}

/// What there is to know of a format without an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatInfo {
    /// The name in `-f` and `-O`.
    pub name: &'static str,
    /// A few words for people.
    pub description: &'static str,
    /// Creation options, in the order in which `create` prints them.
    pub create_options: &'static [OptionSpec],
    /// Creation options that the format's reference implementation has not; help shows them behind
    /// the others. Nothing but what the caller asks for comes from them: they have no defaults.
    pub extra_options: &'static [OptionSpec],
    /// Options that an existing image can be brought to, in the order of their help.
    pub amend_options: &'static [OptionSpec],
    /// Whether images can be created and written.
    pub writable: bool,
    /// Whether an image may have another one below it.
    pub backing: bool,
    /// Whether images may hold compressed clusters, and be written with them.
    pub compresses: bool,
}

impl FormatInfo {
    /// All creation options, those of the reference implementation first.
    pub fn all_create_options(&self) -> impl Iterator<Item = &'static OptionSpec> + use<> {
        self.create_options.iter().chain(self.extra_options)
    }

    /// The creation option with this name.
    #[must_use]
    pub fn create_option(&self, name: &str) -> Option<&'static OptionSpec> {
        self.all_create_options().find(|spec| spec.name == name)
    }
}

/// The part of a file that a format is recognised by.
#[derive(Debug, Clone, Copy)]
pub struct ProbeWindow<'a> {
    /// The first bytes of the file: [`HEAD_BYTES`](Self::HEAD_BYTES), or all when it is shorter.
    pub head: &'a [u8],
    /// The name of the file, where it has one. It decides only for formats that say at their start
    /// nothing of themselves: bytes further on are in the hands of whoever wrote the disk.
    pub name: Option<&'a str>,
    /// The length of the file in bytes.
    pub len_bytes: u64,
}

impl ProbeWindow<'_> {
    /// How much of the start of a file a probe sees, in bytes.
    pub const HEAD_BYTES: usize = 2048;
}

/// How well a file fits a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// Not this format.
    No,
    /// Everything is this format if it is nothing else: raw.
    Fallback,
    /// A weak sign, such as a name only.
    Weak,
    /// The format's magic, in its place.
    Sure,
}
