#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod address;
mod allocate;
mod cache;
mod check;
mod compress;
mod create;
mod descriptor;
mod driver;
mod error;
mod header;
mod image;
mod info;
mod map;
mod measure;
mod options;
mod overlay;
mod read;
mod resize;
mod spec;
mod stream;
mod table;
mod write;

pub use driver::{DRIVER, VmdkDriver};
