//! Disks that a server of the NBD protocol exports.
//!
//! The specification is <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>; names
//! are its own. Spoken is the fixed newstyle negotiation, plain (`TLS` is refused), with structured
//! replies and the metadata context `base:allocation` where the server has them.
//!
//! A server is no more trusted than an image: what it says decides neither how much is allocated nor
//! how long anybody waits. The handshake has a deadline, and a server that owes a reply has to send
//! something every few minutes. One that breaks the protocol is not listened to any more, and what
//! was asked of it fails.

mod address;
mod connection;
mod error;
mod incoming;
mod negotiate;
mod storage;
mod wire;

pub use address::{NbdAddress, NbdServer};
pub use error::NbdError;
pub use storage::{NbdOptions, NbdStorage};
