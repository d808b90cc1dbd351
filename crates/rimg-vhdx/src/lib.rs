#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![expect(dead_code, reason = "what is parsed is not yet used")]

mod address;
mod error;
mod header;
mod spec;
mod table;
