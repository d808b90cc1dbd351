//! Criterion benchmarks of the pieces of rimg; the whole command is measured by `cargo xtask bench`.
#![forbid(unsafe_code)]
