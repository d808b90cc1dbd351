//! Reading replies: what is small is read ahead, what is large goes where it is wanted at once.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::nbd::address::Stream;
use crate::nbd::wire::{Body, CHUNK_REST_BYTES, Reply, ReplyStart, SIMPLE_BYTES};
use core::ops::Range;
use rimg_core::num;
use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How much is read ahead of what is asked for, in bytes.
const READ_AHEAD_BYTES: usize = 16 << 10;

/// Why a connection is of no use any more.
#[derive(Debug, Clone, Copy)]
pub(super) enum Broken {
    Io(io::ErrorKind),
    Protocol(&'static str),
}

impl Broken {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                io::Error::new(io::ErrorKind::TimedOut, "the NBD server does not answer")
            }
            Self::Io(io::ErrorKind::UnexpectedEof) => {
                io::Error::new(io::ErrorKind::ConnectionAborted, "the NBD server hung up")
            }
            Self::Io(kind) => kind.into(),
            Self::Protocol(reason) => {
                io::Error::new(io::ErrorKind::InvalidData, format!("NBD server: {reason}"))
            }
        }
    }
}

/// Bytes that were read from the connection before anybody asked for them.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    bytes: Vec<u8>,
    unread: Range<usize>,
}

/// The receiving half of a connection.
pub(super) struct Incoming<'c> {
    stream: &'c Stream,
    ahead: MutexGuard<'c, ReadAhead>,
}

impl<'c> Incoming<'c> {
    /// `ahead` is the connection's, and nobody else reads from it meanwhile.
    pub(super) fn new(stream: &'c Stream, ahead: &'c Mutex<ReadAhead>) -> Self {
        Self { stream, ahead: ahead.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The header of the next reply.
    pub(super) fn header(&mut self) -> Result<Reply, Broken> {
        let start: [u8; SIMPLE_BYTES] = self.read()?;
        match ReplyStart::parse(&start).ok_or(Broken::Protocol("unexpected reply magic"))? {
            ReplyStart::Simple(reply) => Ok(reply),
            ReplyStart::Chunk { cookie, done, kind } => {
                let rest: [u8; CHUNK_REST_BYTES] = self.read()?;
                let body = Body::Chunk { done, kind, len_bytes: u32::from_be_bytes(rest) };
                Ok(Reply { cookie, body })
            }
        }
    }

    pub(super) fn read<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads a payload whose length was held against a bound.
    pub(super) fn read_vec(&mut self, len_bytes: u32) -> Result<Vec<u8>, Broken> {
        let too_long = |_| Broken::Protocol("reply that is too long");
        let mut bytes = vec![0; num::to_usize(len_bytes.into()).map_err(too_long)?];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn fill(&mut self, buf: &mut [u8]) -> Result<(), Broken> {
        let broken = |error: io::Error| Broken::Io(error.kind());
        let mut stream = self.stream;
        let mut buf = buf;
        while !buf.is_empty() {
            let ahead = &mut *self.ahead;
            if ahead.unread.is_empty() {
                if buf.len() >= READ_AHEAD_BYTES {
                    return stream.read_exact(buf).map_err(broken);
                }
                ahead.bytes.resize(READ_AHEAD_BYTES, 0);
                ahead.unread = 0..read_some(stream, &mut ahead.bytes).map_err(broken)?;
            }
            let len = ahead.unread.len().min(buf.len());
            let (now, rest) = buf.split_at_mut(len);
            let end = ahead.unread.start.saturating_add(len);
            now.copy_from_slice(ahead.bytes.get(ahead.unread.start..end).unwrap_or_default());
            ahead.unread.start = end;
            buf = rest;
        }
        Ok(())
    }
}

/// Reads as much as there is, 1 byte at least.
fn read_some(mut stream: &Stream, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buf) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
