//! Storages that count, fail or wait, around any other storage.

mod counting;
mod delayed;
mod faulty;

pub use counting::{CountingStorage, Counts};
pub use delayed::{Delay, DelayedStorage};
pub use faulty::{Fault, FaultyStorage};

use core::fmt::Debug;
use core::ops::Range;
use rimg_core::{Storage, StorageRun, StorageWrite, Zeroing, num};
use std::io;
use std::sync::Arc;

/// A storage that asks `H` before every operation. It hides that the storage below is a local
/// file, so that nothing goes past it.
#[derive(Debug)]
pub struct Hooked<H> {
    inner: Arc<dyn Storage>,
    hook: H,
}

/// What is asked before every operation.
pub trait Hook: Send + Sync + Debug {
    /// Called before `operation` is done; an error is returned in its place.
    ///
    /// # Errors
    /// Whatever the operation shall fail with.
    fn before(&self, operation: &Operation) -> io::Result<()>;

    /// Called instead of writing when [`before`](Self::before) failed: how much of the buffer is
    /// written nevertheless, in bytes.
    fn torn_write_bytes(&self, _operation: &Operation) -> u64 {
        0
    }
}

/// An operation that is about to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What is done.
    pub kind: OperationKind,
    /// Which bytes it touches; empty for `Len`, `SetLen` (at the new length) and `Sync`.
    pub range: Range<u64>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Asks for the length.
    Len,
    /// Reads.
    Read,
    /// Asks for a run.
    Run,
    /// Writes.
    Write,
    /// Writes zeroes.
    Zero,
    /// Discards.
    Discard,
    /// Sets the length.
    SetLen,
    /// Makes writes durable.
    Sync,
}

impl<H: Hook> Hooked<H> {
    /// `inner`, with `hook` asked before everything.
    pub fn with_hook(inner: Arc<dyn Storage>, hook: H) -> Self {
        Self { inner, hook }
    }

    /// What is asked.
    pub fn hook(&self) -> &H {
        &self.hook
    }

    fn before(&self, kind: OperationKind, range: Range<u64>) -> io::Result<()> {
        self.hook.before(&Operation { kind, range })
    }

    fn inner_writer(&self) -> io::Result<&dyn StorageWrite> {
        self.inner.writer().ok_or_else(|| io::ErrorKind::PermissionDenied.into())
    }
}

impl<H: Hook> Storage for Hooked<H> {
    fn len_bytes(&self) -> io::Result<u64> {
        self.before(OperationKind::Len, 0..0)?;
        self.inner.len_bytes()
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.before(OperationKind::Read, at..at.saturating_add(num::to_u64(buf.len())))?;
        self.inner.read_exact_at(buf, at)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        self.before(OperationKind::Run, at..at.saturating_add(1))?;
        self.inner.run_at(at)
    }

    fn align_bytes(&self) -> u32 {
        self.inner.align_bytes()
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        self.inner.writer().map(|_| -> &dyn StorageWrite { self })
    }

    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        self.inner.allocated_bytes()
    }
}

impl<H: Hook> StorageWrite for Hooked<H> {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let range = at..at.saturating_add(num::to_u64(buf.len()));
        let operation = Operation { kind: OperationKind::Write, range };
        if let Err(error) = self.hook.before(&operation) {
            let torn = usize::try_from(self.hook.torn_write_bytes(&operation)).unwrap();
            self.inner_writer()?.write_all_at(&buf[..torn.min(buf.len())], at)?;
            return Err(error);
        }
        self.inner_writer()?.write_all_at(buf, at)
    }

    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        self.before(OperationKind::Zero, range.clone())?;
        self.inner_writer()?.write_zeroes_at(range, how)
    }

    fn discard_at(&self, range: Range<u64>) -> io::Result<()> {
        self.before(OperationKind::Discard, range.clone())?;
        self.inner_writer()?.discard_at(range)
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        self.before(OperationKind::SetLen, len..len)?;
        self.inner_writer()?.set_len_bytes(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.before(OperationKind::Sync, 0..0)?;
        self.inner_writer()?.sync()
    }
}
