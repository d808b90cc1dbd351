//! rimg and qemu-img on the same images: what one writes the other has to find.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod bitmap;
mod create;
mod encryption;
#[path = "../common/folder.rs"]
mod folder;
mod read;
mod snapshot;
mod write;
