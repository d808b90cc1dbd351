//! JSON as qemu-img prints it and as it stands in image names.

mod read;
mod write;

pub(crate) use read::{ReadError, read_options};
pub(crate) use write::{pretty, quoted};
