#![doc = include_str!("../README.md")]
//!
//! # Glossary
//! - **payload block**: what the disk is cut into; it lies in one piece in the file, or nowhere.
//! - **chunk**: the payload blocks that one sector bitmap describes; their number is the chunk
//!   ratio.
//! - **sector bitmap block**: which sectors of a chunk a differencing image has itself.
//! - **BAT**, block allocation table: the state and place of all of these blocks.
//! - **region**: a part of the file that a region table names: the BAT, the metadata.
//! - **metadata item**: a field of the disk, such as its size.
//! - **log**: a ring of entries that are written before what they describe.
//! - **parent locator**: names and identifies the image below a differencing one.
#![forbid(unsafe_code)]

mod address;
mod allocate;
mod check;
mod create;
mod driver;
mod error;
mod flush;
mod header;
mod image;
mod info;
mod log;
mod map;
mod measure;
mod options;
mod resize;
mod spec;
mod table;

pub use driver::{DRIVER, VhdxDriver};
