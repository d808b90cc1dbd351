//! Bringing what an overlay holds into an image below it.

use crate::convert::{ConvertSummary, Part, convert_part};
use crate::error::ConvertError;
use crate::options::ConvertOptions;
use crate::progress::Observer;
use crate::source::Source;
use core::num::{NonZeroU64, NonZeroUsize};
use rimg_core::{BlockImage, ImageWrite, Overlay, Preallocation};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How to commit. `Default` is what `qemu-img commit` does without options.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitOptions {
    /// Into which image: 1 is the overlay's own backing image, 2 the one below that.
    pub depth: usize,
    /// Leave the overlay as it is (`-d`). What lies between it and the base always stays, and so
    /// does the overlay when there is something in between, which would come up otherwise.
    pub keep: bool,
    /// How many threads work, the calling one included; `None` for one per available core.
    pub threads: Option<NonZeroUsize>,
    /// No more than so many bytes are written in a second (`-r`).
    pub bytes_per_second: Option<NonZeroU64>,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self { depth: 1, keep: false, threads: None, bytes_per_second: None }
    }
}

/// Writes all that the layers above the base hold into the base, which then shows what `overlay`
/// shows, and empties the overlay. The base grows when it is the smaller one, and has to be open
/// for writing, as has the overlay unless it is kept.
///
/// The overlay shows the same bytes at any moment, even if the work ends early or what was written
/// since the last flush is lost: the base is durable before the first byte of the overlay goes.
/// Until then, other images over the same base show a mixture.
///
/// A base that is known by an identifier that changes with its contents, as those of VMDKs and VHDX
/// images, has another one from the first write on: the overlay accepts it at the end, also after
/// an error, but other images over the base, and the next one above it where the overlay is not,
/// do not, and nor does the overlay when the machine stops in between.
///
/// # Errors
/// [`ConvertError`]: [`NoBacking`](ConvertError::NoBacking) and
/// [`ReadOnly`](ConvertError::ReadOnly) before anything is written.
pub fn commit(
    overlay: &dyn BlockImage,
    options: &CommitOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<ConvertSummary, ConvertError> {
    let mut below = std::iter::successors(overlay.backing(), |image| image.backing());
    let index = options.depth.checked_sub(1).ok_or(ConvertError::NoBacking)?;
    let base: &Arc<dyn BlockImage> = below.nth(index).ok_or(ConvertError::NoBacking)?;
    let writer = base.writer().ok_or(ConvertError::ReadOnly)?;
    let lies_on_base = overlay.overlay().filter(|_| options.depth == 1);
    if lies_on_base.is_none() && options.depth == 1 && !options.keep {
        return Err(ConvertError::ReadOnly);
    }
    let written = write_into(&**base, writer, overlay, options, observer, cancel);
    let summary = match (written, lies_on_base) {
        (Ok(summary), _) => summary,
        (Err(error), overlay) => {
            // What went there is in the overlay as well. What went wrong first is what there is
            // to say.
            let _ = overlay.map(Overlay::accept_backing);
            return Err(error);
        }
    };
    if let Some(overlay) = lies_on_base {
        match options.keep {
            true => overlay.accept_backing().map_err(|source| ConvertError::Target {
                doing: "noting the new contents of",
                source,
            }),
            false => overlay.make_empty().map_err(|source| ConvertError::Empty { source }),
        }?;
    }
    Ok(summary)
}

/// Writes all that lies above `base` into it, and makes that durable.
fn write_into(
    base: &dyn BlockImage,
    writer: &dyn ImageWrite,
    overlay: &dyn BlockImage,
    options: &CommitOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<ConvertSummary, ConvertError> {
    let old_size = base.size_bytes();
    if old_size < overlay.size_bytes() {
        let grown = base.resizer().ok_or(ConvertError::ReadOnly)?;
        grown
            .resize(overlay.size_bytes(), Preallocation::Off)
            .map_err(|source| ConvertError::Target { doing: "growing", source })?;
        if !grown.grows_by_zeroes() {
            writer
                .write_zeroes_at(old_size..base.size_bytes())
                .map_err(|source| ConvertError::Target { doing: "writing", source })?;
        }
    }
    let converting = ConvertOptions {
        threads: options.threads,
        bytes_per_second: options.bytes_per_second,
        ..ConvertOptions::default()
    };
    // What the base has gained reads as zeroes.
    let part = Part { shared_from: Some(options.depth), zero_from: old_size };
    let summary =
        convert_part(&Source::new(&[overlay]), base, part, &converting, observer, cancel)?;
    let target_error = |source| ConvertError::Target { doing: "flushing", source };
    writer.finish().map(|()| summary).map_err(target_error)
}
