//! Where image bytes live: files, memory, memory maps
#![forbid(unsafe_code)]
