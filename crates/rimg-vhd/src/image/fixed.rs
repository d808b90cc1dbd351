//! Images of fixed size: the disk's bytes, one to one, and a footer.

use super::Access;
use crate::header::Footer;
use crate::info;
use crate::resize;
use crate::spec;
use core::ops::Range;
use rimg_core::{
    BlockImage, Error, Extent, ExtentKind, FileOffset, HostOffset, ImageInfo, ImageWrite,
    Preallocation, Resize, Result, Storage, StorageWrite, Zeroing, num, zeroes,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// So much of a new file may not be a hole, in bytes.
const FIRST_RUN_BYTES: u64 = 1 << 17;

/// An open image of fixed size.
#[derive(Debug)]
pub(crate) struct FixedImage {
    file: Arc<dyn Storage>,
    access: Access,
    size_bytes: AtomicU64,
    /// What the file ends with. Writers hold on to it, so that none goes past a new end.
    footer: RwLock<Footer>,
    /// When it was opened for writing, nothing had been written yet, as far as one can see.
    was_unwritten: bool,
}

impl FixedImage {
    pub(crate) fn new(
        file: Arc<dyn Storage>,
        footer: Footer,
        size_bytes: u64,
        access: Access,
    ) -> Result<Self> {
        let mut image = Self {
            file,
            access,
            size_bytes: AtomicU64::new(size_bytes),
            footer: RwLock::new(footer),
            was_unwritten: false,
        };
        image.was_unwritten = access == Access::Write && image.is_unwritten()?;
        Ok(image)
    }

    /// Whether the disk is as it is after creation: a block of zeroes perhaps, and then a hole up
    /// to the block that the footer is in.
    fn is_unwritten(&self) -> Result<bool> {
        let size = self.size_bytes();
        let mut at = 0;
        let mut seen = 0;
        while at < size {
            let run = self.file.run_at(at).map_err(Error::io("look for holes", at))?;
            let len = run.len_bytes.clamp(1, size.saturating_sub(at));
            if run.is_data {
                seen = len.saturating_add(seen);
                if seen > FIRST_RUN_BYTES {
                    return Ok(false);
                }
                let mut bytes = vec![0; num::to_usize(len)?];
                self.file.read_exact_at(&mut bytes, at).map_err(Error::io("read", at))?;
                if !zeroes::is_zero(&bytes) {
                    return Ok(false);
                }
            }
            at = at.saturating_add(len);
        }
        Ok(true)
    }

    /// While it is held, the size stays.
    fn hold_size(&self) -> RwLockReadGuard<'_, Footer> {
        self.footer.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> Result<&dyn StorageWrite> {
        let is_open = self.access == Access::Write;
        self.file.writer().filter(|_| is_open).ok_or(Error::ReadOnly("it was opened for reading"))
    }

    fn check_range(&self, range: &Range<u64>) -> Result<()> {
        if matches!(self.access, Access::Inspect | Access::Repair) {
            return Err(Error::Misuse("the image was opened for inspection only"));
        }
        if range.start <= range.end && range.end <= self.size_bytes() {
            Ok(())
        } else {
            Err(Error::Misuse("range past the end of the disk"))
        }
    }
}

fn range_of(buf: &[u8], at: u64) -> Result<Range<u64>> {
    let end = at.checked_add(num::to_u64(buf.len()));
    Ok(at..end.ok_or(Error::Misuse("range past the end of the disk"))?)
}

impl BlockImage for FixedImage {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.check_range(&range_of(buf, at)?)?;
        if buf.is_empty() {
            return Ok(());
        }
        self.file.read_exact_at(buf, at).map_err(Error::io("read data", at))
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.check_range(&range)?;
        if range.is_empty() {
            return Err(Error::Misuse("empty range"));
        }
        let at = FileOffset { file: 0, host: HostOffset(range.start) };
        let len_bytes = range.end.saturating_sub(range.start);
        let run = self.file.run_at(range.start);
        let run = run.map_err(Error::io("look for holes", range.start))?;
        let kind = if run.is_data {
            ExtentKind::Data(at)
        } else {
            ExtentKind::Zero { allocation: Some(at) }
        };
        Ok(Extent { len_bytes: run.len_bytes.clamp(1, len_bytes), kind })
    }

    fn info(&self) -> Result<ImageInfo> {
        let footer = self.hold_size();
        Ok(info::describe(&footer, self.size_bytes(), None, None))
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then_some(&self.file)
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        if self.access == Access::Write { Some(self) } else { None }
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        if self.access == Access::Write { Some(self) } else { None }
    }

    fn close(self: Box<Self>) -> Result<()> {
        if self.access == Access::Write { self.flush() } else { Ok(()) }
    }
}

impl ImageWrite for FixedImage {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        let _held = self.hold_size();
        self.check_range(&range_of(buf, at)?)?;
        if buf.is_empty() {
            return Ok(());
        }
        self.writable()?.write_all_at(buf, at).map_err(Error::io("write data", at))
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        let _held = self.hold_size();
        self.check_range(&range)?;
        if range.is_empty() {
            return Ok(());
        }
        let at = range.start;
        self.writable()?
            .write_zeroes_at(range, Zeroing::MayPunch)
            .map_err(Error::io("write zeroes", at))
    }

    fn discard_at(&self, range: Range<u64>) -> Result<()> {
        let _held = self.hold_size();
        self.check_range(&range)?;
        if range.is_empty() {
            return Ok(());
        }
        let at = range.start;
        self.writable()?.discard_at(range).map_err(Error::io("discard", at))
    }

    fn flush(&self) -> Result<()> {
        self.writable()?.sync().map_err(Error::io("flush", 0))
    }

    fn places_in_order(&self) -> bool {
        false
    }

    fn is_zero_initialised(&self) -> bool {
        let is_zero = StorageWrite::is_zero_where_unwritten;
        self.was_unwritten || self.file.writer().is_some_and(is_zero)
    }
}

impl Resize for FixedImage {
    /// The file ends with a footer that tells the truth when it returns; while a disk grows, a
    /// machine that stops may leave one without.
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        let size = resize::checked_size(size_bytes, preallocation)?;
        let file = self.writable()?;
        let mut footer = self.footer.write().unwrap_or_else(PoisonError::into_inner);
        let old = self.size_bytes();
        let resized = footer.resized(size);
        let put = |footer: &Footer, at: u64| {
            file.write_all_at(&footer.encode(), at).map_err(Error::io("write footer", at))?;
            file.sync().map_err(Error::io("make writes durable", at))
        };
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        // Old footers are a byte shorter: what is before them is the disk's.
        let tail = len.saturating_sub(spec::FOOTER_BYTES).max(old);
        if size > old {
            // What is behind the disk becomes zeroes while the size is still the old one.
            put(&footer, size.max(tail))?;
            file.write_zeroes_at(old..size, Zeroing::MayPunch)
                .map_err(Error::io("write zeroes", old))?;
            file.sync().map_err(Error::io("make writes durable", old))?;
            put(&resized, size.max(tail))?;
        } else {
            put(&resized, tail)?;
        }
        if size != tail {
            put(&resized, size)?;
            let end = size.saturating_add(spec::FOOTER_BYTES);
            file.set_len_bytes(end).map_err(Error::io("set file length", end))?;
            file.sync().map_err(Error::io("make writes durable", end))?;
        }
        *footer = resized;
        self.size_bytes.store(size, Ordering::Release);
        Ok(())
    }
}
