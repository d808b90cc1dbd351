//! What an image says of itself.

use crate::error::FORMAT;
use crate::header::Header;
use crate::spec::feature;
use rimg_core::ImageInfo;

/// QEMU knows nothing of a QED image that only this format has.
pub(crate) fn describe(header: &Header) -> ImageInfo {
    ImageInfo {
        format: FORMAT,
        virtual_size_bytes: header.size_bytes,
        cluster_bytes: Some(header.geometry.cluster_bytes()),
        dirty: header.has(feature::NEED_CHECK),
        backing_file: header.backing.clone(),
        backing_format: header.backing_format().map(str::to_owned),
        ..ImageInfo::default()
    }
}
