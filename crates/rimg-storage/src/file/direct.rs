//! I/O past the page cache: what is not aligned goes through aligned buffers.

use rimg_core::num;
use rustix::fs::{AtFlags, StatxFlags, ioctl_blksszget, statx};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The size of an aligned buffer in bytes; a multiple of every alignment.
const BOUNCE_BYTES: usize = 1 << 20;
/// The largest alignment that is believed.
const MAX_ALIGN_BYTES: u32 = 1 << 16;
/// The alignment where nothing is said: the block size of most disks that do not take 512.
const DEFAULT_ALIGN_BYTES: u32 = 4096;
/// How many buffers are kept for the next call.
const POOLED: usize = 8;

/// How to read and write a file that was opened with `O_DIRECT`.
#[derive(Debug)]
pub(super) struct Direct {
    /// A power of two.
    align: u32,
    /// Held shared by writes of whole blocks, and alone by those that read a block, change a part
    /// of it and write it back, or that change the length.
    blocks: RwLock<()>,
    pool: Mutex<Vec<Bounce>>,
}

impl Direct {
    pub(super) fn new(file: &File) -> Self {
        let align = alignment(file);
        Self { align, blocks: RwLock::new(()), pool: Mutex::new(Vec::new()) }
    }

    pub(super) const fn align_bytes(&self) -> u32 {
        self.align
    }

    /// Keeps all writers out until dropped.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn together(&self) -> RwLockReadGuard<'_, ()> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read_exact_at(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<()> {
        let end = end(buf.len(), at)?;
        if self.is_aligned(buf, at) {
            return self.read_aligned(file, buf, at).and_then(|len| whole(len == buf.len()));
        }
        let mut bounce = self.take_bounce();
        let mut rest = buf;
        let mut at = at;
        while !rest.is_empty() {
            let start = self.align_down(at);
            let blocks = bounce.slice(self.span(start, end)?);
            let read = self.read_aligned(file, blocks, start)?;
            let skip = usize::try_from(at - start).map_err(io::Error::other)?;
            let len = blocks.len().saturating_sub(skip).min(rest.len());
            let (piece, after) = rest.split_at_mut(len);
            let found = blocks[..read].get(skip..skip.saturating_add(len));
            piece.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            rest = after;
            at = at.saturating_add(num::to_u64(len));
        }
        self.put_bounce(bounce);
        Ok(())
    }

    pub(super) fn write_all_at(&self, file: &File, buf: &[u8], at: u64) -> io::Result<()> {
        let end = end(buf.len(), at)?;
        if self.is_aligned(buf, at) {
            let _together = self.together();
            return file.write_all_at(buf, at);
        }
        let mut bounce = self.take_bounce();
        let mut rest = buf;
        let mut at = at;
        while !rest.is_empty() {
            let start = self.align_down(at);
            // A piece is a part of one block, or whole blocks.
            let (len, blocks_len) = if start < at || end - at < u64::from(self.align) {
                let block_end = start.saturating_add(u64::from(self.align));
                (block_end.min(end) - at, u64::from(self.align))
            } else {
                let len = (self.align_down(end) - at).min(num::to_u64(BOUNCE_BYTES));
                (len, len)
            };
            let len = usize::try_from(len).map_err(io::Error::other)?;
            let blocks = bounce.slice(usize::try_from(blocks_len).map_err(io::Error::other)?);
            let (piece, after) = rest.split_at(len);
            if piece.len() == blocks.len() {
                blocks.copy_from_slice(piece);
                let _together = self.together();
                file.write_all_at(blocks, start)?;
            } else {
                let skip = usize::try_from(at - start).map_err(io::Error::other)?;
                self.change_block(file, blocks, start, piece, skip)?;
            }
            rest = after;
            at = at.saturating_add(num::to_u64(len));
        }
        self.put_bounce(bounce);
        Ok(())
    }

    /// Replaces a part of the block at `start`, using `block` for its contents.
    fn change_block(
        &self,
        file: &File,
        block: &mut [u8],
        start: u64,
        piece: &[u8],
        skip: usize,
    ) -> io::Result<()> {
        let _alone = self.alone();
        block.fill(0);
        let there = self.read_aligned(file, block, start)?;
        block[skip..][..piece.len()].copy_from_slice(piece);
        file.write_all_at(block, start)?;
        let needed = there.max(skip.saturating_add(piece.len()));
        if there < block.len() && needed < block.len() {
            // The file ended in this block, and must not end later than it has to.
            file.set_len(start.saturating_add(num::to_u64(needed)))?;
        }
        Ok(())
    }

    /// Reads whole blocks; returns how much of them there was before the end of the file.
    fn read_aligned(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at.saturating_add(num::to_u64(done))) {
                Ok(0) => break,
                Ok(len) => done = done.saturating_add(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            // Reading on from within a block would not be aligned; only the end of the file stops
            // there.
            if !num::to_u64(done).is_multiple_of(u64::from(self.align)) {
                break;
            }
        }
        Ok(done)
    }

    fn is_aligned(&self, buf: &[u8], at: u64) -> bool {
        let align = u64::from(self.align);
        at.is_multiple_of(align)
            && num::to_u64(buf.len()).is_multiple_of(align)
            && usize::try_from(self.align).is_ok_and(|align| buf.as_ptr().align_offset(align) == 0)
    }

    fn align_down(&self, at: u64) -> u64 {
        num::align_down(at, u64::from(self.align))
    }

    /// How many bytes of whole blocks from `start` to take at once on the way to `end`.
    fn span(&self, start: u64, end: u64) -> io::Result<usize> {
        let end = num::align_up(end, u64::from(self.align)).ok_or(io::ErrorKind::FileTooLarge)?;
        let span = (end - start).min(num::to_u64(BOUNCE_BYTES));
        usize::try_from(span).map_err(io::Error::other)
    }

    fn take_bounce(&self) -> Bounce {
        let pooled = self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        pooled.unwrap_or_else(|| Bounce::new(self.align))
    }

    fn put_bounce(&self, bounce: Bounce) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < POOLED {
            pool.push(bounce);
        }
    }
}

/// A buffer that is aligned in memory, cut out of a larger one.
#[derive(Debug)]
struct Bounce {
    bytes: Vec<u8>,
    start: usize,
}

impl Bounce {
    fn new(align: u32) -> Self {
        let align = usize::try_from(align).unwrap_or(1);
        let bytes = vec![0; BOUNCE_BYTES.saturating_add(align)];
        let start = bytes.as_ptr().align_offset(align).min(align);
        Self { bytes, start }
    }

    fn slice(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.start..][..len]
    }
}

/// The alignment that a file wants, in bytes.
fn alignment(file: &File) -> u32 {
    let said = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .ok()
        .filter(|found| found.stx_mask & StatxFlags::DIOALIGN.bits() != 0)
        .map(|found| found.stx_dio_offset_align.max(found.stx_dio_mem_align));
    said.filter(|&align| align > 0)
        .or_else(|| ioctl_blksszget(file).ok())
        .filter(|align| align.is_power_of_two() && *align <= MAX_ALIGN_BYTES)
        .unwrap_or(DEFAULT_ALIGN_BYTES)
        .max(512)
}

fn end(len: usize, at: u64) -> io::Result<u64> {
    at.checked_add(num::to_u64(len)).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

fn whole(is_whole: bool) -> io::Result<()> {
    if is_whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
