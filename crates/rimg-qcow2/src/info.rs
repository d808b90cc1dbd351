//! What an image says of itself.

use crate::error::FORMAT;
use crate::image::Qcow2Image;
use rimg_core::{BlockImage as _, ImageInfo, Result};

impl Qcow2Image {
    pub(crate) fn describe(&self) -> Result<ImageInfo> {
        Ok(ImageInfo {
            format: FORMAT,
            virtual_size_bytes: self.size_bytes(),
            cluster_bytes: Some(self.geometry.cluster_bytes()),
            ..ImageInfo::default()
        })
    }
}
