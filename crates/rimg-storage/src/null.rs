//! A storage that keeps nothing.

use core::ops::Range;
use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing, num};
use std::io;

/// A storage that takes writes and forgets them; what is read are zeroes. Good for measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NullStorage {
    len_bytes: u64,
    is_hole: bool,
}

impl NullStorage {
    /// A storage of a fixed length, which says that it is one hole if `is_hole`, and otherwise that
    /// all of it is data.
    #[must_use]
    pub const fn new(len_bytes: u64, is_hole: bool) -> Self {
        Self { len_bytes, is_hole }
    }

    fn check(&self, end: Option<u64>, past_end: io::ErrorKind) -> io::Result<()> {
        match end {
            Some(end) if end <= self.len_bytes => Ok(()),
            _ => Err(past_end.into()),
        }
    }
}

impl Storage for NullStorage {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.len_bytes)
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.check(at.checked_add(num::to_u64(buf.len())), io::ErrorKind::UnexpectedEof)?;
        buf.fill(0);
        Ok(())
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        match self.len_bytes.checked_sub(at) {
            None | Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(len_bytes) if self.is_hole => Ok(StorageRun::hole(len_bytes)),
            Some(len_bytes) => Ok(StorageRun::data(len_bytes)),
        }
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        Some(self)
    }

    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        Ok(Some(0))
    }
}

impl StorageWrite for NullStorage {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.check(at.checked_add(num::to_u64(buf.len())), io::ErrorKind::StorageFull)
    }

    fn write_zeroes_at(&self, range: Range<u64>, _how: Zeroing) -> io::Result<()> {
        self.check(Some(range.end), io::ErrorKind::StorageFull)
    }

    fn discard_at(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        self.check(Some(len), io::ErrorKind::InvalidInput)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
