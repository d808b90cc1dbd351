//! The open image.

use crate::options::Window;
use crate::{FORMAT, SECTOR_BYTES};
use core::ops::Range;
use rimg_core::{
    BlockImage, Error, Extent, ImageInfo, ImageWrite, Resize, Result, Storage, StorageRun,
    StorageWrite, num, zeroes,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much of the start of a file is looked at to find out that it is new, in bytes: the largest
/// blocks of common file systems.
const MAX_FIRST_RUN_BYTES: u64 = 1 << 17;

/// A file whose bytes are the disk's.
#[derive(Debug)]
pub(crate) struct RawImage {
    pub(crate) file: Arc<dyn Storage>,
    writable: bool,
    /// The part of the file that counts.
    pub(crate) window: Window,
    /// The length of that part in bytes. The disk goes on to the end of the last sector, with
    /// zeroes.
    pub(crate) file_len: AtomicU64,
    size_bytes: AtomicU64,
    /// When it was opened for writing, nothing had been written yet, as far as one can see.
    was_unwritten: bool,
}

impl RawImage {
    pub(crate) fn open(file: Arc<dyn Storage>, writable: bool, window: Window) -> Result<Self> {
        if writable && file.writer().is_none() {
            return Err(Error::ReadOnly("its file was opened for reading"));
        }
        let mut image = Self {
            file,
            writable,
            window,
            file_len: AtomicU64::new(0),
            size_bytes: AtomicU64::new(0),
            was_unwritten: false,
        };
        image.measure()?;
        image.was_unwritten = writable && image.is_unwritten()?;
        Ok(image)
    }

    /// Takes over the length that the file has now.
    pub(crate) fn measure(&self) -> Result<()> {
        let len = self.file.len_bytes().map_err(Error::io("read file length", 0))?;
        let len = self.window.len_in(len)?;
        let size = num::align_up(len, SECTOR_BYTES).ok_or(Error::Limit {
            what: "file length",
            needed: len,
            limit: u64::MAX - SECTOR_BYTES,
        })?;
        self.file_len.store(len, Ordering::Release);
        self.size_bytes.store(size, Ordering::Release);
        Ok(())
    }

    /// Whether the file is as it is after creation: a block of zeroes perhaps, and then a hole.
    /// A block device says that it has no holes, so it is never taken for zeroes.
    fn is_unwritten(&self) -> Result<bool> {
        let len = self.file_len.load(Ordering::Acquire);
        let mut hole_at = 0;
        if len > 0 {
            let first = self.run_of_file(0)?;
            if first.is_data {
                hole_at = first.len_bytes;
            }
        }
        if hole_at > MAX_FIRST_RUN_BYTES {
            return Ok(false);
        }
        let mut start = vec![0; num::to_usize(hole_at.min(len))?];
        self.file.read_exact_at(&mut start, self.host(0)).map_err(Error::io("read", 0))?;
        if !zeroes::is_zero(&start) {
            return Ok(false);
        }
        if hole_at >= len {
            return Ok(true);
        }
        let rest = self.run_of_file(hole_at)?;
        Ok(!rest.is_data && rest.len_bytes >= len.saturating_sub(hole_at))
    }

    fn run_of_file(&self, at: u64) -> Result<StorageRun> {
        self.file.run_at(self.host(at)).map_err(Error::io("look for holes", at))
    }

    /// Where in the file the byte `at` of the disk is.
    pub(crate) const fn host(&self, at: u64) -> u64 {
        self.window.start.saturating_add(at)
    }

    pub(crate) fn is_zero_initialised(&self) -> bool {
        let is_zero = StorageWrite::is_zero_where_unwritten;
        self.was_unwritten || (self.window.start == 0 && self.file.writer().is_some_and(is_zero))
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
