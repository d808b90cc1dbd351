//! New images.

use rimg_core::{Error, RawOptions, Result, TargetFiles};

pub(crate) fn create(
    _target: &dyn TargetFiles,
    _size_bytes: u64,
    _options: &RawOptions,
) -> Result<()> {
    Err(Error::Misuse("creation comes with the next change"))
}
