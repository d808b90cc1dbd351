//! The disk of an image as the file of another one.

use core::ops::Range;
use rimg_core::{
    BlockImage, Error, ExtentKind, ImageWrite, Preallocation, Storage, StorageRun, StorageWrite,
    Zeroing, num,
};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Disks are as long as whole sectors.
const SECTOR_BYTES: u64 = 512;

/// The disk of an image as a storage, for images within images.
#[derive(Debug)]
pub struct ImageStorage {
    image: Box<dyn BlockImage>,
    /// The image's own file.
    file: Option<Arc<dyn Storage>>,
    /// Held by who makes the disk longer.
    growing: Mutex<()>,
}

impl ImageStorage {
    /// The disk of `image`.
    #[must_use]
    pub fn new(image: Box<dyn BlockImage>) -> Self {
        let file = image.file(0).map(Arc::clone);
        Self { image, file, growing: Mutex::new(()) }
    }

    /// Makes the disk reach to `end`, in whole sectors; never shorter.
    fn grow(&self, end: u64) -> io::Result<()> {
        let _one_at_a_time = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if end <= self.image.size_bytes() {
            return Ok(());
        }
        self.set_len_bytes(num::align_up(end, SECTOR_BYTES).ok_or(io::ErrorKind::FileTooLarge)?)
    }

    fn image_writer(&self) -> io::Result<&dyn ImageWrite> {
        self.image.writer().ok_or_else(|| io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl Storage for ImageStorage {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.image.size_bytes())
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        match at.checked_add(num::to_u64(buf.len())) {
            Some(end) if end <= self.image.size_bytes() => {
                self.image.read_at(buf, at).map_err(plain)
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let extent = self.image.extent_at(at..self.image.size_bytes()).map_err(plain)?;
        let is_hole = match extent.kind {
            ExtentKind::Zero { .. } => true,
            ExtentKind::Backing { .. } => self.image.backing().is_none(),
            _ => false,
        };
        Ok(if is_hole {
            StorageRun::hole(extent.len_bytes)
        } else {
            StorageRun::data(extent.len_bytes)
        })
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        if self.image.writer().is_some() { Some(self) } else { None }
    }

    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        self.file.as_ref().map_or(Ok(None), |file| file.allocated_bytes())
    }
}

impl StorageWrite for ImageStorage {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(num::to_u64(buf.len())).ok_or(io::ErrorKind::FileTooLarge)?;
        self.grow(end)?;
        self.image_writer()?.write_at(buf, at).map_err(plain)
    }

    fn write_zeroes_at(&self, range: Range<u64>, _how: Zeroing) -> io::Result<()> {
        self.grow(range.end)?;
        self.image_writer()?.write_zeroes_at(range).map_err(plain)
    }

    fn discard_at(&self, range: Range<u64>) -> io::Result<()> {
        let end = range.end.min(self.image.size_bytes());
        if range.start >= end {
            return Ok(());
        }
        self.image_writer()?.discard_at(range.start..end).map_err(plain)
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        let resizer = self.image.resizer().ok_or(io::ErrorKind::Unsupported)?;
        resizer.resize(len, Preallocation::Off).map_err(plain)
    }

    fn sync(&self) -> io::Result<()> {
        self.image_writer()?.flush().map_err(plain)
    }
}

/// Leaves a clean image: nobody else closes it. What could not be written was an error of the last
/// [`sync`](StorageWrite::sync).
impl Drop for ImageStorage {
    fn drop(&mut self) {
        if let Some(writer) = self.image.writer() {
            let _ = writer.finish();
        }
    }
}

/// What the system said, where it was the system.
fn plain(error: Error) -> io::Error {
    match error {
        Error::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}
