//! The disk of an image as the file of another one.

use core::ops::Range;
use rimg_core::{
    BlockImage, Error, ExtentKind, ImageWrite, Preallocation, Storage, StorageRun, StorageWrite,
    Zeroing, num,
};
use std::io;
use std::sync::Arc;

/// The disk of an image as a storage, for images within images.
#[derive(Debug)]
pub struct ImageStorage {
    image: Box<dyn BlockImage>,
    /// The image's own file.
    file: Option<Arc<dyn Storage>>,
}

impl ImageStorage {
    /// The disk of `image`.
    #[must_use]
    pub fn new(image: Box<dyn BlockImage>) -> Self {
        let file = image.file(0).map(Arc::clone);
        Self { image, file }
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
            ExtentKind::Backing => self.image.backing().is_none(),
            _ => false,
        };
        Ok(StorageRun { len_bytes: extent.len_bytes, is_data: !is_hole })
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
        if end > self.image.size_bytes() {
            self.set_len_bytes(end)?;
        }
        self.image_writer()?.write_at(buf, at).map_err(plain)
    }

    fn write_zeroes_at(&self, range: Range<u64>, _how: Zeroing) -> io::Result<()> {
        if range.end > self.image.size_bytes() {
            self.set_len_bytes(range.end)?;
        }
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

/// What the system said, where it was the system.
fn plain(error: Error) -> io::Error {
    match error {
        Error::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}
