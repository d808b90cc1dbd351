//! What lies below the image, and dropping what lies in it.

use crate::image::QcowImage;
use rimg_core::{Overlay, Result};

impl Overlay for QcowImage {
    /// The format has no room for the name of a format.
    fn change_backing(&self, name: Option<&str>, _format: Option<&str>) -> Result<()> {
        let name = name.filter(|name| !name.is_empty());
        self.blocks.alone(|map| map.change_backing(name))
    }

    fn make_empty(&self) -> Result<()> {
        self.blocks.make_empty()?;
        self.blocks.alone(|map| if map.is_blank()? { map.cut_off() } else { Ok(()) })
    }
}
