//! The open image.

use crate::{FORMAT, SECTOR_BYTES};
use core::ops::Range;
use rimg_core::{
    BlockImage, Error, Extent, ImageInfo, ImageWrite, Resize, Result, Storage, StorageWrite, num,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file whose bytes are the disk's.
#[derive(Debug)]
pub(crate) struct RawImage {
    pub(crate) file: Arc<dyn Storage>,
    writable: bool,
    /// The length of the file in bytes. The disk goes on to the end of the last sector, with
    /// zeroes.
    pub(crate) file_len: AtomicU64,
    size_bytes: AtomicU64,
    /// When it was opened for writing, nothing was in the file.
    was_hole: bool,
}

impl RawImage {
    pub(crate) fn open(file: Arc<dyn Storage>, writable: bool) -> Result<Self> {
        if writable && file.writer().is_none() {
            return Err(Error::ReadOnly("its file was opened for reading"));
        }
        let mut image = Self {
            file,
            writable,
            file_len: AtomicU64::new(0),
            size_bytes: AtomicU64::new(0),
            was_hole: false,
        };
        image.measure()?;
        image.was_hole = writable && image.is_one_hole()?;
        Ok(image)
    }

    /// Takes over the length that the file has now.
    pub(crate) fn measure(&self) -> Result<()> {
        let len = self.file.len_bytes().map_err(Error::io("read file length", 0))?;
        let size = num::align_up(len, SECTOR_BYTES).ok_or(Error::Limit {
            what: "file length",
            needed: len,
            limit: u64::MAX - SECTOR_BYTES,
        })?;
        self.file_len.store(len, Ordering::Release);
        self.size_bytes.store(size, Ordering::Release);
        Ok(())
    }

    /// Whether the storage says that the whole file is a hole. A block device never does, so it
    /// is never taken for zeroes.
    fn is_one_hole(&self) -> Result<bool> {
        let len = self.file_len.load(Ordering::Acquire);
        if len == 0 {
            return Ok(true);
        }
        let run = self.file.run_at(0).map_err(Error::io("look for holes", 0))?;
        Ok(!run.is_data && run.len_bytes >= len)
    }

    pub(crate) fn is_zero_initialised(&self) -> bool {
        self.was_hole
    }

    pub(crate) fn writable(&self) -> Result<&dyn StorageWrite> {
        self.file
            .writer()
            .filter(|_| self.writable)
            .ok_or(Error::ReadOnly("it was opened for reading"))
    }

    /// Refuses what reaches past the end of the disk.
    pub(crate) fn check_range(&self, range: &Range<u64>) -> Result<()> {
        if range.start <= range.end && range.end <= self.size_bytes() {
            Ok(())
        } else {
            Err(Error::Misuse("range past the end of the disk"))
        }
    }
}

/// The range that a buffer covers.
pub(crate) fn range_of(buf: &[u8], at: u64) -> Result<Range<u64>> {
    let end = at
        .checked_add(num::to_u64(buf.len()))
        .ok_or(Error::Misuse("range past the end of the disk"))?;
    Ok(at..end)
}

impl BlockImage for RawImage {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.read(buf, at)
    }

    /// Holes come as zeroes with a place: a write there goes to that place, and `map` shows it.
    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.first_run(range)
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo {
            format: FORMAT,
            virtual_size_bytes: self.size_bytes(),
            ..ImageInfo::default()
        })
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then_some(&self.file)
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        if self.writable { Some(self) } else { None }
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        if self.writable { Some(self) } else { None }
    }

    fn close(self: Box<Self>) -> Result<()> {
        if self.writable { self.flush() } else { Ok(()) }
    }
}
