//! How LUKS presents itself: probe, open, create, measure.

use crate::image::LuksImage;
use crate::measure::LuksMeasure;
use crate::{FORMAT, create, options};
use rimg_core::{
    BlockImage, FormatDriver, FormatInfo, Match, Measure, OpenOptions, ProbeWindow, RawOptions,
    Result, Storage, TargetFiles,
};
use rimg_crypto::luks1;
use std::sync::Arc;

/// The format's entry in a registry.
pub static DRIVER: LuksDriver = LuksDriver(());

static INFO: FormatInfo = FormatInfo {
    name: FORMAT,
    description: "Encrypted disk volumes (LUKS)",
    create_options: options::CREATE,
    extra_options: &[],
    amend_options: options::AMEND,
    writable: true,
    backing: false,
    compresses: false,
};

/// Opens and creates LUKS volumes; there is one, [`DRIVER`].
#[derive(Debug)]
pub struct LuksDriver(());

impl FormatDriver for LuksDriver {
    fn format(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, window: &ProbeWindow<'_>) -> Match {
        let version = window.head.get(6..8);
        let is_known = matches!(version, Some([0, 1 | 2]));
        if luks1::Header::is_magic(window.head) && is_known { Match::Sure } else { Match::No }
    }

    fn open(&self, file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Box<dyn BlockImage>> {
        Ok(Box::new(LuksImage::open(file, how)?))
    }

    fn create(
        &self,
        target: &dyn TargetFiles,
        size_bytes: u64,
        options: &RawOptions,
    ) -> Result<()> {
        create::create(target, size_bytes, options)
    }

    fn measure(&self, size_bytes: u64, options: &RawOptions) -> Result<Option<Box<dyn Measure>>> {
        Ok(Some(Box::new(LuksMeasure::new(size_bytes, options)?)))
    }
}
