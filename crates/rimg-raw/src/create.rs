//! New images.

use crate::options::{CreateOptions, invalid};
use crate::{SECTOR_BYTES, resize};
use rimg_core::{Error, RawOptions, Result, TargetFiles, num};

/// The longest file that offsets of 63 bits reach, in bytes.
const MAX_BYTES: u64 = (1 << 63) - SECTOR_BYTES;

/// Makes the target `size_bytes` long, rounded up to whole sectors.
pub(crate) fn create(
    target: &dyn TargetFiles,
    size_bytes: u64,
    options: &RawOptions,
) -> Result<()> {
    let options = CreateOptions::parse(options)?;
    let len = num::align_up(size_bytes, SECTOR_BYTES).filter(|&len| len < MAX_BYTES).ok_or_else(
        || invalid("size", "The image size is too large for file format 'raw'".to_owned()),
    )?;
    let file = target.main().writer().ok_or(Error::ReadOnly("the target is not writable"))?;
    resize::grow(file, 0, len, options.preallocation)
}
