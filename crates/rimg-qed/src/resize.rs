//! Growing and shrinking the disk.

use crate::image::QedImage;
use crate::options::refuse;
use crate::spec;
use rimg_core::{BlockImage as _, Preallocation, Resize, Result};

impl Resize for QedImage {
    /// A disk that becomes smaller leaves a file without holes.
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        if preallocation != Preallocation::Off {
            let name = preallocation.name();
            return refuse("preallocation", format!("Unsupported preallocation mode '{name}'"));
        }
        let most = self.blocks.look(|map| map.header.geometry.max_image_bytes());
        if size_bytes > most || !size_bytes.is_multiple_of(spec::SECTOR_BYTES) {
            return refuse("size", "Invalid image size specified");
        }
        let shrinks = size_bytes < self.size_bytes();
        self.blocks.resize(size_bytes)?;
        if shrinks { self.compact() } else { Ok(()) }
    }
}
