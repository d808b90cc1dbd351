#![doc = include_str!("../README.md")]
#![cfg_attr(not(feature = "mmap"), forbid(unsafe_code))]
#![cfg_attr(feature = "mmap", deny(unsafe_code))]

mod debug;
mod file;
mod memory;
#[cfg(feature = "mmap")]
mod mmap;
mod nbd;
mod null;
mod quorum;

pub use debug::{Access, DEBUG_EVENTS, DebugAction, DebugRule, DebugStorage, Injection};
pub use file::{CacheMode, Creation, FileOptions, FileStorage, LockConflict, Locking, Permission};
pub use memory::MemoryStorage;
#[cfg(feature = "mmap")]
pub use mmap::MmapStorage;
pub use nbd::{NbdAddress, NbdError, NbdOptions, NbdServer, NbdStorage};
pub use null::NullStorage;
pub use quorum::QuorumStorage;
