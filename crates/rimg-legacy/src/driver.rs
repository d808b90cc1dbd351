//! How the formats present themselves: probe, open.

use crate::image::{LegacyImage, Map};
use crate::{bochs, cloop, dmg};
use rimg_core::{
    BlockImage, Error, FormatDriver, FormatInfo, Limits, Match, OpenOptions, ProbeWindow,
    RawOptions, Result, Storage, TargetFiles,
};
use std::sync::Arc;

/// The entry of bochs in a registry.
pub static BOCHS: LegacyDriver = LegacyDriver {
    info: info(bochs::FORMAT, "Growing disk images of Bochs"),
    probe: bochs::probe,
    open: |file, limits| Ok(Map::Bochs(bochs::Table::read(file, limits)?)),
};

/// The entry of cloop in a registry.
pub static CLOOP: LegacyDriver = LegacyDriver {
    info: info(cloop::FORMAT, "Compressed loop images, as on Knoppix CDs"),
    probe: cloop::probe,
    open: |file, limits| Ok(Map::Cloop(cloop::Table::read(file, limits)?)),
};

/// The entry of dmg in a registry.
pub static DMG: LegacyDriver = LegacyDriver {
    info: info(dmg::FORMAT, "Disk images of macOS (UDIF)"),
    probe: dmg::probe,
    open: |file, limits| Ok(Map::Dmg(dmg::Table::read(file, limits)?)),
};

const fn info(name: &'static str, description: &'static str) -> FormatInfo {
    FormatInfo {
        name,
        description,
        create_options: &[],
        extra_options: &[],
        amend_options: &[],
        writable: false,
        backing: false,
        compresses: false,
    }
}

/// Opens images of one format; there are three, [`BOCHS`], [`CLOOP`] and [`DMG`].
#[derive(Debug)]
pub struct LegacyDriver {
    info: FormatInfo,
    probe: fn(&ProbeWindow<'_>) -> Match,
    open: fn(&dyn Storage, &Limits) -> Result<Map>,
}

impl FormatDriver for LegacyDriver {
    fn format(&self) -> &'static FormatInfo {
        // A static's own field: found by name, since `self` may be shorter-lived.
        [&BOCHS, &CLOOP, &DMG]
            .into_iter()
            .find(|driver| driver.info.name == self.info.name)
            .map_or(&BOCHS.info, |driver| &driver.info)
    }

    fn probe(&self, window: &ProbeWindow<'_>) -> Match {
        (self.probe)(window)
    }

    fn open(&self, file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Box<dyn BlockImage>> {
        how.refuse_options(self.info.name)?;
        if how.writable {
            return Err(Error::ReadOnly("the format is only read"));
        }
        let map = (self.open)(file.as_ref(), &how.limits)?;
        Ok(Box::new(LegacyImage::new(self.info.name, file, map)))
    }

    fn create(&self, _: &dyn TargetFiles, _: u64, _: &RawOptions) -> Result<()> {
        let feature = "creating images".to_owned();
        Err(Error::Unsupported { format: self.info.name, feature })
    }
}
