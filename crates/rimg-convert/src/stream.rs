//! Converting to where nothing can be written twice: a pipe.
//!
//! Where metadata lies in front of the data it tells of, all of it has to be known before the first
//! byte leaves. The target's own format makes it: the image is written in memory with zeroes in
//! place of the guest's data, which take no room there, from what the source's map says. What
//! comes out is the image that would be made in a file; then the file's bytes are sent from its
//! start to its end, with the data from the source.
//!
//! Formats whose data is encoded cannot be made so, since nobody knows how long it will be. Those
//! that were made for streams write front to back by themselves, and are sent as they are written.

mod skeleton;
mod straight;

use crate::convert::{ConvertSummary, Part, convert_part};
use crate::error::ConvertError;
use crate::forward::Forward;
use crate::options::ConvertOptions;
use crate::progress::Observer;
use crate::source::Source;
use rimg_core::{
    BlockImage, CompressedWrite, Dependency, DependencyGate, Error, FormatDriver, Limits,
    OpenOptions, RawOptions, Result, Storage, TargetFiles,
};
use skeleton::{Places, Plan, Sending, Skeleton};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use straight::Straight;

/// How much metadata of a target is held in memory: that of 4 TiB of data in a qcow2 image. A
/// source of a few bytes can tell of much more.
const MOST_METADATA_BYTES: u64 = 512 << 20;

/// The image that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct StreamTarget<'a> {
    /// Its format.
    pub driver: &'a dyn FormatDriver,
    /// The size of its disk in bytes.
    pub size_bytes: u64,
    /// Its creation options.
    pub options: &'a RawOptions,
}

/// Writes `sources`, one behind the other, as a new image to `out`, from its first byte to its
/// last.
///
/// Beside what [`convert`](crate::convert) needs, the metadata of the target is held in memory: for
/// qcow2 a MiB for 8 GiB of data, and at most 512 MiB. The bytes are those of the file that
/// converting would make, but that zeroes which the source does not know of take room.
///
/// After an error `out` holds the beginning of an image.
///
/// # Errors
/// [`ConvertError`]; [`ConvertError::Options`] for what cannot be streamed: compressed clusters in
/// formats that were not made for it, encryption, backing files, images of several files.
pub fn convert_to_stream(
    sources: &[&dyn BlockImage],
    target: StreamTarget<'_>,
    out: Box<dyn Write + Send>,
    options: &ConvertOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<ConvertSummary, ConvertError> {
    if options.backing.is_some() {
        return Err(ConvertError::Options("An image with a backing file cannot be streamed"));
    }
    let options = ConvertOptions { target_is_new: true, copy_offload: false, ..options.clone() };
    let source = Source::new(sources);
    if source.size_bytes() > target.size_bytes {
        let (needed, size) = (source.size_bytes(), target.size_bytes);
        return Err(ConvertError::TargetTooSmall { needed, size });
    }
    let skeleton = Arc::new(Skeleton::new(MOST_METADATA_BYTES));
    let image = target.make(skeleton.clone())?;
    let whole = Part { shared_from: None, zero_from: 0 };
    if image.compressor().is_some_and(CompressedWrite::is_required) {
        drop(image);
        let straight = Arc::new(Straight::new(out));
        let image = target.make(straight.clone())?;
        straight.begin();
        let done = convert_part(&source, &*image, whole, &options, observer, cancel)?;
        let finished = image.close().and_then(|()| straight.finish());
        finished.map_err(|source| ConvertError::Target { doing: "finishing", source })?;
        return Ok(done);
    }
    if options.compress {
        return Err(ConvertError::Options(
            "Compressed clusters cannot be streamed in this format: where they lie is only known \
             behind them",
        ));
    }
    Plan::new(&source, &options).carry_out(&*image, cancel)?;
    let places = Places::of(&*image, &mut Limits::default().metadata_budget())
        .map_err(|source| ConvertError::Target { doing: "laying out", source })?;
    let closed = image.close();
    closed.map_err(|source| ConvertError::Target { doing: "laying out", source })?;
    let sink = Forward::new(Sending::new(skeleton, places, out, cancel), target.size_bytes);
    let done = convert_part(&source, &sink, whole, &options, observer, cancel)?;
    sink.into_sink().finish().map_err(|source| match source {
        Error::Cancelled => ConvertError::Cancelled,
        source => ConvertError::Target { doing: "finishing", source },
    })?;
    Ok(done)
}

impl StreamTarget<'_> {
    /// Makes the empty image in `file` and opens it.
    fn make(&self, file: Arc<dyn Storage>) -> Result<Box<dyn BlockImage>, ConvertError> {
        let failed = |source| ConvertError::Target { doing: "creating", source };
        let files = OneFile(file);
        self.driver.create(&files, self.size_bytes, self.options).map_err(failed)?;
        let how = OpenOptions {
            writable: true,
            inspect_only: false,
            limits: Limits::default(),
            gate: &Denied,
            options: RawOptions::NONE,
        };
        let image = self.driver.open(files.0, &how).map_err(failed)?;
        let writer = image.writer().ok_or(ConvertError::ReadOnly)?;
        writer.relax_until_flush();
        Ok(image)
    }
}

/// A pipe takes one file.
struct OneFile(Arc<dyn Storage>);

struct Denied;

fn one_file_only() -> Error {
    Error::Denied("An image of several files cannot be streamed".to_owned())
}

impl TargetFiles for OneFile {
    fn main(&self) -> &Arc<dyn Storage> {
        &self.0
    }

    fn sibling(&self, _name: &str) -> Result<Arc<dyn Storage>> {
        Err(one_file_only())
    }
}

impl DependencyGate for Denied {
    fn open_file(&self, _wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
        Err(one_file_only())
    }

    fn open_image(&self, _wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
        Err(one_file_only())
    }
}
