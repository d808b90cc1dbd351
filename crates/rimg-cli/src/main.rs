//! `rimg`: a drop-in `qemu-img`.
#![forbid(unsafe_code)]

fn main() {}
