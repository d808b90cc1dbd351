//! What the image says of itself.

use crate::error::FORMAT;
use crate::header::Footer;
use rimg_core::{ImageIdentity, ImageInfo};

/// QEMU has nothing more to say of the format, and neither has this.
pub(crate) fn describe(
    footer: &Footer,
    size_bytes: u64,
    block_bytes: Option<u64>,
    parent: Option<&str>,
) -> ImageInfo {
    ImageInfo {
        format: FORMAT,
        virtual_size_bytes: size_bytes,
        cluster_bytes: block_bytes,
        preallocated: Some(block_bytes.is_none()),
        identity: Some(ImageIdentity { uuid: footer.uuid(), timestamp: footer.timestamp().into() }),
        backing_file: parent.map(str::to_owned),
        backing_format: parent.map(|_| FORMAT.to_owned()),
        ..ImageInfo::default()
    }
}
