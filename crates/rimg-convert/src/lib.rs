//! The convert engine: copies one image into another
#![forbid(unsafe_code)]
