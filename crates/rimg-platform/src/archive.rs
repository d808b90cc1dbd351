//! Compute Engine's package: one file, `disk.raw`, in a tar archive of GNU tar's old format,
//! compressed with gzip.
//!
//! The archive is written from front to back in one go: what lies where is asked twice before any
//! data is read, once to know how much there is, and once to list it.

mod inspect;
mod tar;

pub use inspect::inspect_archive;

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use flate2::{Compression, GzBuilder};
use rimg::{BlockImage, ChainExtents, Error};
use std::io::{self, Write};
use tar::{BLOCK_BYTES, RECORD_BYTES, SparseHeader};

/// The name that the disk has in the archive.
const DISK_NAME: &str = "disk.raw";

/// So much is read at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Holes shorter than this are stored as zeroes, in bytes: each run of data costs a place in the
/// list of them.
const SHORTEST_HOLE_BYTES: u64 = 64 << 10;

/// Why an archive was not written, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The disk could not be read.
    #[error("error while reading at byte {at}: {source}")]
    Read {
        /// The offset on the disk, in bytes.
        at: u64,
        /// Why.
        source: Error,
    },
    /// The archive could not be written, or not be read back.
    #[error("{doing} the archive: {source}")]
    Archive {
        /// What was being done, as in "writing".
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The disk is larger than the size that was asked for.
    #[error("a disk of {size_bytes} bytes does not fit into {wanted_bytes}")]
    TooSmall {
        /// The size of the disk, in bytes.
        size_bytes: u64,
        /// The size that was asked for, in bytes.
        wanted_bytes: u64,
    },
    /// The caller wanted no more of it.
    #[error("cancelled")]
    Cancelled,
}

/// Writes `image` as a disk of `size_bytes`, a multiple of 512 that is no smaller than the image,
/// into a compressed archive. What it reads as zeroes without looking, or has not, is left out.
///
/// The same disk, holes at the same places, size and time give the same bytes.
/// `mtime` is the time that the archive says the disk is of, in seconds since 1970.
/// `progress` is told how much of the disk is done, in bytes; a `cancel` that turns true ends the
/// work within a moment.
///
/// # Errors
/// [`ArchiveError`]; what was written so far is of no use then.
pub fn write_archive(
    image: &dyn BlockImage,
    size_bytes: u64,
    mtime: u64,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
    cancel: &AtomicBool,
) -> Result<(), ArchiveError> {
    let too_small = image.size_bytes() > size_bytes || !size_bytes.is_multiple_of(BLOCK_BYTES);
    if too_small {
        let size = image.size_bytes();
        return Err(ArchiveError::TooSmall { size_bytes: size, wanted_bytes: size_bytes });
    }
    // No name and no time of its own: they would be those of this moment.
    let gzip = GzBuilder::new().mtime(0).operating_system(UNKNOWN_SYSTEM);
    let mut out = Counted { inner: gzip.write(out, Compression::default()), written: 0 };
    let mut stored = 0_u64;
    for run in runs(image, size_bytes) {
        let run = run?;
        stored = stored.saturating_add(run.end.saturating_sub(run.start));
    }
    let header = SparseHeader { name: DISK_NAME, mtime, stored_bytes: stored, size_bytes };
    let mut list = header.list(&mut out).map_err(writing)?;
    for run in runs(image, size_bytes) {
        list.push(run?).map_err(writing)?;
    }
    list.finish().map_err(writing)?;
    let mut buffer = vec![0; PIECE_BYTES];
    for run in runs(image, size_bytes) {
        let run = run?;
        let mut at = run.start;
        while at < run.end {
            if cancel.load(Ordering::Relaxed) {
                return Err(ArchiveError::Cancelled);
            }
            let len = usize::try_from(run.end.saturating_sub(at)).unwrap_or(usize::MAX);
            let piece = buffer.get_mut(..len.min(PIECE_BYTES)).unwrap_or_default();
            read_padded(image, piece, at)?;
            out.write_all(piece).map_err(writing)?;
            at = at.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            progress(at);
        }
    }
    out.pad(RECORD_BYTES).map_err(writing)?;
    out.inner.finish().map_err(writing)?.flush().map_err(writing)?;
    progress(size_bytes);
    Ok(())
}

/// What a gzip header says when it does not tell the operating system.
const UNKNOWN_SYSTEM: u8 = 255;

fn writing(source: io::Error) -> ArchiveError {
    ArchiveError::Archive { doing: "writing", source }
}

/// The runs of data of a disk of `size_bytes`, in whole blocks of the archive.
fn runs(
    image: &dyn BlockImage,
    size_bytes: u64,
) -> impl Iterator<Item = Result<Range<u64>, ArchiveError>> {
    let mut extents = ChainExtents::new(image).fuse();
    let mut pending: Option<Range<u64>> = None;
    let mut at = 0;
    std::iter::from_fn(move || {
        for extent in extents.by_ref() {
            let extent = match extent {
                Ok(extent) => extent,
                Err(source) => return Some(Err(ArchiveError::Read { at, source })),
            };
            at = extent.end();
            if extent.is_zero() {
                continue;
            }
            let start = extent.start - extent.start % BLOCK_BYTES;
            let end = at.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(at).min(size_bytes);
            match &mut pending {
                Some(run) if start < run.end.saturating_add(SHORTEST_HOLE_BYTES) => run.end = end,
                _ => {
                    if let Some(run) = pending.replace(start..end) {
                        return Some(Ok(run));
                    }
                }
            }
        }
        pending.take().map(Ok)
    })
}

/// Reads from the disk; what lies behind its end is zeroes.
fn read_padded(image: &dyn BlockImage, buf: &mut [u8], at: u64) -> Result<(), ArchiveError> {
    let there = image.size_bytes().saturating_sub(at);
    let there = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
    let (inside, behind) = buf.split_at_mut(there);
    behind.fill(0);
    if inside.is_empty() {
        return Ok(());
    }
    image.read_at(inside, at).map_err(|source| ArchiveError::Read { at, source })
}

/// Counts what goes through.
struct Counted<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Counted<W> {
    /// Ends an archive: two blocks of zeroes at least, up to a whole number of records.
    fn pad(&mut self, record: u64) -> io::Result<()> {
        let end = self.written.saturating_add(2 * BLOCK_BYTES);
        let end = end.checked_next_multiple_of(record).unwrap_or(end);
        let len = usize::try_from(end.saturating_sub(self.written)).unwrap_or(0);
        self.write_all(&vec![0; len])
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(buf)?;
        self.written = self.written.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
