//! QEMU copy-on-write version 2 and 3 disk images.
#![forbid(unsafe_code)]

mod address;
mod cache;
mod create;
mod driver;
mod error;
mod header;
mod image;
mod info;
mod map;
mod options;
mod read;
mod refcount;
mod spec;
mod table;

pub use driver::{DRIVER, Qcow2Driver};
