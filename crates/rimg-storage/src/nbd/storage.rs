//! An exported disk as a storage.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::file::CacheMode;
use crate::nbd::address::NbdAddress;
use crate::nbd::connection::{Connection, Request};
use crate::nbd::error::NbdError;
use crate::nbd::negotiate::{Export, negotiate};
use crate::nbd::wire::{Command, block_status, command_flag, flag};
use core::ops::Range;
use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing, num};
use std::io;
use std::sync::{PoisonError, RwLock};

/// How much is zeroed or trimmed by one request, in bytes. Servers bound the time of one.
const MAX_RANGE_BYTES: u64 = 1 << 30;
/// How much of a disk one request for block status is about, in bytes.
const MAX_STATUS_BYTES: u64 = 1 << 31;
/// How many zeroes are written at a time to a server that makes none, in bytes.
const ZERO_BUFFER_BYTES: u64 = 1 << 20;

/// How an exported disk is opened; the default is for reading.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NbdOptions {
    /// Whether it will be written, too.
    pub writable: bool,
    /// When what was written is durable; the server's page cache is its own business.
    pub cache: CacheMode,
    /// The metadata context that is taken for `base:allocation`, to look at another one as if it
    /// told of holes and zeroes: QEMU's `x-dirty-bitmap`. The server has to have it. What it marks
    /// as bit 1 is taken for zeroes, whatever the disk holds there.
    pub context: Option<String>,
}

/// A disk that a server exports. Its length is fixed.
#[derive(Debug)]
pub struct NbdStorage {
    connection: Connection,
    export: Export,
    options: NbdOptions,
    /// Held for writing by who changes a part of a block, which takes a read and a write.
    whole_blocks: RwLock<()>,
}

impl NbdStorage {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// [`NbdError`]; a disk that the server exports for reading cannot be opened for writing.
    pub fn connect(address: &NbdAddress, options: NbdOptions) -> Result<Self, NbdError> {
        let stream = address.server.connect()?;
        let export = negotiate(&stream, &address.export, options.context.as_deref())?;
        let connection = Connection::new(stream, export.structured)?;
        let storage = Self { connection, export, options, whole_blocks: RwLock::new(()) };
        if storage.options.writable && storage.has(flag::READ_ONLY) {
            let reason = "Could not open image: Permission denied".to_owned();
            return Err(NbdError::Refused { reason, server: None });
        }
        Ok(storage)
    }

    fn has(&self, flag: u16) -> bool {
        self.export.flags & flag != 0
    }

    fn block_bytes(&self) -> u64 {
        self.export.min_block_bytes.into()
    }

    /// Whole blocks around `range`, as far as the disk goes.
    fn blocks_around(&self, range: &Range<u64>) -> Range<u64> {
        let end = num::align_up(range.end, self.block_bytes()).unwrap_or(range.end);
        num::align_down(range.start, self.block_bytes())..end.min(self.export.len_bytes)
    }

    fn is_aligned(&self, range: &Range<u64>) -> bool {
        self.blocks_around(range) == *range
    }

    /// Refuses what reaches past the end.
    fn range(&self, at: u64, len: usize, past_end: io::ErrorKind) -> io::Result<Range<u64>> {
        match at.checked_add(num::to_u64(len)) {
            Some(end) if end <= self.export.len_bytes => Ok(at..end),
            _ => Err(past_end.into()),
        }
    }

    /// Reads whole blocks.
    fn read_blocks(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let max = to_usize(self.export.max_payload_bytes.into())?;
        let mut at = at;
        for piece in buf.chunks_mut(max) {
            let request = request(Command::Read, 0, at, num::to_u64(piece.len()))?;
            self.connection.read(request, piece)?;
            at = at.saturating_add(num::to_u64(piece.len()));
        }
        Ok(())
    }

    /// Writes whole blocks.
    fn write_blocks(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let max = to_usize(self.export.max_payload_bytes.into())?;
        let mut at = at;
        for piece in buf.chunks(max) {
            let len = num::to_u64(piece.len());
            self.connection.send(request(Command::Write, self.fua(), at, len)?, piece)?;
            at = at.saturating_add(len);
        }
        self.written()
    }

    /// Changes a part of whole blocks.
    fn change_blocks(&self, range: &Range<u64>, change: impl Fn(&mut [u8])) -> io::Result<()> {
        let _alone = self.whole_blocks.write().unwrap_or_else(PoisonError::into_inner);
        let blocks = self.blocks_around(range);
        let mut bytes = vec![0; to_usize(blocks.end.saturating_sub(blocks.start))?];
        self.read_blocks(&mut bytes, blocks.start)?;
        let start = to_usize(range.start.saturating_sub(blocks.start))?;
        let end = to_usize(range.end.saturating_sub(blocks.start))?;
        change(bytes.get_mut(start..end).unwrap_or_default());
        self.write_blocks(&bytes, blocks.start)
    }

