//! Making zeroes and holes without writing them.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// What the file system was found not to be able to, so that it is not asked again and again.
#[derive(Debug, Default)]
pub(super) struct Abilities {
    cannot_punch: AtomicBool,
    cannot_zero_range: AtomicBool,
    cannot_allocate: AtomicBool,
}

impl Abilities {
    /// Those of a file system that can only be written to.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        let cannot = || AtomicBool::new(true);
        Self { cannot_punch: cannot(), cannot_zero_range: cannot(), cannot_allocate: cannot() }
    }

    /// Makes `range` a hole, as far as it lies within the file; `Ok(false)` when that cannot be
    /// done.
    pub(super) fn punch(&self, file: &File, range: Range<u64>) -> io::Result<bool> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        attempt(&self.cannot_punch, file, how, &range)
    }

    /// Makes `range` zeroes that have space, growing the file; `Ok(false)` when that cannot be
    /// done.
    pub(super) fn zero_allocated(&self, file: &File, range: &Range<u64>) -> io::Result<bool> {
        if attempt(&self.cannot_zero_range, file, FallocateFlags::ZERO_RANGE, range)? {
            return Ok(true);
        }
        if self.cannot_allocate.load(Relaxed) || !self.punch(file, range.clone())? {
            return Ok(false);
        }
        attempt(&self.cannot_allocate, file, FallocateFlags::empty(), range)
    }
}

/// Calls fallocate unless it failed before; `Ok(false)` when the range or the file system is not
/// made for it.
fn attempt(
    cannot: &AtomicBool,
    file: &File,
    how: FallocateFlags,
    range: &Range<u64>,
) -> io::Result<bool> {
    if cannot.load(Relaxed) {
        return Ok(false);
    }
    loop {
        return match fallocate(file, how, range.start, range.end - range.start) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => continue,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::NOTTY) => {
                cannot.store(true, Relaxed);
                Ok(false)
            }
            // Devices want whole sectors; sealed and immutable ones refuse, as writing will.
            Err(Errno::INVAL | Errno::PERM) => Ok(false),
            Err(errno) => Err(errno.into()),
        };
    }
}
