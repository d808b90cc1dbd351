//! What an image says of itself.

use crate::error::FORMAT;
use crate::image::VhdxImage;
use rimg_core::ImageInfo;

/// The format of parents.
pub(crate) const PARENT_FORMAT: &str = FORMAT;

impl VhdxImage {
    /// qemu-img has nothing to say that only this format has.
    pub(crate) fn describe(&self) -> ImageInfo {
        let parent = self.parent.as_ref();
        ImageInfo {
            format: FORMAT,
            virtual_size_bytes: self.blocks.size_bytes(),
            cluster_bytes: Some(self.blocks.block_bytes()),
            backing_file: parent.and_then(|parent| parent.names().next()),
            identity: Some(self.blocks.look(|map| map.headers.current.data_write_guid).to_string()),
            backing_format: parent.map(|_| PARENT_FORMAT.to_owned()),
            ..ImageInfo::default()
        }
    }
}
