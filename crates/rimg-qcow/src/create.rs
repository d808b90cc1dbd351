//! A new image: header, the name of the backing file, and an empty L1 table.

use crate::options::new_header;
use crate::spec::SECTOR_BYTES;
use rimg_core::{Error, RawOptions, Result, TargetFiles, num};

pub(crate) fn create(
    target: &dyn TargetFiles,
    size_bytes: u64,
    options: &RawOptions,
) -> Result<()> {
    let header = new_header(size_bytes, options)?;
    let file = target.main().writer().ok_or(Error::ReadOnly("the target is not writable"))?;
    // QEMU writes the L1 table in whole sectors, from wherever it starts.
    let table_bytes = header.l1_end().saturating_sub(header.l1_offset);
    let table_bytes = table_bytes.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(table_bytes);
    let end = header.l1_offset.saturating_add(table_bytes);
    file.set_len_bytes(end).map_err(Error::io("set file length", end))?;
    let mut bytes = header.encode().to_vec();
    if let (Some((at, _)), Some(name)) = (header.name_at(), &header.backing) {
        bytes.resize(num::to_usize(at)?, 0);
        bytes.extend_from_slice(name.as_bytes());
    }
    file.write_all_at(&bytes, 0).map_err(Error::io("write header", 0))
}
