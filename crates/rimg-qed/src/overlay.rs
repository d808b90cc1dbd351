//! What lies below the image, and dropping what lies in it.

use crate::image::QedImage;
use rimg_core::{Overlay, Result};

impl Overlay for QedImage {
    /// The format has no room for the name of a format, only for whether that is raw.
    fn change_backing(&self, name: Option<&str>, format: Option<&str>) -> Result<()> {
        let name = name.filter(|name| !name.is_empty());
        self.blocks.alone(|map| map.change_backing(name, format == Some("raw")))
    }

    fn make_empty(&self) -> Result<()> {
        self.blocks.make_empty()?;
        self.compact()
    }
}
