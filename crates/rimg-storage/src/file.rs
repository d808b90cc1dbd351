//! Local files: regular files and block devices.

mod copy;
mod direct;
mod holes;
mod lock;
mod options;
mod zero;

#[cfg(feature = "mmap")]
pub(crate) use holes::run_at;
pub use lock::{LockConflict, Permission};
pub use options::{CacheMode, Creation, FileOptions, Locking};

use core::ops::Range;
use direct::Direct;
use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing, num};
use rustix::fs::{OFlags, SeekFrom, fdatasync, seek};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zero::Abilities;

/// A regular file or a block device.
///
/// Errors are the operating system's, with its error code, or a [`LockConflict`].
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    path: PathBuf,
    options: FileOptions,
    kind: Kind,
    /// How to go past the page cache, when asked to.
    direct: Option<Direct>,
    abilities: Abilities,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    Device,
}

impl FileStorage {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// What the operating system says; [`LockConflict`] when another process is in the way;
    /// [`io::ErrorKind::InvalidInput`] for what is neither a file nor a device, such as a
    /// directory.
    pub fn open(path: impl AsRef<Path>, options: FileOptions) -> io::Result<Self> {
        Self::open_path(path.as_ref(), options)
    }

    fn open_path(path: &Path, options: FileOptions) -> io::Result<Self> {
        // Without O_NONBLOCK, opening a pipe waits for its other end; files do not know the flag.
        let mut flags = OFlags::NONBLOCK;
        if options.cache.is_direct() {
            flags |= OFlags::DIRECT;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(options.writable)
            .create(options.creation == Creation::CreateOrEmpty)
            .create_new(options.creation == Creation::CreateNew)
            .mode(0o644)
            .custom_flags(i32::try_from(flags.bits()).map_err(io::Error::other)?)
            .open(path)?;

        let kind = file.metadata()?.file_type();
        let kind = if kind.is_file() {
            Kind::Regular
        } else if kind.is_block_device() || kind.is_char_device() {
            Kind::Device
        } else {
            let path = path.display();
            let message = format!("'file' driver requires '{path}' to be a regular file");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };

        lock::lock(&file, options.writable, options.locking)?;
        if options.creation == Creation::CreateOrEmpty && kind == Kind::Regular {
            file.set_len(0)?;
        }
        let direct = if options.cache.is_direct() { Some(Direct::new(&file)) } else { None };
        let abilities = Abilities::default();
        Ok(Self { file, path: path.to_owned(), options, kind, direct, abilities })
    }

    /// Takes other locks than those it was opened with. Until it returns, none are held, and none
    /// afterwards when it fails.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn relock(&self, locking: Locking) -> io::Result<()> {
        lock::unlock(&self.file)?;
        lock::lock(&self.file, self.options.writable, locking)
    }

    /// Where the file was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is a device, whose length cannot be changed.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.kind == Kind::Device
    }

    /// Makes a change durable where every change has to be.
    fn written(&self) -> io::Result<()> {
        if self.options.cache.is_write_through() { Ok(fdatasync(&self.file)?) } else { Ok(()) }
    }
}

impl Drop for FileStorage {
    fn drop(&mut self) {
        // A process that another thread is just starting has the file open, too, for a moment,
        // and would keep the locks.
        let _ = lock::unlock(&self.file);
    }
}

impl Storage for FileStorage {
    fn len_bytes(&self) -> io::Result<u64> {
        match self.kind {
            Kind::Regular => Ok(self.file.metadata()?.len()),
            Kind::Device => Ok(seek(&self.file, SeekFrom::End(0))?),
        }
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        match &self.direct {
            None => self.file.read_exact_at(buf, at),
            Some(direct) => direct.read_exact_at(&self.file, buf, at),
        }
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        holes::run_at(&self.file, at, self.len_bytes()?)
    }

    fn align_bytes(&self) -> u32 {
        self.direct.as_ref().map_or(1, Direct::align_bytes)
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        if self.options.writable { Some(self) } else { None }
    }

    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        // The unit of st_blocks, whatever the file system's own.
        Ok(self.file.metadata()?.blocks().checked_mul(512))
    }

    fn copy_to(
        &self,
        target: &dyn Storage,
        from: u64,
        to: u64,
        len_bytes: u64,
    ) -> io::Result<bool> {
        match (self.local_file(), target.local_file()) {
            (Some(source), Some(target)) => copy::copy(source, target, from, to, len_bytes),
            _ => Ok(false),
        }
    }

    /// `None` when the page cache is bypassed: the kernel's copying would go through it; and when
    /// every write has to be durable.
    fn local_file(&self) -> Option<&File> {
        let plain = self.direct.is_none() && !self.options.cache.is_write_through();
        plain.then_some(&self.file)
    }
}

