//! Where a disk is exported, and reaching it.

use crate::nbd::error::NbdError;
use core::fmt;
use core::time::Duration;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// How long a connection may take to come about.
const CONNECT_TIME: Duration = Duration::from_secs(30);

const ECONNREFUSED: i32 = 111;

/// An exported disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdAddress {
    /// Who exports it.
    pub server: NbdServer,
    /// Its name there; servers may have one of an empty name.
    pub export: String,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbdServer {
    /// On a socket of this machine.
    Unix(PathBuf),
    /// On a port of a machine; names are resolved.
    Tcp {
        /// The machine.
        host: String,
        /// The port, a number; names of services are not resolved.
        port: String,
    },
}

impl fmt::Display for NbdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl NbdServer {
    /// Connects.
    pub(super) fn connect(&self) -> Result<Stream, NbdError> {
        let connected = match self {
            // The system takes an empty path for a socket that nobody has.
            Self::Unix(path) if path.as_os_str().is_empty() => {
                Err(io::Error::from_raw_os_error(ECONNREFUSED))
            }
            Self::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Self::Tcp { host, port } => connect_tcp(&self.resolve(host, port)?),
        };
        connected.map_err(|source| NbdError::Connect { server: self.to_string(), source })
    }

    fn resolve(&self, host: &str, port: &str) -> Result<Vec<SocketAddr>, NbdError> {
        let failed = |reason: String| NbdError::Resolve { server: self.to_string(), reason };
        // As C programs read it: what does not fit wraps around.
        let number = port.parse::<u64>().ok().map(|port| port & u64::from(u16::MAX));
        let number = number.and_then(|port| u16::try_from(port).ok());
        let number =
            number.ok_or_else(|| failed("Servname not supported for ai_socktype".to_owned()))?;
        if host.is_empty() {
            return Err(failed("Name or service not known".to_owned()));
        }
        let found = (host, number).to_socket_addrs().map_err(|error| {
            let words = error.to_string();
            failed(words.rsplit_once(": ").map_or(words.as_str(), |(_, words)| words).to_owned())
        })?;
        Ok(found.collect())
    }
}

/// Tries all addresses of a name, as every one of them may be the one that is served.
fn connect_tcp(addresses: &[SocketAddr]) -> io::Result<Stream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_TIME) {
            Ok(stream) => {
                // Requests are small and somebody waits for each.
                stream.set_nodelay(true)?;
                return Ok(Stream::Tcp(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection, both ways of which are used at the same time.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// How long to wait for anything to come, and for anything to be taken.
    pub(super) fn set_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(time))?;
                stream.set_write_timeout(Some(time))
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(time))?;
                stream.set_write_timeout(Some(time))
            }
        }
    }

    /// Ends it: who waits for it is told.
    pub(super) fn shutdown(&self) {
        // It may have ended already.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&mut &*stream).read(buf),
            Stream::Tcp(stream) => (&mut &*stream).read(buf),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&mut &*stream).write(buf),
            Stream::Tcp(stream) => (&mut &*stream).write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&mut &*stream).write_vectored(bufs),
            Stream::Tcp(stream) => (&mut &*stream).write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
