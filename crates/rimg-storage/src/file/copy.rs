//! Moving data between files inside the kernel.

use rustix::fs::copy_file_range;
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// The most that one call is asked for, so that a cancelled job does not wait for gigabytes.
const STEP_BYTES: u64 = 64 << 20;

/// Copies `len` bytes, or answers `Ok(false)` when that cannot be done and nothing was copied.
pub(super) fn copy(
    source: &File,
    target: &File,
    mut from: u64,
    mut to: u64,
    len: u64,
) -> io::Result<bool> {
    let mut left = len;
    while left > 0 {
        let step = usize::try_from(left.min(STEP_BYTES)).unwrap_or(usize::MAX);
        let copied = match copy_file_range(source, Some(&mut from), target, Some(&mut to), step) {
            Ok(0) if left == len => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => copied,
            Err(Errno::INTR) => continue,
            Err(errno) if left == len && is_refusal(errno) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        left = left.saturating_sub(rimg_core::num::to_u64(copied));
    }
    Ok(true)
}

/// Whether the kernel says that it does not copy between these files, or not in this way.
fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::XDEV
            | Errno::INVAL
            | Errno::OPNOTSUPP
            | Errno::NOSYS
            | Errno::BADF
            | Errno::PERM
            | Errno::ACCESS
            | Errno::TXTBSY
            | Errno::IO
    )
}
