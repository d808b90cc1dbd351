//! Requests and their replies over one connection, several at a time.
//!
//! Nobody but those who wait reads from the connection. One of them reads the header of the next
//! reply and, when it answers somebody else, hands it on; who is answered reads what follows, into
//! its own buffer. So much data is copied once, by the kernel; of little, several replies are read
//! at once.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::nbd::address::Stream;
use crate::nbd::incoming::{Broken, Incoming, ReadAhead};
use crate::nbd::wire::{Body, Command, Fields, Reply, chunk, request};
use core::ops::Range;
use core::time::Duration;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, IoSlice, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

/// How long a server may be silent while it owes a reply: flushing a slow disk takes a while.
const REPLY_TIME: Duration = Duration::from_secs(300);
/// In how many pieces the data of a reply may come.
const MAX_PIECES: usize = 1 << 16;
/// How many chunks without data may answer a request.
const MAX_IDLE_CHUNKS: u32 = 1024;
/// How long a message of an error may be, in bytes.
const MAX_ERROR_BYTES: u32 = 8 << 10;
/// How long a chunk of block status is at least, in bytes: a context and an extent.
const MIN_STATUS_BYTES: u32 = 12;
/// How long a chunk of block status may be, in bytes: servers may tell more than was asked for.
const MAX_STATUS_BYTES: u32 = 1 << 20;

/// A connection whose handshake is over.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    /// One request at a time is being written.
    sending: Mutex<()>,
    receiving: Mutex<Receiving>,
    /// Locked by who reads from the connection, and nobody else.
    ahead: Mutex<ReadAhead>,
    next_cookie: AtomicU64,
    structured: bool,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Receiving {
    /// Somebody reads from the connection.
    busy: bool,
    /// A header that was read and waits for whom it answers.
    header: Option<Reply>,
    /// Requests that are not answered.
    open: HashSet<u64>,
    /// Those of them whose threads sleep. Only who can go on is woken: with many of them, waking
    /// all for each reply would take longer than the replies.
    asleep: HashMap<u64, Thread>,
    /// What went wrong, for good.
    broken: Option<Broken>,
}

impl Receiving {
    /// Wakes whom a header is for, if it sleeps already.
    fn wake(&mut self, cookie: u64) {
        if let Some(thread) = self.asleep.remove(&cookie) {
            thread.unpark();
        }
    }

    /// Wakes one of those who sleep, to read on.
    fn wake_one(&mut self) {
        if let Some(&cookie) = self.asleep.keys().next() {
            self.wake(cookie);
        }
    }

    fn wake_all(&mut self) {
        self.asleep.drain().for_each(|(_, thread)| thread.unpark());
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) flags: u16,
    pub(super) offset: u64,
    pub(super) len_bytes: u32,
}

impl Request {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.len_bytes.into())
    }
}

