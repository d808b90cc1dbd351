#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod address;
mod allocate;
mod amend;
mod bitmap;
mod cache;
mod check;
mod compress;
mod create;
mod crypt;
mod driver;
mod error;
mod flush;
mod header;
mod image;
mod inflight;
mod info;
mod map;
mod measure;
mod options;
mod overlay;
mod preallocate;
mod read;
mod refcount;
mod resize;
mod snapshot;
mod spec;
mod table;
mod write;
mod zero;

pub use driver::{DRIVER, Qcow2Driver};
