//! Growing and shrinking the disk.

use crate::image::ParallelsImage;
use crate::options::refuse;
use crate::spec::SECTOR_BYTES;
use rimg_core::{Error, Preallocation, Resize, Result};

impl Resize for ParallelsImage {
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        if preallocation != Preallocation::Off {
            let name = preallocation.name();
            return refuse("preallocation", format!("Unsupported preallocation mode '{name}'"));
        }
        if !size_bytes.is_multiple_of(SECTOR_BYTES) {
            return refuse("size", "The new size must be a multiple of 512");
        }
        self.blocks.resize(size_bytes)?;
        self.trim()
    }
}

impl ParallelsImage {
    /// Makes the file end with its last cluster: what lies behind is a leak to QEMU.
    pub(crate) fn trim(&self) -> Result<()> {
        if !self.blocks.look(|map| map.has_changed) {
            return Ok(());
        }
        let file = self.blocks.file();
        let writer = file.writer().ok_or(Error::ReadOnly("its file was opened for reading"))?;
        self.blocks.alone(|map| {
            let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
            let end = map.data_end();
            if end < len && map.header.ext_off == 0 {
                writer.set_len_bytes(end).map_err(Error::io("shorten file", end))?;
                map.cut_off(end);
            }
            Ok(())
        })
    }
}
