#![doc = include_str!("../README.md")]
//!
//! # The contracts
//! The contracts that every part of rimg shares: where bytes live ([`Storage`]), what a disk image
//! offers ([`BlockImage`] and the capabilities it hands out), how a format presents itself
//! ([`FormatDriver`]), what may go wrong ([`Error`]) and how much a hostile image may cost
//! ([`Limits`]).
//!
//! Nothing here touches a file, a path or a socket, and nothing here knows a format.
//!
//! # Conventions
//! Offsets and lengths are bytes unless a name says otherwise. I/O is synchronous, positional and
//! takes `&self`: buffers are filled or written whole, or the call fails. Having a capability
//! object is having the capability, so there are no methods that only answer "unsupported".
//!
//! # Example
//! A few lines are enough to be a [`Storage`], and every format can live in it:
//! ```
//! use rimg_core::{Storage, StorageRun};
//! use std::io;
//!
//! #[derive(Debug)]
//! struct Zeroes(u64);
//!
//! impl Storage for Zeroes {
//!     fn len_bytes(&self) -> io::Result<u64> {
//!         Ok(self.0)
//!     }
//!     fn read_exact_at(&self, buf: &mut [u8], _at: u64) -> io::Result<()> {
//!         buf.fill(0);
//!         Ok(())
//!     }
//!     fn run_at(&self, at: u64) -> io::Result<StorageRun> {
//!         Ok(StorageRun::hole(self.0 - at))
//!     }
//! }
//!
//! let store = Zeroes(4096);
//! assert_eq!(store.len_bytes()?, 4096);
//! # Ok::<(), io::Error>(())
//! ```
#![forbid(unsafe_code)]

mod address;
mod amend;
mod bitmap;
mod capability;
mod chain_walk;
mod check;
mod codec;
mod driver;
mod error;
mod extent;
mod file_holes;
mod gate;
mod image;
mod info;
mod limits;
mod measure;
pub mod num;
pub mod ondisk;
pub mod op;
mod options;
mod overlay;
mod secret;
mod snapshot;
mod storage;
mod uuid;
pub mod zeroes;

pub use address::{GuestOffset, HostOffset};
pub use amend::{Amend, AmendProgress};
pub use bitmap::{BitmapEdit, BitmapInfo, Bitmaps};
pub use capability::{CompressedWrite, EncodedCluster, ImageWrite, Preallocation, Resize};
pub use chain_walk::{ChainRun, ChainWalk};
pub use check::{Check, CheckSummary, Finding, FindingKind, Repair};
pub use codec::Codec;
pub use driver::{FormatDriver, FormatInfo, Match, ProbeWindow};
pub use error::{BoxError, Error, Location, Result};
pub use extent::{Extent, ExtentKind, FileOffset};
pub use file_holes::{FileHoles, InFile};
pub use gate::{Dependency, DependencyGate, DependencyRole, OpenOptions, TargetFiles};
pub use image::BlockImage;
pub use info::{ImageIdentity, ImageInfo, InfoValue};
pub use limits::{Limits, MetadataBudget};
pub use measure::{Measure, Measured, UnitCount};
pub use options::{OptionKind, OptionSpec, RawOptions};
pub use overlay::Overlay;
pub use secret::Secret;
pub use snapshot::{NewSnapshot, SnapshotEdit, SnapshotInfo, SnapshotSelector, Snapshots};
pub use storage::{Storage, StorageRun, StorageWrite, Zeroing};
pub use uuid::Uuid;
