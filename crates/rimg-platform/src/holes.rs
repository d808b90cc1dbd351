//! Files without holes.

use rimg::{Error, Result, Storage, Zeroing};

/// Makes every hole of a file allocated zeroes: some programs refuse sparse files.
///
/// # Errors
/// [`Error::ReadOnly`] for a file that is not open for writing; what the storage says, a full
/// disk above all.
pub fn fill_holes(file: &dyn Storage) -> Result<()> {
    let writer = file.writer().ok_or(Error::ReadOnly("its file was opened for reading"))?;
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut at = 0_u64;
    while at < len {
        let run = file.run_at(at).map_err(Error::io("look for holes", at))?;
        let end = at.saturating_add(run.len_bytes.max(1)).min(len);
        if !run.is_data {
            writer
                .write_zeroes_at(at..end, Zeroing::KeepAllocated)
                .map_err(Error::io("fill a hole", at))?;
        }
        at = end;
    }
    writer.sync().map_err(Error::io("make writes durable", 0))
}
