#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod archive;
mod holes;
mod platform;
mod rules;

pub use archive::{ArchiveError, inspect_archive, write_archive};
pub use holes::fill_holes;
pub use platform::{Platform, Recipe};
pub use rules::{Verdict, inspect};
