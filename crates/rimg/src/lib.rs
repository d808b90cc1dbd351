//! Virtual disk images: open, probe, chains, policy
#![forbid(unsafe_code)]
