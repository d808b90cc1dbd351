//! Guest data on its way from and to the file, encrypted or not.
#![warn(clippy::indexing_slicing)]

use super::Encryption;
use crate::image::Qcow2Image;
use crate::spec;
use rimg_core::{Error, Result, num};
use std::sync::PoisonError;

/// Data is encrypted in a buffer of at most so many bytes: whole sectors.
const BUFFER_BYTES: usize = 1 << 20;

impl Qcow2Image {
    /// Reads the guest bytes at `guest`, which lie at `host`.
    pub(crate) fn fetch_data(&self, buf: &mut [u8], guest: u64, host: u64) -> Result<()> {
        let Some(encryption) = &self.encryption else { return self.fetch_bytes(buf, host) };
        let Some(around) = whole_sectors(guest, buf.len())? else {
            self.fetch_bytes(buf, host)?;
            return encryption.decrypt(buf, guest, host);
        };
        let host = host.saturating_sub(num::to_u64(around.before));
        let mut sectors = vec![0; around.len];
        self.fetch_bytes(&mut sectors, host)?;
        encryption.decrypt(&mut sectors, around.guest, host)?;
        let wanted = sectors.get(around.before..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(wanted.ok_or(Error::Misuse("sectors shorter than what is in them"))?);
        Ok(())
    }

    /// Writes the guest bytes at `guest` to `host`: whole sectors where they are encrypted.
    pub(crate) fn store_data(
        &self,
        op: &'static str,
        buf: &[u8],
        guest: u64,
        host: u64,
    ) -> Result<()> {
        let data = self.data_writer()?;
        data.note("write_aio");
        let Some(encryption) = &self.encryption else {
            return data.write_all_at(buf, host).map_err(Error::io(op, host));
        };
        let mut buffer = Vec::with_capacity(buf.len().min(BUFFER_BYTES));
        let (mut guest, mut host) = (guest, host);
        for piece in buf.chunks(BUFFER_BYTES) {
            buffer.clear();
            buffer.extend_from_slice(piece);
            encryption.encrypt(&mut buffer, guest, host)?;
            data.write_all_at(&buffer, host).map_err(Error::io(op, host))?;
            guest = guest.saturating_add(num::to_u64(piece.len()));
            host = host.saturating_add(num::to_u64(piece.len()));
        }
        Ok(())
    }

    /// Writes to guest clusters that the caller has claimed.
    pub(crate) fn write_claimed(&self, buf: &[u8], at: u64) -> Result<()> {
        let Some(encryption) = &self.encryption else { return self.write_whole(buf, at) };
        match whole_sectors(at, buf.len())? {
            None => {
                let lock = &encryption.whole_sectors;
                let _among_equals = lock.read().unwrap_or_else(PoisonError::into_inner);
                self.write_whole(buf, at)
            }
            Some(around) => self.write_within(encryption, &around, buf),
        }
    }

    /// Writes a part of sectors: what is around it is read before, and nobody else changes it
    /// meanwhile.
    fn write_within(&self, encryption: &Encryption, around: &Around, buf: &[u8]) -> Result<()> {
        let alone = encryption.whole_sectors.write().unwrap_or_else(PoisonError::into_inner);
        let mut sectors = vec![0; around.len];
        // The last sector may end behind the disk.
        let size = rimg_core::BlockImage::size_bytes(self);
        let there = num::to_usize(size.saturating_sub(around.guest))?.min(around.len);
        self.read(sectors.get_mut(..there).unwrap_or_default(), around.guest)?;
        let place = sectors.get_mut(around.before..).and_then(|rest| rest.get_mut(..buf.len()));
        place.ok_or(Error::Misuse("sectors shorter than what is in them"))?.copy_from_slice(buf);
        let done = self.write_whole(&sectors, around.guest);
        drop(alone);
        done
    }
}

/// The sectors around a piece of data.
struct Around {
    /// Where they start.
    guest: u64,
    /// How much of the first one comes before the piece.
    before: usize,
    len: usize,
}

/// `None` for what is whole sectors itself.
fn whole_sectors(guest: u64, len: usize) -> Result<Option<Around>> {
    let start = num::align_down(guest, spec::SECTOR_BYTES);
    let end = guest.saturating_add(num::to_u64(len));
    let sectors_end = end.next_multiple_of(spec::SECTOR_BYTES);
    if (start, end) == (guest, sectors_end) {
        return Ok(None);
    }
    Ok(Some(Around {
        guest: start,
        before: num::to_usize(guest.saturating_sub(start))?,
        len: num::to_usize(sectors_end.saturating_sub(start))?,
    }))
}
