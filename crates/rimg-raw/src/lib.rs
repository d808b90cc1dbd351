#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod create;
mod driver;
mod image;
mod measure;
mod options;
mod read;
mod resize;
mod write;

pub use driver::{DRIVER, RawDriver};

/// The format's name.
pub(crate) const FORMAT: &str = "raw";

/// Disks are whole sectors of this many bytes, whatever the length of the file.
pub(crate) const SECTOR_BYTES: u64 = 512;
