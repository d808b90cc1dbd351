//! How raw presents itself: probe, open, create.

use crate::image::RawImage;
use crate::measure::RawMeasure;
use crate::options::Window;
use crate::{FORMAT, create, options};
use rimg_core::{
    BlockImage, FormatDriver, FormatInfo, Match, Measure, OpenOptions, ProbeWindow, RawOptions,
    Result, Storage, TargetFiles,
};
use std::sync::Arc;

/// The format's entry in a registry.
pub static DRIVER: RawDriver = RawDriver(());

static INFO: FormatInfo = FormatInfo {
    name: FORMAT,
    description: "Raw disk images",
    amend_options: &[],
    create_options: options::SPECS,
    writable: true,
    backing: false,
    compresses: false,
    extra_options: &[],
};

/// Opens and creates raw images; there is one, [`DRIVER`].
#[derive(Debug)]
pub struct RawDriver(());

impl FormatDriver for RawDriver {
    fn format(&self) -> &'static FormatInfo {
        &INFO
    }

    /// Every file is a raw image, if it is nothing else.
    fn probe(&self, _window: &ProbeWindow<'_>) -> Match {
        Match::Fallback
    }

    /// Takes the bytes as they are; what they look like is never asked.
    fn open(&self, file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Box<dyn BlockImage>> {
        let window = Window::parse(how.options)?;
        Ok(Box::new(RawImage::open(file, how.writable, window)?))
    }

    fn create(
        &self,
        target: &dyn TargetFiles,
        size_bytes: u64,
        options: &RawOptions,
    ) -> Result<()> {
        create::create(target, size_bytes, options)
    }

    fn measure(&self, size_bytes: u64, _options: &RawOptions) -> Result<Option<Box<dyn Measure>>> {
        Ok(Some(Box::new(RawMeasure::new(size_bytes))))
    }
}
