//! Deflate and zstd for whole clusters
#![forbid(unsafe_code)]
