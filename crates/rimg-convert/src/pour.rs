//! Reading a raw disk from where nothing can be read twice.

use crate::error::ConvertError;
use crate::options::ConvertOptions;
use crate::progress::{Meter, Observer};
use core::fmt;
use rimg_core::num::to_u64;
use rimg_core::{BlockImage, CompressedWrite, Error, ImageWrite, Preallocation, zeroes};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// As many bytes travel together: a multiple of the clusters of all formats but for odd VMDKs.
const CHUNK_BYTES: usize = 4 << 20;

/// So many chunks are read ahead.
const AHEAD: usize = 2;

/// Disks are counted in sectors.
const SECTOR_BYTES: u64 = 512;

/// The bytes of a raw disk, as they come.
pub struct Inflow {
    chunks: Receiver<io::Result<Vec<u8>>>,
    first: Option<Vec<u8>>,
    /// Whether `first` is all there is.
    is_whole: bool,
}

impl Inflow {
    /// Begins to read: waits for the first few megabytes, or the end.
    ///
    /// A thread reads ahead. It ends with the input, or with the first read that comes back after
    /// the `Inflow` is gone.
    ///
    /// # Errors
    /// [`ConvertError::Read`]; [`ConvertError::Cancelled`] when `cancel` turns true.
    pub fn begin(
        mut input: impl Read + Send + 'static,
        cancel: &AtomicBool,
    ) -> Result<Self, ConvertError> {
        let (sender, chunks) = sync_channel(AHEAD);
        thread::Builder::new()
            .name("rimg input".into())
            .spawn(move || {
                loop {
                    let chunk = read_chunk(&mut input);
                    let is_last = chunk.as_ref().map_or(true, |chunk| chunk.len() < CHUNK_BYTES);
                    if sender.send(chunk).is_err() || is_last {
                        return;
                    }
                }
            })
            .map_err(|source| read_error(0, source))?;
        let mut inflow = Self { chunks, first: None, is_whole: false };
        let first = inflow.next(0, cancel)?.unwrap_or_default();
        inflow.is_whole = first.len() < CHUNK_BYTES;
        inflow.first = Some(first);
        Ok(inflow)
    }

    /// The size in bytes, when all of it has come already.
    #[must_use]
    pub fn size_bytes(&self) -> Option<u64> {
        self.first.as_ref().filter(|_| self.is_whole).map(|first| to_u64(first.len()))
    }

    /// The next bytes; `None` at the end.
    fn next(&mut self, at: u64, cancel: &AtomicBool) -> Result<Option<Vec<u8>>, ConvertError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Err(ConvertError::Cancelled);
            }
            match self.chunks.recv_timeout(Duration::from_millis(50)) {
                Ok(Ok(chunk)) => return Ok(Some(chunk)),
                Ok(Err(source)) => return Err(read_error(at, source)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

impl fmt::Debug for Inflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflow").field("is_whole", &self.is_whole).finish_non_exhaustive()
    }
}

fn read_chunk(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    input.by_ref().take(to_u64(CHUNK_BYTES)).read_to_end(&mut chunk)?;
    Ok(chunk)
}

fn read_error(at: u64, source: io::Error) -> ConvertError {
    ConvertError::Read { at, source: Error::io("read the input", at)(source) }
}

/// Writes all that flows in to `target`, from its start, and flushes it. Returns how many bytes
/// came. What the target has behind them stays as it is.
///
/// With `fits` the target is made to fit: it grows as bytes come, and is as long as they are in the
/// end, in whole sectors. Otherwise it is long enough or this is an error.
///
/// Of `options`, `sparse_bytes`, `compress`, `target_is_new` and `target_is_zero` count.
///
/// # Errors
/// [`ConvertError`]. [`ConvertError::TargetTooSmall`] when the target is and may, or can, not grow.
pub fn pour(
    mut inflow: Inflow,
    target: &dyn BlockImage,
    fits: bool,
    options: &ConvertOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<u64, ConvertError> {
    let mut basin = Basin::new(target, fits, options)?;
    if options.target_is_new {
        basin.writer.relax_until_flush();
    }
    let meter = Meter::new(observer, || target.size_bytes());
    let mut at = 0;
    while let Some(chunk) = inflow.next(at, cancel)? {
        let end = at + to_u64(chunk.len());
        basin.make_room(end, chunk.len() < CHUNK_BYTES)?;
        basin.write(chunk, at)?;
        meter.add(end - at);
        at = end;
    }
    basin.make_room(at, true)?;
    let flushed = basin.writer.flush();
    flushed.map_err(|source| ConvertError::Target { doing: "flushing", source })?;
    meter.finish();
    Ok(at)
}

/// What the bytes flow into.
struct Basin<'a> {
    target: &'a dyn BlockImage,
    writer: &'a dyn ImageWrite,
    compressor: Option<&'a dyn CompressedWrite>,
    fits: bool,
    /// Whether zeroes need not be written.
    is_zero: bool,
    /// In which pieces zeroes are told from data; 0 for not at all.
    granule: usize,
}