    /// Sends a request without data for every piece of whole blocks.
    fn over_range(&self, command: Command, flags: u16, range: Range<u64>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let len = range.end.saturating_sub(at).min(MAX_RANGE_BYTES);
            self.connection.send(request(command, flags, at, len)?, &[])?;
            at = at.saturating_add(len);
        }
        self.written()
    }

    /// Zeroes whole blocks.
    fn zero_blocks(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        if self.has(flag::SEND_WRITE_ZEROES) {
            let no_hole = match how {
                Zeroing::MayPunch => 0,
                Zeroing::KeepAllocated => command_flag::NO_HOLE,
            };
            return self.over_range(Command::WriteZeroes, self.fua() | no_hole, range);
        }
        let len = range.end.saturating_sub(range.start).min(ZERO_BUFFER_BYTES);
        let zeroes = vec![0; to_usize(len)?];
        let mut at = range.start;
        while at < range.end {
            let len = range.end.saturating_sub(at).min(len);
            self.write_blocks(zeroes.get(..to_usize(len)?).unwrap_or_default(), at)?;
            at = at.saturating_add(len);
        }
        Ok(())
    }

    /// What makes a write durable at once, where it has to be and the server can.
    fn fua(&self) -> u16 {
        let wanted = self.options.cache.is_write_through() && self.has(flag::SEND_FUA);
        if wanted { command_flag::FUA } else { 0 }
    }

    /// Makes a write durable at once, where it has to be and the server cannot by itself.
    fn written(&self) -> io::Result<()> {
        let wanted = self.options.cache.is_write_through() && !self.has(flag::SEND_FUA);
        if wanted { self.flush() } else { Ok(()) }
    }

    /// A server that has no flush has nothing to flush.
    fn flush(&self) -> io::Result<()> {
        if !self.has(flag::SEND_FLUSH) {
            return Ok(());
        }
        self.connection.send(request(Command::Flush, 0, 0, 0)?, &[])
    }
}

impl Drop for NbdStorage {
    fn drop(&mut self) {
        self.connection.disconnect();
    }
}

impl Storage for NbdStorage {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.export.len_bytes)
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let range = self.range(at, buf.len(), io::ErrorKind::UnexpectedEof)?;
        if buf.is_empty() {
            return Ok(());
        }
        if self.is_aligned(&range) {
            return self.read_blocks(buf, at);
        }
        let blocks = self.blocks_around(&range);
        let mut bytes = vec![0; to_usize(blocks.end.saturating_sub(blocks.start))?];
        self.read_blocks(&mut bytes, blocks.start)?;
        let start = to_usize(at.saturating_sub(blocks.start))?;
        let wanted = bytes.get(start..).and_then(|bytes| bytes.get(..buf.len()));
        buf.copy_from_slice(wanted.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Everything is data where the server does not tell.
    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let left = self.export.len_bytes.checked_sub(at).filter(|left| *left > 0);
        let left = left.ok_or(io::ErrorKind::UnexpectedEof)?;
        let Some(context) = self.export.allocation else { return Ok(StorageRun::data(left)) };
        let end = at.saturating_add(left.min(MAX_STATUS_BYTES));
        let blocks = self.blocks_around(&(at..end));
        let len = blocks.end.saturating_sub(blocks.start);
        let flags = command_flag::REQ_ONE;
        let payload = self.connection.block_status(request(
            Command::BlockStatus,
            flags,
            blocks.start,
            len,
        )?)?;
        let runs = block_status(&payload, context, &blocks)
            .map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
        let first = runs.first().map(|run| run.kind()).unwrap_or_default();
        let alike = runs.iter().take_while(|run| run.kind() == first);
        let len = alike.fold(0_u64, |len, run| len.saturating_add(run.len_bytes));
        let len = blocks.start.saturating_add(len).saturating_sub(at);
        if len == 0 {
            // Only the part of the first block before `at` was told of.
            return Ok(StorageRun::data(left.min(self.block_bytes())));
        }
        let (is_hole, is_zero) = first;
        let len_bytes = len.min(left);
        Ok(StorageRun { len_bytes, is_data: !is_zero, is_allocated: !is_hole })
    }

    fn align_bytes(&self) -> u32 {
        self.export.min_block_bytes
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        if self.options.writable { Some(self) } else { None }
    }
}

impl StorageWrite for NbdStorage {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let range = self.range(at, buf.len(), io::ErrorKind::StorageFull)?;
        if buf.is_empty() {
            return Ok(());
        }
        if self.is_aligned(&range) {
            let _others = self.whole_blocks.read().unwrap_or_else(PoisonError::into_inner);
            return self.write_blocks(buf, at);
        }
        self.change_blocks(&range, |bytes| bytes.copy_from_slice(buf))
    }

    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if range.end > self.export.len_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let block = self.block_bytes();
        let first = num::align_up(range.start, block).unwrap_or(range.end).min(range.end);
        let last = if range.end == self.export.len_bytes {
            range.end
        } else {
            num::align_down(range.end, block).max(first)
        };
        for part in [range.start..first, last..range.end] {
            if !part.is_empty() {
                self.change_blocks(&part, |bytes| bytes.fill(0))?;
            }
        }
        let _others = self.whole_blocks.read().unwrap_or_else(PoisonError::into_inner);
        self.zero_blocks(first..last, how)
    }

    fn discard_at(&self, range: Range<u64>) -> io::Result<()> {
        if !self.has(flag::SEND_TRIM) {
            return Ok(());
        }
        let block = self.block_bytes();
        let end = range.end.min(self.export.len_bytes);
        let start = num::align_up(range.start, block).unwrap_or(end);
        let end = if end == self.export.len_bytes { end } else { num::align_down(end, block) };
        if start >= end {
            return Ok(());
        }
        let _others = self.whole_blocks.read().unwrap_or_else(PoisonError::into_inner);
        self.over_range(Command::Trim, self.fua(), start..end)
    }

    /// What is longer than asked for is as good; it cannot grow.
    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        if len <= self.export.len_bytes {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "Cannot grow NBD nodes"))
    }

    fn sync(&self) -> io::Result<()> {
        if self.options.cache == CacheMode::Unsafe { Ok(()) } else { self.flush() }
    }
}

fn request(command: Command, flags: u16, offset: u64, len: u64) -> io::Result<Request> {
    let len_bytes = u32::try_from(len).map_err(io::Error::other)?;
    Ok(Request { command, flags, offset, len_bytes })
}

fn to_usize(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(io::Error::other)
}
