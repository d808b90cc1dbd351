//! What an image says of itself.

use crate::error::FORMAT;
use crate::header::Header;
use rimg_core::ImageInfo;

/// QEMU tells nothing of a QED image that only this format has, nor whether it needs a check.
pub(crate) fn describe(header: &Header) -> ImageInfo {
    ImageInfo {
        format: FORMAT,
        virtual_size_bytes: header.size_bytes,
        cluster_bytes: Some(header.geometry.cluster_bytes()),
        backing_file: header.backing.clone(),
        backing_format: header.backing_format().map(str::to_owned),
        preallocated: Some(false),
        ..ImageInfo::default()
    }
}
