//! Room in memory, and its pages touched beforehand.

use crate::Result;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Writes `bytes` into a file in `folder` and removes it: on tmpfs the pages that are freed are
/// backed by real memory, and are the next to be handed out.
pub(super) fn touch(folder: &Path, bytes: u64) -> Result {
    let path = folder.join("touch");
    let mut file = File::create(&path)?;
    // Not zero: nothing may take it for a hole.
    let block = vec![0xa5_u8; 1 << 20];
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&block)?;
    }
    drop(file);
    Ok(fs::remove_file(path)?)
}

/// How many bytes can be written to `folder`, as far as memory goes too when it is on tmpfs.
pub(super) fn room_bytes(folder: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(folder).ok()?;
    let free = stat.blocks_available().checked_mul(stat.fragment_size())?;
    if is_memory(folder) { Some(free.min(available_memory_bytes()?)) } else { Some(free) }
}

/// Whether the folder is on a file system that lives in memory.
pub(super) fn is_memory(folder: &Path) -> bool {
    nix::sys::statfs::statfs(folder)
        .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
}

fn available_memory_bytes() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}
