//! Why a disk of a server cannot be had.

use core::fmt;
use std::error::Error;
use std::io;

/// Why there is no connection to an exported disk. `Display` is in the words of QEMU where it has
/// words for it, and includes the source.
#[derive(Debug)]
#[non_exhaustive]
pub enum NbdError {
    /// The server's name means nothing.
    Resolve {
        /// The server.
        server: String,
        /// Why.
        reason: String,
    },
    /// Nobody listens there.
    Connect {
        /// The server.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke before it was of use.
    Io(io::Error),
    /// The server speaks something else, or breaks the protocol.
    Protocol(String),
    /// The server refuses.
    Refused {
        /// Why, in QEMU's words.
        reason: String,
        /// The server's own words.
        server: Option<String>,
    },
}

impl NbdError {
    pub(super) fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol(reason.into())
    }
}

impl From<io::Error> for NbdError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for NbdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { server, reason } => {
                write!(f, "address resolution failed for {server}: {reason}")
            }
            Self::Connect { server, source } => {
                write!(f, "Failed to connect to '{server}': {}", words(source))
            }
            Self::Io(source) => match source.kind() {
                io::ErrorKind::UnexpectedEof => f.write_str(
                    "Failed to read data: Unexpected end-of-file before all data were read",
                ),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    f.write_str("The server does not answer")
                }
                _ => write!(f, "Failed to read data: {}", words(source)),
            },
            Self::Protocol(reason) => f.write_str(reason),
            Self::Refused { reason, server: None } => f.write_str(reason),
            Self::Refused { reason, server: Some(words) } => {
                write!(f, "{reason}\nserver reported: {words}")
            }
        }
    }
}

impl Error for NbdError {}

/// The system's words without Rust's error number behind them.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) if error.raw_os_error().is_some() => words.to_owned(),
        _ => text,
    }
}
