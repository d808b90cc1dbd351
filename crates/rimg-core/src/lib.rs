//! Traits, errors, limits and on-disk helpers of rimg
#![forbid(unsafe_code)]
