#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod amend;
mod create;
mod driver;
mod error;
mod header;
mod image;
mod info;
mod measure;
mod options;
mod read;
mod resize;
mod write;
mod zero;

pub use driver::{DRIVER, LuksDriver};

/// The format's name.
pub(crate) const FORMAT: &str = "luks";

/// The unit of disks of version 1, and of the numbers that sectors are encrypted with, in bytes.
pub(crate) const SECTOR_BYTES: u64 = 512;
