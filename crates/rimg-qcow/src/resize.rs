//! Growing and shrinking the disk, which qemu-img does not.

use crate::image::QcowImage;
use crate::options::refuse;
use crate::spec::SECTOR_BYTES;
use rimg_core::{Preallocation, Resize, Result};

impl Resize for QcowImage {
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        if preallocation != Preallocation::Off {
            let name = preallocation.name();
            return refuse("preallocation", format!("Unsupported preallocation mode '{name}'"));
        }
        if !size_bytes.is_multiple_of(SECTOR_BYTES) {
            return refuse("size", "The new size must be a multiple of 512");
        }
        self.blocks.resize(size_bytes)
    }
}
