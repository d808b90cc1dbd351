//! A file that is sent while it is written.

use crate::stop::lock;
use core::fmt;
use core::ops::Range;
use rimg_core::{Error, Result, Storage, StorageRun, StorageWrite, Zeroing, num};
use rimg_storage::MemoryStorage;
use std::io::{self, Write};
use std::sync::Mutex;

/// A file in memory until [`begin`](Self::begin); from then on each write sends all before it,
/// and what was sent is gone.
pub(super) struct Straight {
    memory: MemoryStorage,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    has_begun: bool,
    sent: u64,
}

impl Straight {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        let state = Mutex::new(State { out, has_begun: false, sent: 0 });
        Self { memory: MemoryStorage::new(), state }
    }

    /// What is written now will not change.
    pub(super) fn begin(&self) {
        lock(&self.state).has_begun = true;
    }

    /// Sends the rest.
    pub(super) fn finish(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let sent = state.sent;
        let end = self.memory.len_bytes().map_err(Error::io("write", sent))?;
        self.send_to(&mut state, end).map_err(Error::io("write", sent))?;
        state.out.flush().map_err(Error::io("write", end))
    }

    fn send_to(&self, state: &mut State, end: u64) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while state.sent < end {
            let len = end.saturating_sub(state.sent).min(num::to_u64(buffer.len()));
            let bytes = buffer.get_mut(..usize::try_from(len).unwrap_or(0)).unwrap_or_default();
            self.memory.read_exact_at(bytes, state.sent)?;
            state.out.write_all(bytes)?;
            state.sent = state.sent.saturating_add(len);
        }
        Ok(())
    }
}

fn is_sent() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "what was sent down a pipe cannot be had back")
}

impl Storage for Straight {
    fn len_bytes(&self) -> io::Result<u64> {
        self.memory.len_bytes()
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        if at < lock(&self.state).sent {
            return Err(is_sent());
        }
        self.memory.read_exact_at(buf, at)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        self.memory.run_at(at)
    }

    fn writer(&self) -> Option<&dyn StorageWrite> {
        Some(self)
    }
}

impl StorageWrite for Straight {
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        if !state.has_begun {
            return self.memory.write_all_at(buf, at);
        }
        if at < state.sent {
            return Err(is_sent());
        }
        let end = at.saturating_add(num::to_u64(buf.len()));
        if self.memory.len_bytes()? < end {
            self.memory.set_len_bytes(end)?;
        }
        self.send_to(&mut state, at)?;
        state.out.write_all(buf)?;
        // Memory is for what is still to be sent.
        self.memory.write_zeroes_at(0..end, Zeroing::MayPunch)?;
        state.sent = end;
        Ok(())
    }

    fn write_zeroes_at(&self, range: Range<u64>, how: Zeroing) -> io::Result<()> {
        if range.start < lock(&self.state).sent {
            return Err(is_sent());
        }
        self.memory.write_zeroes_at(range, how)
    }

    fn discard_at(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn set_len_bytes(&self, len: u64) -> io::Result<()> {
        if len < lock(&self.state).sent {
            return Err(is_sent());
        }
        self.memory.set_len_bytes(len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Straight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Straight").field("memory", &self.memory).finish_non_exhaustive()
    }
}
