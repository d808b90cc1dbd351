#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod allocate;
mod check;
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
mod resize;
mod spec;
mod table;
mod write;

pub use driver::{DRIVER, ParallelsDriver};