impl<'a> Basin<'a> {
    fn new(
        target: &'a dyn BlockImage,
        fits: bool,
        options: &ConvertOptions,
    ) -> Result<Self, ConvertError> {
        let writer = target.writer().ok_or(ConvertError::ReadOnly)?;
        let compressor = target.compressor();
        let wanted = options.compress || compressor.is_some_and(CompressedWrite::is_required);
        if wanted && compressor.is_none() {
            return Err(ConvertError::NoCompression);
        }
        let granule = usize::try_from(options.sparse_bytes).unwrap_or(0).min(CHUNK_BYTES);
        let is_new = options.target_is_new && writer.is_zero_initialised();
        Ok(Self {
            target,
            writer,
            compressor: compressor.filter(|_| wanted),
            fits,
            is_zero: (options.target_is_zero || is_new) && granule != 0,
            granule,
        })
    }

    /// Sees to it that the disk goes on to `end`, and to `end` only if that `is_last`.
    fn make_room(&mut self, end: u64, is_last: bool) -> Result<(), ConvertError> {
        let size = self.target.size_bytes();
        let needed = end.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(end);
        if needed == size || (needed < size && !(is_last && self.fits)) {
            return Ok(());
        }
        let resizer = self.target.resizer().filter(|_| self.fits);
        let Some(resizer) = resizer else {
            // The last sector of a disk may be a part of one.
            let is_enough = end <= size;
            return if is_enough { Ok(()) } else { Err(too_small(needed, size)) };
        };
        let resize = |to| resizer.resize(to, Preallocation::Off);
        // By doubling, tables move a few times only.
        let doubled = size.saturating_mul(2);
        if !(is_last || doubled < needed) && resize(doubled).is_ok() {
            self.is_zero &= resizer.grows_by_zeroes();
            return Ok(());
        }
        self.is_zero &= needed < size || resizer.grows_by_zeroes();
        resize(needed).map_err(|source| ConvertError::Target { doing: "resizing", source })
    }

    fn write(&self, chunk: Vec<u8>, at: u64) -> Result<(), ConvertError> {
        match self.compressor {
            Some(compressor) => self.write_clusters(compressor, chunk, at),
            None => self.write_runs(&chunk, at),
        }
    }

    fn write_runs(&self, chunk: &[u8], at: u64) -> Result<(), ConvertError> {
        let (mut at, mut rest) = (at, chunk);
        while !rest.is_empty() {
            let (len, is_zero) = match self.granule {
                0 => (rest.len(), false),
                granule => zeroes::run(rest, granule),
            };
            let (run, later) = rest.split_at(len);
            let end = at.saturating_add(to_u64(len));
            let written = match (is_zero, self.is_zero) {
                (true, true) => Ok(()),
                (true, false) => self.writer.write_zeroes_at(at..end),
                (false, _) => self.writer.write_at(run, at),
            };
            written.map_err(|source| ConvertError::Write { at, source })?;
            (at, rest) = (end, later);
        }
        Ok(())
    }

    fn write_clusters(
        &self,
        compressor: &dyn CompressedWrite,
        mut chunk: Vec<u8>,
        at: u64,
    ) -> Result<(), ConvertError> {
        let cluster = usize::try_from(compressor.cluster_bytes()).unwrap_or(usize::MAX).max(1);
        if !CHUNK_BYTES.is_multiple_of(cluster) {
            return Err(ConvertError::Options("Clusters of this size cannot be poured into"));
        }
        // The last cluster is whole, or ends where the disk does.
        let size = self.target.size_bytes();
        let left = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
        chunk.resize(chunk.len().next_multiple_of(cluster).min(left.max(chunk.len())), 0);
        let mut at = at;
        for cluster in chunk.chunks(cluster) {
            if !(self.is_zero && zeroes::is_zero(cluster)) {
                compressor
                    .write_compressed_at(cluster, at)
                    .map_err(|source| ConvertError::Write { at, source })?;
            }
            at = at.saturating_add(to_u64(cluster.len()));
        }
        Ok(())
    }
}

fn too_small(needed: u64, size: u64) -> ConvertError {
    ConvertError::TargetTooSmall { needed, size }
}
