//! Developer commands of rimg.
#![forbid(unsafe_code)]

fn main() {}
