#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bochs;
mod cache;
mod cloop;
mod compress;
mod dmg;
mod driver;
mod error;
mod image;
mod read;

pub use driver::{BOCHS, CLOOP, DMG, LegacyDriver};

/// The unit of disks, in bytes.
pub(crate) const SECTOR_BYTES: u64 = 512;