impl StorageWrite for FileStorage {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        match &self.direct {
            None => self.file.write_all_at(buf, at)?,
            Some(direct) => direct.write_all_at(&self.file, buf, at)?,
        }
        self.written()
    }

    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.zero(range, how)?;
        self.written()
    }

    fn discard_at(&self, range: Range<u64>) -> io::Result<()> {
        let range = range.start..range.end.min(self.len_bytes()?);
        if range.is_empty() {
            return Ok(());
        }
        let _alone = self.direct.as_ref().map(Direct::alone);
        self.abilities.punch(&self.file, range)?;
        self.written()
    }

    /// A device keeps its length: asking for less is no error, asking for more is one.
    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        if self.kind == Kind::Device {
            return if len <= self.len_bytes()? {
                Ok(())
            } else {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "Cannot grow device files"))
            };
        }
        let _alone = self.direct.as_ref().map(Direct::alone);
        self.file.set_len(len)?;
        self.written()
    }

    fn is_zero_where_unwritten(&self) -> bool {
        self.kind != Kind::Device
    }

    fn sync(&self) -> io::Result<()> {
        if self.options.cache == CacheMode::Unsafe { Ok(()) } else { Ok(fdatasync(&self.file)?) }
    }
}

impl FileStorage {
    /// Makes a range that is not empty read as zeroes, in the best way that works here.
    fn zero(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        let len = {
            let _alone = self.direct.as_ref().map(Direct::alone);
            let len = self.len_bytes()?;
            if self.kind == Kind::Device && range.end > len {
                // fallocate would do the part that is there and say nothing.
                return Err(Errno::NOSPC.into());
            }
            let done = match how {
                Zeroing::MayPunch => {
                    self.grow(len, &range)?;
                    self.abilities.punch(&self.file, range.clone())?
                }
                Zeroing::KeepAllocated => self.abilities.zero_allocated(&self.file, &range)?,
            };
            if done {
                return Ok(());
            }
            len
        };
        // What lies past the old end is a hole since the file grew.
        let end = match how {
            Zeroing::MayPunch if self.kind == Kind::Regular => range.end.min(len),
            _ => range.end,
        };
        self.write_zero_buffers(range.start..end)
    }

    /// Makes a regular file that is `len` bytes long reach to the end of `range`.
    fn grow(&self, len: u64, range: &Range<u64>) -> io::Result<()> {
        if self.kind == Kind::Device || range.end <= len {
            return Ok(());
        }
        if self.direct.is_some() {
            // Nobody else writes now.
            return self.file.set_len(range.end);
        }
        // Others may be growing the file at the same time, and setting its length would cut off
        // what they wrote. A byte of the range is ours to write, and is punched out again.
        self.file.write_all_at(&[0], range.end - 1)
    }

    fn write_zero_buffers(&self, range: Range<u64>) -> io::Result<()> {
        const BUFFER_BYTES: u64 = 1 << 20;
        let mut at = range.start;
        let buffer_len = range.end.saturating_sub(at).min(BUFFER_BYTES);
        let buffer = vec![0; usize::try_from(buffer_len).map_err(io::Error::other)?];
        while at < range.end {
            // Stops at multiples of the buffer's size keep a direct file from bouncing.
            let end = num::align_down(at.saturating_add(BUFFER_BYTES), BUFFER_BYTES).min(range.end);
            let len = usize::try_from(end - at).map_err(io::Error::other)?;
            let piece = &buffer[..len];
            match &self.direct {
                None => self.file.write_all_at(piece, at)?,
                Some(direct) => direct.write_all_at(&self.file, piece, at)?,
            }
            at = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_written_where_nothing_else_works() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        for cache in [CacheMode::Writeback, CacheMode::None] {
            for how in [Zeroing::MayPunch, Zeroing::KeepAllocated] {
                let path = dir.path().join("disk");
                let mut file = FileStorage::open(&path, FileOptions::create().cache(cache))?;
                file.abilities = Abilities::none();
                file.write_all_at(&[7; 5_000_000], 0)?;
                file.write_zeroes_at(1_000..4_000_000, how)?;
                file.write_zeroes_at(4_999_999..6_000_001, how)?;
                file.discard_at(0..100)?;
                let mut wanted = vec![7; 5_000_000];
                wanted.resize(6_000_001, 0);
                wanted[1_000..4_000_000].fill(0);
                wanted[4_999_999] = 0;
                assert!(std::fs::read(&path)? == wanted, "{cache:?}, {how:?}");
            }
        }
        Ok(())
    }
}
