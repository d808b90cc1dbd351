//! What an image says of itself.

use crate::error::FORMAT;
use crate::header::Header;
use rimg_core::ImageInfo;

/// QEMU knows nothing of a qcow image that only this format has.
pub(crate) fn describe(header: &Header) -> ImageInfo {
    ImageInfo {
        format: FORMAT,
        virtual_size_bytes: header.size_bytes(),
        cluster_bytes: Some(header.geometry.cluster_bytes()),
        encrypted: header.is_encrypted(),
        backing_file: header.backing.clone(),
        preallocated: Some(false),
        ..ImageInfo::default()
    }
}
