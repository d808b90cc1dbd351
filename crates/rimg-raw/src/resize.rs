//! Changing the size.

use crate::image::RawImage;
use crate::options::{check_preallocation, invalid};
use core::ops::Range;
use rimg_core::{Error, Preallocation, Resize, Result, StorageWrite, Zeroing, num, op};

/// How many zeroes are written at a time, in bytes.
const BUFFER_BYTES: u64 = 1 << 20;

/// What a new file occupies at least, in bytes.
pub(crate) const FIRST_BLOCK_BYTES: u64 = 4096;

impl Resize for RawImage {
    /// The file becomes exactly `size_bytes` long; the disk ends with the sector that its last
    /// byte is in. When a growing file cannot be preallocated it gets its old length back.
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        let file = self.writable()?;
        check_preallocation(preallocation)?;
        if self.window.size.is_some() {
            return Err(invalid("size", "Cannot resize fixed-size raw disks".to_owned()));
        }
        let size_bytes = size_bytes
            .checked_add(self.window.start)
            .ok_or_else(|| invalid("size", "Disk size too large for offset".to_owned()))?;
        let old = file.len_bytes().map_err(Error::io("read file length", 0))?;
        if size_bytes <= old {
            if preallocation != Preallocation::Off {
                return Err(invalid(
                    "preallocation",
                    "Preallocation can only be used for growing images".to_owned(),
                ));
            }
            set_len(file, size_bytes)?;
        } else if let Err(error) = grow(file, old, size_bytes, preallocation) {
            // The first error is the one that tells what went wrong.
            let _ = file.set_len_bytes(old);
            return Err(error);
        }
        self.measure()
    }
}

/// Makes a file that is `old` bytes long `new` bytes long.
pub(crate) fn grow(
    file: &dyn StorageWrite,
    old: u64,
    new: u64,
    preallocation: Preallocation,
) -> Result<()> {
    set_len(file, new)?;
    match preallocation {
        Preallocation::Off | Preallocation::Metadata if old == 0 => take_first_block(file, new),
        Preallocation::Off | Preallocation::Metadata => Ok(()),
        Preallocation::Falloc => {
            file.write_zeroes_at(old..new, Zeroing::KeepAllocated)
                .map_err(Error::io(op::RESERVE_SPACE, old))?;
            if old == 0 { take_first_block(file, new) } else { Ok(()) }
        }
        Preallocation::Full => write_zeroes(file, old..new, op::WRITE_RESERVED_ZEROES),
    }
}

/// Writes zeroes to the first block of a new file, as QEMU does: whoever opens it past the page
/// cache finds out by reading which alignment the file system wants, and a hole does not tell.
fn take_first_block(file: &dyn StorageWrite, len: u64) -> Result<()> {
    let block = len.min(FIRST_BLOCK_BYTES);
    // A device has its space already, and contents that may be somebody's.
    if block == 0 || file.run_at(0).map_err(Error::io("look for holes", 0))?.is_data {
        return Ok(());
    }
    write_zeroes(file, 0..block, "write zeroes")
}

fn set_len(file: &dyn StorageWrite, len: u64) -> Result<()> {
    file.set_len_bytes(len).map_err(Error::io("set file length", len))
}

fn write_zeroes(file: &dyn StorageWrite, range: Range<u64>, op: &'static str) -> Result<()> {
    let Range { start, end } = range;
    let buffer = vec![0; num::to_usize(end.saturating_sub(start).min(BUFFER_BYTES))?];
    let mut at = start;
    while at < end {
        let len = end.saturating_sub(at).min(num::to_u64(buffer.len()));
        let piece = buffer.get(..num::to_usize(len)?).unwrap_or(&buffer);
        file.write_all_at(piece, at).map_err(Error::io(op, at))?;
        at = at.saturating_add(len);
    }
    Ok(())
}
