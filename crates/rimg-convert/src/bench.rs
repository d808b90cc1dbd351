//! Requests of one size in a row, and how long they take.

use crate::align;
use crate::stop::lock;
use core::num::NonZeroU64;
use rimg_core::num::{to_u64, to_usize};
use rimg_core::{BlockImage, Error, ImageWrite, Result};
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What to ask of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BenchOptions {
    /// How many requests.
    pub count: u64,
    /// How many at the same time, each by a thread of its own; no more than 64 are.
    pub depth: usize,
    /// The length of each in bytes.
    pub buffer_bytes: u64,
    /// How far each lies behind the one before, in bytes; at the end of the disk it goes on at the
    /// start.
    pub step_bytes: u64,
    /// The guest offset of the first in bytes.
    pub offset: u64,
    /// Write bytes of this value, in place of reading.
    pub write: Option<u8>,
    /// Flush after so many writes.
    pub flush_interval: Option<NonZeroU64>,
    /// Let all requests that are under way end before a flush, and begin none meanwhile.
    pub drain: bool,
}

impl Default for BenchOptions {
    /// What `qemu-img bench` does without options.
    fn default() -> Self {
        Self {
            count: 75_000,
            depth: 64,
            buffer_bytes: 4096,
            step_bytes: 4096,
            offset: 0,
            write: None,
            flush_interval: None,
            drain: true,
        }
    }
}

/// More threads than this only wait for each other.
const MAX_THREADS: usize = 64;
/// What all buffers together take at most, in bytes, as long as each thread has one.
const MAX_BUFFERS_BYTES: u64 = 1 << 30;

/// Sends the requests and returns how long they took.
///
/// # Errors
/// Why the first of them failed. One that reaches past the end of the disk fails with the
/// system's "input/output error".
pub fn bench(image: &dyn BlockImage, options: &BenchOptions) -> Result<Duration> {
    let writer = match options.write {
        None => None,
        Some(_) => Some(image.writer().ok_or(Error::ReadOnly("it was opened for reading"))?),
    };
    let at_once = MAX_BUFFERS_BYTES.checked_div(options.buffer_bytes).unwrap_or(1);
    let threads = to_u64(options.depth.min(MAX_THREADS)).min(options.count).min(at_once).max(1);
    let bench = Bench {
        image,
        writer,
        options,
        buffer_bytes: to_usize(options.buffer_bytes)?,
        turn: Mutex::default(),
        changed: Condvar::new(),
    };
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 1..threads {
            // Where the system refuses, fewer threads send the same requests.
            let _ = thread::Builder::new()
                .name("rimg bench".into())
                .spawn_scoped(scope, || bench.work());
        }
        bench.work();
    });
    let turn = bench.turn.into_inner().unwrap_or_else(PoisonError::into_inner);
    match turn.failed {
        Some(error) => Err(error),
        None => Ok(start.elapsed()),
    }
}

struct Bench<'a> {
    image: &'a dyn BlockImage,
    writer: Option<&'a dyn ImageWrite>,
    options: &'a BenchOptions,
    buffer_bytes: usize,
    turn: Mutex<Turn>,
    changed: Condvar,
}

/// Whose turn it is.
#[derive(Default)]
struct Turn {
    next: u64,
    in_flight: u64,
    /// So many requests were there when the last flush began.
    flushed: u64,
    is_flushing: bool,
    failed: Option<Error>,
}

/// What a thread does next.
enum Task {
    Request(u64),
    Flush,
}

impl Bench<'_> {
    /// What one thread does.
    fn work(&self) {
        let mut buffer = Vec::new();
        let start = align::make_room(&mut buffer, self.buffer_bytes);
        let bytes = buffer.get_mut(start..).unwrap_or_default();
        let bytes = bytes.get_mut(..self.buffer_bytes).unwrap_or_default();
        bytes.fill(self.options.write.unwrap_or(0));
        while let Some(task) = self.next_task() {
            let is_flush = matches!(task, Task::Flush);
            let done = match (task, self.writer) {
                (Task::Request(index), _) => self.request(index, bytes),
                (Task::Flush, Some(writer)) => writer.flush(),
                (Task::Flush, None) => Ok(()),
            };
            let mut turn = lock(&self.turn);
            turn.in_flight -= 1;
            turn.is_flushing &= !is_flush;
            if let Err(error) = done {
                turn.failed.get_or_insert(error);
            }
            drop(turn);
            if self.options.flush_interval.is_some() {
                self.changed.notify_all();
            }
        }
    }

    fn next_task(&self) -> Option<Task> {
        let mut turn = lock(&self.turn);
        loop {
            if turn.failed.is_some() {
                return None;
            }
            let is_due = self.options.flush_interval.is_some_and(|interval| {
                turn.next != 0
                    && turn.next.is_multiple_of(interval.get())
                    && turn.flushed < turn.next
            });
            if !is_due && turn.next >= self.options.count {
                return None;
            }
            let is_in_the_way = if is_due { turn.in_flight > 0 } else { turn.is_flushing };
            if self.options.drain && is_in_the_way {
                turn = self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            turn.in_flight += 1;
            if is_due {
                turn.flushed = turn.next;
                turn.is_flushing = true;
                return Some(Task::Flush);
            }
            turn.next += 1;
            return Some(Task::Request(turn.next - 1));
        }
    }

    fn request(&self, index: u64, bytes: &mut [u8]) -> Result<()> {
        let at = self.offset_of(index);
        let end = at.checked_add(to_u64(bytes.len()));
        if end.is_none_or(|end| end > self.image.size_bytes()) {
            const EIO: i32 = 5;
            return Err(Error::io("request", at)(io::Error::from_raw_os_error(EIO)));
        }
        match self.writer {
            Some(writer) => writer.write_at(bytes, at),
            None => self.image.read_at(bytes, at),
        }
    }

    /// The first request goes where it was sent; those behind it wrap around.
    fn offset_of(&self, index: u64) -> u64 {
        if index == 0 {
            return self.options.offset;
        }
        let far = u128::from(self.options.step_bytes) * u128::from(index)
            + u128::from(self.options.offset);
        let size = u128::from(self.image.size_bytes());
        u64::try_from(far.checked_rem(size).unwrap_or(far)).unwrap_or(u64::MAX)
    }
}
