//! Writing: whole sectors are encrypted in a buffer of their own; where a part of one is written,
//! the rest is read before.
#![warn(clippy::indexing_slicing)]

use crate::image::{LuksImage, range_of};
use crate::read::{PART, Split};
use core::ops::Range;
use rimg_core::{Error, ImageWrite, Result, num};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Data is encrypted and written in pieces of so many bytes: whole sectors.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// What is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Data<'a> {
    Bytes(&'a [u8]),
    Zeroes(u64),
}

impl ImageWrite for LuksImage {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        self.check_range(&range_of(buf, at)?)?;
        self.write_data(Data::Bytes(buf), at)
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range)?;
        self.zero(range)
    }

    fn discard_at(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range)?;
        self.discard(range)
    }

    fn flush(&self) -> Result<()> {
        self.writable()?.sync().map_err(Error::io("flush", 0))
    }

    fn places_in_order(&self) -> bool {
        false
    }

    /// What was not written decrypts to garbage.
    fn is_zero_initialised(&self) -> bool {
        false
    }
}

impl LuksImage {
    /// Writes to a range of the disk.
    pub(crate) fn write_data(&self, data: Data<'_>, at: u64) -> Result<()> {
        let split = Split::of(at, data.len()?, self.area.sector_bytes)?;
        let (head, rest) = data.split(split.head)?;
        let (whole, tail) = rest.split(split.whole)?;
        self.write_part(head, at)?;
        let guest = at.saturating_add(num::to_u64(split.head));
        self.write_whole(whole, guest)?;
        self.write_part(tail, guest.saturating_add(num::to_u64(split.whole)))
    }

    fn write_whole(&self, data: Data<'_>, guest: u64) -> Result<()> {
        let (mut guest, mut rest) = (guest, data);
        let mut buffer = Vec::with_capacity(rest.len()?.min(PIECE_BYTES));
        let _among_others = self.sectors.read().unwrap_or_else(PoisonError::into_inner);
        while rest.len()? > 0 {
            let (piece, after) = rest.split(rest.len()?.min(PIECE_BYTES))?;
            buffer.clear();
            match piece {
                Data::Bytes(bytes) => buffer.extend_from_slice(bytes),
                Data::Zeroes(_) => buffer.resize(piece.len()?, 0),
            }
            self.store(&mut buffer, guest)?;
            guest = guest.saturating_add(num::to_u64(buffer.len()));
            rest = after;
        }
        Ok(())
    }

    /// Writes a part of one sector.
    fn write_part(&self, data: Data<'_>, guest: u64) -> Result<()> {
        let len = data.len()?;
        if len == 0 {
            return Ok(());
        }
        let start = num::align_down(guest, self.area.sector_bytes);
        let before = num::to_usize(guest.saturating_sub(start))?;
        let mut sector = vec![0; num::to_usize(self.area.sector_bytes)?];
        let _alone = self.sectors.write().unwrap_or_else(PoisonError::into_inner);
        self.read_whole(&mut sector, start)?;
        let place = sector.get_mut(before..).and_then(|rest| rest.get_mut(..len)).ok_or(PART)?;
        match data {
            Data::Bytes(bytes) => place.copy_from_slice(bytes),
            Data::Zeroes(_) => place.fill(0),
        }
        self.store(&mut sector, start)
    }

    /// Encrypts whole sectors where they are, and writes them.
    fn store(&self, sectors: &mut [u8], guest: u64) -> Result<()> {
        let host = self.host(guest);
        self.cipher()?.encrypt(sectors, self.number(guest))?;
        self.writable()?.write_all_at(sectors, host).map_err(Error::io("write", host))?;
        // A write to the last sector makes it whole.
        let end = host.saturating_add(num::to_u64(sectors.len()));
        self.file_len.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }
}

impl<'a> Data<'a> {
    fn len(self) -> Result<usize> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len()),
            Self::Zeroes(len) => num::to_usize(len),
        }
    }

    fn split(self, at: usize) -> Result<(Data<'a>, Data<'a>)> {
        match self {
            Self::Bytes(bytes) => {
                let (one, other) = bytes.split_at_checked(at).ok_or(PART)?;
                Ok((Data::Bytes(one), Data::Bytes(other)))
            }
            Self::Zeroes(len) => {
                let one = num::to_u64(at);
                Ok((Data::Zeroes(one), Data::Zeroes(len.checked_sub(one).ok_or(PART)?)))
            }
        }
    }
}
