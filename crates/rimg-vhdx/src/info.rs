//! What an image says of itself.

use crate::error::FORMAT;
use crate::header::Guid;
use crate::image::VhdxImage;
use rimg_core::{ImageIdentity, ImageInfo, Result, Uuid};

/// The format of parents.
pub(crate) const PARENT_FORMAT: &str = FORMAT;

impl VhdxImage {
    /// qemu-img has nothing to say that only this format has.
    pub(crate) fn describe(&self) -> Result<ImageInfo> {
        let parent = self.parent.as_ref();
        let written = self.blocks.look(|map| map.durable_header())?.data_write_guid;
        Ok(ImageInfo {
            format: FORMAT,
            virtual_size_bytes: self.blocks.size_bytes(),
            cluster_bytes: Some(self.blocks.block_bytes()),
            backing_file: parent.and_then(|parent| parent.names().next()),
            identity: Some(ImageIdentity {
                uuid: Uuid::from_mixed_endian(written.to_le_bytes()),
                timestamp: 0,
            }),
            backing_format: parent.map(|_| PARENT_FORMAT.to_owned()),
            ..ImageInfo::default()
        })
    }
}

/// What an image above notes of the one that says this of itself.
pub(crate) fn identity_of(info: &ImageInfo) -> Option<Guid> {
    let identity = info.identity.filter(|_| info.format == FORMAT)?;
    Guid::parse(&identity.uuid.to_string())
}
