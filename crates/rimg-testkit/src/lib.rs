//! Storages and helpers for the tests of rimg
#![forbid(unsafe_code)]
