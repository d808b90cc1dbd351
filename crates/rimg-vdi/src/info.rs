//! What the image says of itself.

use crate::error::FORMAT;
use crate::header::{Header, ImageType};
use rimg_core::ImageInfo;

/// QEMU has nothing more to say of the format, and neither has this.
pub(crate) fn describe(header: &Header, size_bytes: u64, parent: Option<&str>) -> ImageInfo {
    ImageInfo {
        format: FORMAT,
        virtual_size_bytes: size_bytes,
        cluster_bytes: Some(header.block_bytes.into()),
        preallocated: Some(header.image_type == ImageType::Static),
        backing_file: parent.map(str::to_owned),
        backing_format: parent.map(|_| FORMAT.to_owned()),
        ..ImageInfo::default()
    }
}
