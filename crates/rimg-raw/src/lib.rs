//! Raw disk images
#![forbid(unsafe_code)]
