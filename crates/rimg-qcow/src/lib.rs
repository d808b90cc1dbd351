#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod address;
mod check;
mod compress;
mod create;
mod crypt;
mod driver;
mod error;
mod header;
mod image;
mod info;
mod map;
mod measure;
mod options;
mod overlay;
mod resize;
mod spec;
mod table;
mod write;

pub use driver::{DRIVER, QcowDriver};
