//! JSON as qemu-img prints it and as it stands in image names.

mod read;
mod write;

pub(crate) use read::{ReadError, Scalar, read_options, read_scalars};
pub(crate) use write::{pretty, quoted};
