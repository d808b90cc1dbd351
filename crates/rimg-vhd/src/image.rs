//! The open image: of one file in two ways.

mod dynamic;
mod fixed;

pub(crate) use dynamic::DynamicImage;
pub(crate) use fixed::FixedImage;

/// What an image was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// To say what it is, and to be checked.
    Inspect,
    /// To be repaired.
    Repair,
    Read,
    Write,
}
