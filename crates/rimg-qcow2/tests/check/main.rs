//! Checking and repairing damaged images, against `qemu-img check`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod bounds;
mod crash;
mod damage;
mod findings;
mod mutate;
mod repair;
