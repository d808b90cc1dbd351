//! A new image: header and an empty L1 table.

use crate::header::Header;
use crate::options::CreateOptions;
use rimg_core::{Error, RawOptions, Result, TargetFiles, num};

pub(crate) fn create(
    target: &dyn TargetFiles,
    size_bytes: u64,
    options: &RawOptions,
) -> Result<()> {
    let options = CreateOptions::parse(size_bytes, options)?;
    let mut header = Header::new(options.geometry, options.size_bytes);
    header.set_backing(options.backing_file.as_deref(), options.backing_is_raw)?;
    let file = target.main().writer().ok_or(Error::ReadOnly("the target is not writable"))?;
    let end = header.l1_end();
    file.set_len_bytes(end).map_err(Error::io("set file length", end))?;
    let mut bytes = header.encode().to_vec();
    if let Some((at, name)) = header.encode_name() {
        bytes.resize(num::to_usize(at)?, 0);
        bytes.extend_from_slice(name);
    }
    file.write_all_at(&bytes, 0).map_err(Error::io("write header", 0))
}
