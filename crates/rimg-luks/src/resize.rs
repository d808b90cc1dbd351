//! Changing the size.

use crate::image::LuksImage;
use crate::options::invalid;
use rimg_core::{BlockImage as _, Error, Preallocation, Resize, Result, Zeroing, op};
use std::sync::PoisonError;

impl Resize for LuksImage {
    /// The file ends with the last byte of the disk. What the disk gains is garbage, unless
    /// `preallocation` is `full`: then it is zeroes.
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        let file = self.writable()?;
        if preallocation == Preallocation::Metadata {
            return refuse("Unsupported preallocation mode: metadata");
        }
        let old_size = self.size_bytes();
        if size_bytes <= old_size && preallocation != Preallocation::Off {
            return refuse("Preallocation can only be used for growing images");
        }
        let set = |len| file.set_len_bytes(len).map_err(Error::io("set file length", len));
        let Some(end) = self.area.at.checked_add(size_bytes).filter(|&end| end <= MAX_BYTES) else {
            return refuse("The requested file size is too large");
        };
        let alone = self.sectors.write().unwrap_or_else(PoisonError::into_inner);
        let old_end = file.len_bytes().map_err(Error::io("read file length", 0))?;
        set(end)?;
        self.measure()?;
        drop(alone);
        let filled = match preallocation {
            Preallocation::Off | Preallocation::Metadata => Ok(()),
            Preallocation::Falloc => file
                .write_zeroes_at(old_end..end.max(old_end), Zeroing::KeepAllocated)
                .map_err(Error::io(op::RESERVE_SPACE, old_end)),
            Preallocation::Full => self.zero(old_size..self.size_bytes()),
        };
        if let Err(error) = filled {
            // The first error is the one that tells what went wrong.
            let _ = set(old_end).and_then(|()| self.measure());
            return Err(error);
        }
        Ok(())
    }

    fn grows_by_zeroes(&self) -> bool {
        false
    }
}

/// The longest file that offsets of 63 bits reach, in bytes.
pub(crate) const MAX_BYTES: u64 = (1 << 63) - crate::SECTOR_BYTES;

fn refuse<T>(reason: &str) -> Result<T> {
    Err(invalid("preallocation", reason.to_owned()))
}
