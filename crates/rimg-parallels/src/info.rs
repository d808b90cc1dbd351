//! What an image says of itself.

use crate::error::FORMAT;
use crate::header::Header;
use rimg_core::ImageInfo;

/// QEMU tells nothing of a Parallels image, not even the size of its clusters.
pub(crate) fn describe(header: &Header) -> ImageInfo {
    ImageInfo {
        format: FORMAT,
        virtual_size_bytes: header.size_bytes(),
        preallocated: Some(false),
        ..ImageInfo::default()
    }
}
