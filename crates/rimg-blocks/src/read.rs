//! Reads: found out under the lock, fetched outside it.

use crate::engine::Blocks;
use crate::readers::Epoch;
use crate::{Below, BlockMap, SectorCipher};
use core::ops::Range;
use rimg_core::{Error, Extent, ExtentKind, FileOffset, HostOffset, Result, num};

/// How many runs are found out at a time, so that a fragmented image needs the lock less often.
const RUNS: usize = 64;

/// Somebody who reads outside the lock: nothing is put where he might look.
struct Reader<'a, M: BlockMap> {
    blocks: &'a Blocks<M>,
    epoch: Epoch,
}

impl<M: BlockMap> Drop for Reader<'_, M> {
    fn drop(&mut self) {
        self.blocks.end_reading(self.epoch);
    }
}

impl<M: BlockMap> Blocks<M> {
    /// As [`BlockImage::read_at`](rimg_core::BlockImage::read_at).
    ///
    /// # Errors
    /// As there.
    pub fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let end = at.checked_add(num::to_u64(buf.len()));
        let Some(end) = end.filter(|&end| end <= self.size_bytes()) else {
            return Err(Error::Misuse("read behind the end of the disk"));
        };
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let (reader, extents) = self.find_out(at..end)?;
            for extent in extents {
                let len = num::to_usize(extent.len_bytes)?.min(rest.len());
                let (piece, behind) = rest.split_at_mut(len);
                self.fetch(extent.kind, piece, at)?;
                at = at.saturating_add(extent.len_bytes);
                rest = behind;
            }
            drop(reader);
        }
        Ok(())
    }

    fn find_out(&self, range: Range<u64>) -> Result<(Reader<'_, M>, Vec<Extent>)> {
        let mut state = self.usable()?;
        let mut extents = Vec::new();
        let mut at = range.start;
        while at < range.end && extents.len() < RUNS {
            let extent = state.map.extent(at..range.end)?;
            if extent.len_bytes == 0 {
                return Err(Error::Misuse("a block map gave an empty run"));
            }
            at = at.saturating_add(extent.len_bytes);
            extents.push(extent);
        }
        let epoch = state.readers.begin();
        Ok((Reader { blocks: self, epoch }, extents))
    }

    fn fetch(&self, kind: ExtentKind, buf: &mut [u8], at: u64) -> Result<()> {
        match kind {
            ExtentKind::Data(place) => self.fetch_data(place.host, buf, at),
            ExtentKind::Zero { .. } => {
                buf.fill(0);
                Ok(())
            }
            ExtentKind::Backing { .. } => self.fetch_below(buf, at),
            ExtentKind::Encoded { at: place, len_bytes, codec } => {
                let block = self.range_of(at / self.block_bytes, self.size_bytes());
                let encoded = Encoded { place, len_bytes, codec };
                // Some encode of the last block only what the disk has of it.
                let there = num::to_usize(block.end.saturating_sub(block.start))?;
                if at == block.start && buf.len() == there {
                    return self.decode(&encoded, buf);
                }
                let mut whole = vec![0; there];
                self.decode(&encoded, &mut whole)?;
                let skip = num::to_usize(at.saturating_sub(block.start))?;
                let piece = whole.get(skip..).and_then(|rest| rest.get(..buf.len()));
                buf.copy_from_slice(piece.ok_or(Error::Misuse("a run is longer than its block"))?);
                Ok(())
            }
            _ => Err(Error::Misuse("a block map gave a run of a kind that cannot be read")),
        }
    }

    fn fetch_below(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let below = match &self.below {
            Below::Image(below) => below,
            Below::LeftOut => {
                return Err(Error::Denied("the image below was not opened".into()));
            }
            Below::Nothing => {
                buf.fill(0);
                return Ok(());
            }
        };
        let there = below.size_bytes().saturating_sub(at).min(num::to_u64(buf.len()));
        let (inside, behind) = buf.split_at_mut(num::to_usize(there)?);
        behind.fill(0);
        if inside.is_empty() { Ok(()) } else { below.read_at(inside, at) }
    }

    fn fetch_data(&self, host: HostOffset, buf: &mut [u8], at: u64) -> Result<()> {
        let Some(cipher) = &self.cipher else { return self.read_file(buf, host.0) };
        let sector = u64::from(cipher.sector_bytes());
        let (start, end) = whole_sectors(at, buf.len(), sector)?;
        let ahead = at.saturating_sub(start);
        let from = host.0.saturating_sub(ahead);
        if ahead == 0 && end.saturating_sub(start) == num::to_u64(buf.len()) {
            self.read_file(buf, from)?;
            cipher.decrypt(buf, start);
            return Ok(());
        }
        let whole = self.read_sectors(cipher.as_ref(), start..end, from)?;
        let piece = whole.get(num::to_usize(ahead)?..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(piece.ok_or(Error::Misuse("sectors are shorter than they are"))?);
        Ok(())
    }

    /// The decrypted sectors of `guest`, which lie at `from`.
    pub(crate) fn read_sectors(
        &self,
        cipher: &dyn SectorCipher,
        guest: Range<u64>,
        from: u64,
    ) -> Result<Vec<u8>> {
        let mut whole = vec![0; num::to_usize(guest.end.saturating_sub(guest.start))?];
        self.read_file(&mut whole, from)?;
        cipher.decrypt(&mut whole, guest.start);
        Ok(whole)
    }

    fn read_file(&self, buf: &mut [u8], host: u64) -> Result<()> {
        self.file.read_exact_at(buf, host).map_err(Error::io("read data", host))
    }

    fn decode(&self, encoded: &Encoded, cluster: &mut [u8]) -> Result<()> {
        let host = encoded.place.host;
        let end = self.file.len_bytes().map_err(Error::io("find the length of the file", 0))?;
        // The length is an upper bound, which counts whole sectors and may reach past the end.
        let len = encoded.len_bytes.min(end.saturating_sub(host.0));
        let mut bytes = vec![0; num::to_usize(len)?];
        self.read_file(&mut bytes, host.0)?;
        let mut decoder = self.decoder();
        let result = decoder.decode(encoded.codec, &bytes, cluster);
        self.keep_decoder(decoder);
        result.map_err(|source| Error::Decode { codec: encoded.codec, host, source: source.into() })
    }
}

struct Encoded {
    place: FileOffset,
    len_bytes: u64,
    codec: rimg_core::Codec,
}

/// The guest range of the sectors that `len` bytes at `at` touch.
pub(crate) fn whole_sectors(at: u64, len: usize, sector: u64) -> Result<(u64, u64)> {
    let end = at.checked_add(num::to_u64(len)).and_then(|end| num::align_up(end, sector));
    let end = end.ok_or(Error::Misuse("a range past the end of all disks"))?;
    Ok((num::align_down(at, sector), end))
}
