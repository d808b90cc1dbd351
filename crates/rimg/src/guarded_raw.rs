//! Keeps an image that was guessed to be raw from turning into another format.
//!
//! Who writes a header of another format to the start of a raw disk, and knows that the disk will
//! be probed again, makes the next program read whatever files that header names. So writes which
//! would change what the image looks like are refused. Whoever gives the format is not
//! restricted.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::probe::choose;
use crate::registry::Formats;
use core::ops::Range;
use rimg_core::{
    BlockImage, Error, Extent, ImageInfo, ImageWrite, Match, Preallocation, ProbeWindow, Resize,
    Result, Storage, StorageRun, num,
};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A raw image whose format nobody gave.
#[derive(Debug)]
pub(crate) struct GuardedRaw {
    image: Box<dyn BlockImage>,
    /// The image's file, without the way around the guard.
    file: Option<Arc<dyn Storage>>,
    formats: Formats,
    /// One write at a time to what a probe sees.
    probed_part: Mutex<()>,
}

impl GuardedRaw {
    pub(crate) fn new(image: Box<dyn BlockImage>, formats: Formats) -> Self {
        let file =
            image.file(0).map(|file| -> Arc<dyn Storage> { Arc::new(ReadOnly(Arc::clone(file))) });
        Self { image, file, formats, probed_part: Mutex::new(()) }
    }

    fn writer_below(&self) -> Result<&dyn ImageWrite> {
        self.image.writer().ok_or(Error::ReadOnly("it was opened for reading"))
    }

    /// The length of the file when the disk reaches to `end`: its last sector may be incomplete.
    fn file_len(&self, end: u64) -> Result<u64> {
        let len = self.file.as_ref().map_or(Ok(0), |file| file.len_bytes());
        Ok(len.map_err(Error::io("read file length", 0))?.max(end))
    }

    /// Refuses a write of `bytes` (zeroes, where `None`) to `range` that would make the file look
    /// like something else. The write must happen before the returned guard is dropped.
    fn check(
        &self,
        range: &Range<u64>,
        bytes: Option<&[u8]>,
    ) -> Result<Option<MutexGuard<'_, ()>>> {
        let size = self.image.size_bytes();
        // The image itself refuses what is none.
        let is_range = range.start <= range.end && range.end <= size;
        if !is_range || range.start >= num::to_u64(ProbeWindow::HEAD_BYTES) {
            return Ok(None);
        }
        let guard = self.probed_part.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_window(self.file_len(range.end)?, |head| overlay(head, range, bytes))?;
        Ok(Some(guard))
    }

    /// Probes what the file will be: `len` bytes long and changed by `change`.
    fn check_window(&self, len: u64, change: impl Fn(&mut [u8])) -> Result<()> {
        let wanted = len.min(num::to_u64(ProbeWindow::HEAD_BYTES));
        let mut head = vec![0; num::to_usize(wanted)?];
        let there = num::to_usize(self.image.size_bytes().min(wanted))?;
        // Behind the end of the disk there is nothing to read, not even nothing.
        if let Some(there) = head.get_mut(..there).filter(|there| !there.is_empty()) {
            self.image.read_at(there, 0)?;
        }
        change(&mut head);
        let window = ProbeWindow { head: &head, name: None, len_bytes: len };
        match choose(self.formats, &window) {
            Ok(found) if found.certainty == Match::Fallback => Ok(()),
            _ => Err(Error::io("write what would look like another format", 0)(not_permitted())),
        }
    }
}

/// Puts what is written to `range` into `head`, the first bytes of the file.
fn overlay(head: &mut [u8], range: &Range<u64>, bytes: Option<&[u8]>) {
    let Some(to) = usize::try_from(range.start).ok().and_then(|start| head.get_mut(start..)) else {
        return;
    };
    let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    match bytes {
        None => to.iter_mut().take(len).for_each(|byte| *byte = 0),
        Some(bytes) => to.iter_mut().zip(bytes).for_each(|(byte, new)| *byte = *new),
    }
}

/// What QEMU answers to such a write.
fn not_permitted() -> io::Error {
    const EPERM: i32 = 1;
    io::Error::from_raw_os_error(EPERM)
}

impl BlockImage for GuardedRaw {
    fn size_bytes(&self) -> u64 {
        self.image.size_bytes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.image.read_at(buf, at)
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.image.extent_at(range)
    }

    fn info(&self) -> Result<ImageInfo> {
        self.image.info()
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        self.file.as_ref().filter(|_| index == 0)
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.image.writer().map(|_| -> &dyn ImageWrite { self })
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.image.resizer().map(|_| -> &dyn Resize { self })
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.image.close()
    }
}

impl ImageWrite for GuardedRaw {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        let end = at
            .checked_add(num::to_u64(buf.len()))
            .ok_or(Error::Misuse("range past the end of the disk"))?;
        let _alone = self.check(&(at..end), Some(buf))?;
        self.writer_below()?.write_at(buf, at)
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        let _alone = self.check(&range, None)?;
        self.writer_below()?.write_zeroes_at(range)
    }

    fn discard_at(&self, range: Range<u64>) -> Result<()> {
        let _alone = self.check(&range, None)?;
        self.writer_below()?.discard_at(range)
    }

    fn flush(&self) -> Result<()> {
        self.writer_below()?.flush()
    }

    fn places_in_order(&self) -> bool {
        self.image.writer().is_some_and(ImageWrite::places_in_order)
    }

    fn is_zero_initialised(&self) -> bool {
        self.image.writer().is_some_and(ImageWrite::is_zero_initialised)
    }

    fn relax_until_flush(&self) {
        if let Some(writer) = self.image.writer() {
            writer.relax_until_flush();
        }
    }
}

impl Resize for GuardedRaw {
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        let resizer = self.image.resizer().ok_or(Error::ReadOnly("it was opened for reading"))?;
        let _alone = self.probed_part.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_window(size_bytes, |_| {})?;
        resizer.resize(size_bytes, preallocation)
    }
}

/// A storage that cannot be written through.
#[derive(Debug)]
struct ReadOnly(Arc<dyn Storage>);

impl Storage for ReadOnly {
    fn len_bytes(&self) -> io::Result<u64> {
        self.0.len_bytes()
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, at)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        self.0.run_at(at)
    }

    fn align_bytes(&self) -> u32 {
        self.0.align_bytes()
    }

    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        self.0.allocated_bytes()
    }

    fn note(&self, event: &'static str) {
        self.0.note(event);
    }

    fn listens(&self) -> bool {
        self.0.listens()
    }
}