/// What an answer brings.
enum Wanted<'b> {
    Nothing,
    /// As many bytes as the request asks for.
    Data(&'b mut [u8]),
    /// The payload of a chunk of block status.
    Status(&'b mut Vec<u8>),
}

impl Connection {
    pub(super) fn new(stream: Stream, structured: bool) -> io::Result<Self> {
        stream.set_timeout(REPLY_TIME)?;
        Ok(Self {
            stream,
            sending: Mutex::new(()),
            receiving: Mutex::default(),
            ahead: Mutex::default(),
            next_cookie: AtomicU64::new(1),
            structured,
        })
    }

    /// Fills `buf`, whose length is the request's.
    pub(super) fn read(&self, request: Request, buf: &mut [u8]) -> io::Result<()> {
        self.exchange(request, &[], Wanted::Data(buf))
    }

    /// Sends a request with its data, if it has any.
    pub(super) fn send(&self, request: Request, data: &[u8]) -> io::Result<()> {
        self.exchange(request, data, Wanted::Nothing)
    }

    /// Asks for block status, and gives the payload of the chunk that has it.
    pub(super) fn block_status(&self, request: Request) -> io::Result<Vec<u8>> {
        let mut payload = Vec::new();
        self.exchange(request, &[], Wanted::Status(&mut payload))?;
        Ok(payload)
    }

    /// Tells the server that nothing more will come.
    pub(super) fn disconnect(&self) {
        let bytes = request(Command::Disconnect, 0, 0, 0, 0);
        // The server may be gone.
        let _ = (&self.stream).write_all(&bytes);
        self.stream.shutdown();
    }

    fn exchange(&self, request: Request, data: &[u8], wanted: Wanted<'_>) -> io::Result<()> {
        let cookie = self.next_cookie.fetch_add(1, Ordering::Relaxed);
        let mut receiving = self.receiving();
        if let Some(broken) = receiving.broken {
            return Err(broken.error());
        }
        receiving.open.insert(cookie);
        drop(receiving);
        if let Err(error) = self.write(&request, cookie, data) {
            return Err(self.give_up(Broken::Io(error.kind())));
        }
        let (covered, filled, idle, error) = (BTreeMap::new(), 0, 0, None);
        let mut answer = Answer { request: &request, wanted, covered, filled, idle, error };
        loop {
            let header = self.header_for(cookie)?;
            let took = answer.take(&mut self.incoming(), header.body, self.structured);
            let mut receiving = self.receiving();
            receiving.busy = false;
            match took {
                // The rest of the answer is waited for like its beginning.
                Ok(false) => {}
                Ok(true) => {
                    receiving.open.remove(&cookie);
                    receiving.wake_one();
                    return answer.error.map_or(Ok(()), |error| Err(error_of(error)));
                }
                Err(broken) => {
                    drop(receiving);
                    return Err(self.give_up(broken));
                }
            }
        }
    }

    fn write(&self, what: &Request, cookie: u64, data: &[u8]) -> io::Result<()> {
        let header = request(what.command, what.flags, cookie, what.offset, what.len_bytes);
        let _alone = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stream = &self.stream;
        if data.is_empty() {
            return stream.write_all(&header);
        }
        let sent = loop {
            match stream.write_vectored(&[IoSlice::new(&header), IoSlice::new(data)]) {
                Ok(sent) => break sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        stream.write_all(header.get(sent..).unwrap_or_default())?;
        let sent = sent.saturating_sub(header.len());
        stream.write_all(data.get(sent..).unwrap_or_default())
    }

    /// Waits for the next header that answers `cookie`. The connection is then the caller's to read
    /// from, until it sets `busy` back.
    fn header_for(&self, cookie: u64) -> io::Result<Reply> {
        let mut receiving = self.receiving();
        loop {
            if let Some(broken) = receiving.broken {
                return Err(broken.error());
            }
            if let Some(header) = receiving.header.filter(|header| header.cookie == cookie) {
                receiving.header = None;
                receiving.busy = true;
                return Ok(header);
            }
            if receiving.busy || receiving.header.is_some() {
                receiving.asleep.insert(cookie, thread::current());
                drop(receiving);
                // It may return without a reason: all is looked at again.
                thread::park();
                receiving = self.receiving();
                receiving.asleep.remove(&cookie);
                continue;
            }
            receiving.busy = true;
            drop(receiving);
            let read = self.incoming().header();
            receiving = self.receiving();
            receiving.busy = false;
            match read {
                Ok(header) if receiving.open.contains(&header.cookie) => {
                    receiving.header = Some(header);
                    receiving.wake(header.cookie);
                }
                Ok(_) => {
                    drop(receiving);
                    return Err(self.give_up(Broken::Protocol("reply to no request")));
                }
                Err(broken) => {
                    drop(receiving);
                    return Err(self.give_up(broken));
                }
            }
        }
    }

    /// Ends the connection: what follows in it means nothing any more.
    fn give_up(&self, broken: Broken) -> io::Error {
        self.stream.shutdown();
        let mut receiving = self.receiving();
        let first = *receiving.broken.get_or_insert(broken);
        receiving.wake_all();
        first.error()
    }

    fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incoming(&self) -> Incoming<'_> {
        Incoming::new(&self.stream, &self.ahead)
    }
}

/// An answer that is coming in.
struct Answer<'r, 'b> {
    request: &'r Request,
    wanted: Wanted<'b>,
    /// How much data came.
    filled: u64,
    /// Which parts of the buffer were: where they start and end.
    covered: BTreeMap<usize, usize>,
    /// How many chunks brought none.
    idle: u32,
    /// The error that the server reports, if one.
    error: Option<u32>,
}

impl Answer<'_, '_> {
    /// Reads what follows a header; whether that was all.
    fn take(
        &mut self,
        incoming: &mut Incoming<'_>,
        body: Body,
        structured: bool,
    ) -> Result<bool, Broken> {
        match body {
            Body::Simple { error: 0 } => match &mut self.wanted {
                Wanted::Nothing => Ok(true),
                Wanted::Data(_) if structured => {
                    Err(Broken::Protocol("simple reply to a read, where replies are structured"))
                }
                Wanted::Data(buf) => {
                    incoming.fill(buf)?;
                    Ok(true)
                }
                Wanted::Status(_) => Err(Broken::Protocol("simple reply to block status")),
            },
            Body::Simple { error } => {
                self.error = Some(error);
                Ok(true)
            }
            Body::Chunk { .. } if !structured => {
                Err(Broken::Protocol("structured reply that was not negotiated"))
            }
            Body::Chunk { done, kind, len_bytes } => {
                self.chunk(incoming, kind, len_bytes)?;
                if !done {
                    return Ok(false);
                }
                self.check_complete()?;
                Ok(true)
            }
        }
    }

    fn chunk(
        &mut self,
        incoming: &mut Incoming<'_>,
        kind: u16,
        len_bytes: u32,
    ) -> Result<(), Broken> {
        match kind {
            chunk::NONE if len_bytes == 0 => self.count_idle(),
            chunk::OFFSET_DATA => {
                let data = len_bytes.checked_sub(8).filter(|len| *len > 0);
                let data = data.ok_or(Broken::Protocol("chunk of data without data"))?;
                let at = u64::from_be_bytes(incoming.read()?);
                incoming.fill(self.piece(at, data)?)
            }
            chunk::OFFSET_HOLE if len_bytes == 12 => {
                let at = u64::from_be_bytes(incoming.read()?);
                let len = u32::from_be_bytes(incoming.read()?);
                if len == 0 {
                    return Err(Broken::Protocol("hole without a length"));
                }
                self.piece(at, len)?.fill(0);
                Ok(())
            }
            chunk::BLOCK_STATUS if (MIN_STATUS_BYTES..=MAX_STATUS_BYTES).contains(&len_bytes) => {
                let payload = incoming.read_vec(len_bytes)?;
                match &mut self.wanted {
                    Wanted::Status(status) if status.is_empty() => {
                        **status = payload;
                        Ok(())
                    }
                    _ => Err(Broken::Protocol("block status that was not asked for")),
                }
            }
            kind if kind & chunk::ERROR_BIT != 0 && len_bytes <= MAX_ERROR_BYTES => {
                let payload = incoming.read_vec(len_bytes)?;
                let mut fields = Fields(&payload);
                let (Some(error), Some(_message)) = (fields.u32(), fields.short_text()) else {
                    return Err(Broken::Protocol("error chunk that is cut off"));
                };
                if error == 0 {
                    return Err(Broken::Protocol("error chunk without an error"));
                }
                self.error.get_or_insert(error);
                self.count_idle()
            }
            _ => Err(Broken::Protocol("unexpected chunk of a reply")),
        }
    }

    fn count_idle(&mut self) -> Result<(), Broken> {
        self.idle = self.idle.saturating_add(1);
        if self.idle > MAX_IDLE_CHUNKS {
            return Err(Broken::Protocol("reply that does not end"));
        }
        Ok(())
    }

    /// The part of the buffer for `len` bytes of the disk from `at` on.
    fn piece(&mut self, at: u64, len: u32) -> Result<&mut [u8], Broken> {
        let Wanted::Data(buf) = &mut self.wanted else {
            return Err(Broken::Protocol("data that was not asked for"));
        };
        let start = at.checked_sub(self.request.offset).and_then(|at| usize::try_from(at).ok());
        const OUTSIDE: Broken = Broken::Protocol("data outside of what was asked for");
        let range = start
            .zip(usize::try_from(len).ok())
            .and_then(|(start, len)| Some(start..start.checked_add(len)?));
        let Some(range) = range.filter(|range| range.end <= buf.len()) else {
            return Err(OUTSIDE);
        };
        // Data that comes twice would stand for data that never comes.
        let before = self.covered.range(..range.end).next_back();
        if before.is_some_and(|(_, end)| *end > range.start) {
            return Err(Broken::Protocol("data that came before"));
        }
        if self.covered.len() >= MAX_PIECES {
            return Err(Broken::Protocol("reply in too many pieces"));
        }
        self.covered.insert(range.start, range.end);
        let piece = buf.get_mut(range).ok_or(OUTSIDE)?;
        self.filled = self.filled.saturating_add(len.into());
        Ok(piece)
    }

    fn check_complete(&self) -> Result<(), Broken> {
        let missing = match &self.wanted {
            _ if self.error.is_some() => false,
            Wanted::Nothing => false,
            Wanted::Data(_) => {
                self.filled < self.request.range().end.saturating_sub(self.request.offset)
            }
            Wanted::Status(payload) => payload.is_empty(),
        };
        if missing { Err(Broken::Protocol("less than was asked for")) } else { Ok(()) }
    }
}

/// The system's error for one of the protocol, which has the numbers of Linux.
fn error_of(error: u32) -> io::Error {
    const EINVAL: i32 = 22;
    match error {
        // EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, EOPNOTSUPP, ESHUTDOWN.
        1 | 5 | 12 | 22 | 28 | 75 | 95 | 108 => {
            io::Error::from_raw_os_error(i32::try_from(error).unwrap_or(EINVAL))
        }
        _ => io::Error::from_raw_os_error(EINVAL),
    }
}
