//! Where the bytes of a file live.

use core::fmt::Debug;
use core::ops::Range;
use std::io;

/// A sequence of bytes that can be read at any position: a file, memory, a remote object.
///
/// Implementations are shared between threads and have no file position.
pub trait Storage: Send + Sync + Debug {
    /// The length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Fills `buf` from the bytes at `at`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the range reaches past the end; `buf` is then
    /// unspecified.
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()>;

    /// Says whether `at` lies in data or in a hole that reads as zeroes, and for how long. Data is
    /// always a correct answer. `at` is below the length.
    ///
    /// # Errors
    /// What the operating system says.
    fn run_at(&self, at: u64) -> io::Result<StorageRun>;

    /// The alignment in bytes of positions, lengths and buffers that avoids bouncing; calls with
    /// other alignments work as well. 1 unless the storage bypasses the page cache.
    fn align_bytes(&self) -> u32 {
        1
    }

    /// The writing half, when the storage may be written.
    fn writer(&self) -> Option<&dyn StorageWrite> {
        None
    }

    /// How many bytes the storage occupies, where that can be told ("disk size").
    ///
    /// # Errors
    /// What the operating system says.
    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// The writable storage of a local file, for moving data inside the kernel.
    ///
    /// Copies `len_bytes` from `from` in this storage to `to` in `target` without passing them
    /// through user space, or answers `Ok(false)` when that cannot be done and nothing was copied.
    ///
    /// # Errors
    /// What the operating system says once copying has begun.
    fn copy_to(
        &self,
        target: &dyn Storage,
        from: u64,
        to: u64,
        len_bytes: u64,
    ) -> io::Result<bool> {
        let _ = (target, from, to, len_bytes);
        Ok(false)
    }

    /// Says what the accesses that follow are about, by QEMU's name for it: `l2_load`,
    /// `cluster_alloc`. Storages that inject errors listen; nobody else does.
    fn note(&self, event: &'static str) {
        let _ = event;
    }

    /// Whether somebody listens to what is [noted](Self::note). Who reads past a format then lets
    /// the format read, which says what it does.
    fn listens(&self) -> bool {
        false
    }

    /// The local file behind this storage, for implementations of [`Storage::copy_to`].
    fn local_file(&self) -> Option<&std::fs::File> {
        None
    }
}

/// The writing half of a [`Storage`].
pub trait StorageWrite: Storage {
    /// Writes all of `buf` at `at`, growing the storage when it ends before.
    ///
    /// # Errors
    /// What the operating system says; the range is then unspecified.
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()>;

    /// Makes `range` read as zeroes, growing the storage when it ends before `range` does.
    ///
    /// # Errors
    /// What the operating system says.
    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()>;

    /// Says that nobody needs the contents of `range` any more: afterwards it reads as zeroes or
    /// as before. Never changes the length.
    ///
    /// # Errors
    /// What the operating system says; "not supported" is no error.
    fn discard_at(&self, range: Range<u64>) -> io::Result<()>;

    /// Sets the length; new bytes read as zeroes.
    ///
    /// # Errors
    /// What the operating system says.
    fn set_len_bytes(&self, len: u64) -> io::Result<()>;

    /// Whether bytes read as zeroes that were never written: so it is with files, which begin
    /// empty, and not with devices, which hold what their last user left.
    ///
    /// An image may take a place that it gives to the guest for zeroes where this is so. Saying
    /// `false` is always right.
    fn is_zero_where_unwritten(&self) -> bool {
        false
    }

    /// Makes all completed writes durable.
    ///
    /// # Errors
    /// What the operating system says; the durability of earlier writes is then unknown.
    fn sync(&self) -> io::Result<()>;
}

/// How [`StorageWrite::write_zeroes_at`] may make zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeroing {
    /// Space may be given back: the range may become a hole.
    MayPunch,
    /// Space is reserved or kept: a later write into the range does not run out of space.
    KeepAllocated,
}

/// A run of a storage that is either data or a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageRun {
    /// How long the run is, in bytes; never 0 below the end.
    pub len_bytes: u64,
    /// Whether it may hold something other than zeroes.
    pub is_data: bool,
    /// Whether it takes up space, as far as is known. Servers may say that something takes up
    /// none and yet not that it is zero.
    pub is_allocated: bool,
}

impl StorageRun {
    /// A run of data.
    #[must_use]
    pub const fn data(len_bytes: u64) -> Self {
        Self { len_bytes, is_data: true, is_allocated: true }
    }

    /// A run that reads as zeroes and occupies nothing.
    #[must_use]
    pub const fn hole(len_bytes: u64) -> Self {
        Self { len_bytes, is_data: false, is_allocated: false }
    }
}
