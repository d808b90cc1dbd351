//! Changing the size of the disk: which sizes there are.

use crate::error::FORMAT;
use crate::options::invalid;
use crate::spec;
use rimg_core::{Error, Preallocation, Result};

/// A size that a disk may get, whole sectors of bytes. An image whose size is that of its geometry
/// says otherwise from then on, if no geometry has that size.
pub(crate) fn checked_size(size_bytes: u64, preallocation: Preallocation) -> Result<u64> {
    if preallocation != Preallocation::Off {
        let reason = format!("Unsupported preallocation mode: {}", preallocation.name());
        return Err(invalid("preallocation", reason));
    }
    let size = spec::whole_sectors(size_bytes);
    if size > spec::MAX_DISK_BYTES {
        let feature = format!("disk of {size_bytes} bytes: 2040 GiB are the most");
        return Err(Error::Unsupported { format: FORMAT, feature });
    }
    Ok(size)
}
