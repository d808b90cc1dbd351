//! A new image: header, and a BAT of nothing.

use crate::header::Header;
use crate::options::new_header;
use rimg_core::{Error, RawOptions, Result, TargetFiles};

pub(crate) fn create(
    target: &dyn TargetFiles,
    size_bytes: u64,
    options: &RawOptions,
) -> Result<()> {
    let header: Header = new_header(size_bytes, options)?;
    let file = target.main().writer().ok_or(Error::ReadOnly("the target is not writable"))?;
    let end = header.data_start();
    file.set_len_bytes(end).map_err(Error::io("set file length", end))?;
    file.write_all_at(&header.encode(), 0).map_err(Error::io("write header", 0))
}
