//! Reading: whole sectors where the caller wants them, the ones at the ends elsewhere.
#![warn(clippy::indexing_slicing)]

use crate::image::{LuksImage, range_of};
use rimg_core::{Error, Result, num};
use std::sync::atomic::Ordering;

/// Data is read and decrypted in pieces of so many bytes, whole sectors: few enough to be in a
/// cache still when they are decrypted.
const PIECE_BYTES: usize = 256 << 10;

impl LuksImage {
    pub(crate) fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.check_range(&range_of(buf, at)?)?;
        let split = Split::of(at, buf.len(), self.area.sector_bytes)?;
        let (head, rest) = buf.split_at_mut(split.head);
        let (whole, tail) = rest.split_at_mut(split.whole);
        self.read_part(head, at)?;
        let mut guest = at.saturating_add(num::to_u64(split.head));
        for piece in whole.chunks_mut(PIECE_BYTES) {
            self.read_whole(piece, guest)?;
            guest = guest.saturating_add(num::to_u64(piece.len()));
        }
        self.read_part(tail, guest)
    }

    /// Reads whole sectors.
    pub(crate) fn read_whole(&self, sectors: &mut [u8], guest: u64) -> Result<()> {
        let host = self.host(guest);
        // The last sector may end behind the file.
        let there = self.file_len.load(Ordering::Acquire).saturating_sub(host);
        let there = num::to_usize(there.min(num::to_u64(sectors.len())))?;
        let (bytes, beyond) = sectors.split_at_mut(there);
        self.file.read_exact_at(bytes, host).map_err(Error::io("read", host))?;
        beyond.fill(0);
        self.cipher()?.decrypt(sectors, self.number(guest))
    }

    /// Reads a part of one sector.
    fn read_part(&self, buf: &mut [u8], guest: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let start = num::align_down(guest, self.area.sector_bytes);
        let mut sector = vec![0; num::to_usize(self.area.sector_bytes)?];
        self.read_whole(&mut sector, start)?;
        let before = num::to_usize(guest.saturating_sub(start))?;
        let wanted = sector.get(before..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(wanted.ok_or(PART)?);
        Ok(())
    }
}

/// More than a sector where a part of one is meant.
pub(crate) const PART: Error = Error::Misuse("sectors shorter than what is in them");

/// A piece of data, split at the borders of sectors: what comes before the first one, in bytes,
/// whole sectors, and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) head: usize,
    pub(crate) whole: usize,
}

impl Split {
    pub(crate) fn of(at: u64, len: usize, sector_bytes: u64) -> Result<Self> {
        let sector = num::to_usize(sector_bytes)?;
        let border = num::align_up(at, sector_bytes).unwrap_or(u64::MAX);
        let head = num::to_usize(border.saturating_sub(at))?.min(len);
        let rest = len.saturating_sub(head);
        Ok(Self { head, whole: rest.saturating_sub(rest.checked_rem(sector).unwrap_or(0)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_split_at_sectors() {
        for (at, len, head, whole) in [
            (0, 512, 0, 512),
            (0, 511, 0, 0),
            (1, 511, 511, 0),
            (1, 510, 510, 0),
            (511, 514, 1, 512),
            (1000, 2000, 24, 1536),
            (1024, 0, 0, 0),
        ] {
            assert_eq!(Split::of(at, len, 512).unwrap(), Split { head, whole }, "{at} {len}");
        }
    }
}
