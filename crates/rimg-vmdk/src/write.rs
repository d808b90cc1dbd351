//! Writing guest data, part by part, and the content ID.

use crate::create::Hash;
use crate::descriptor::Descriptor;
use crate::image::{Body, DescriptorPlace, Part, VmdkImage, part_at};
use core::ops::Range;
use rimg_core::{Error, ImageWrite, Result, StorageWrite, Zeroing, num, zeroes};

/// How many bytes of the first write after opening go into the new content ID.
const CID_BYTES: usize = 4096;

impl ImageWrite for VmdkImage {
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        let end = at.checked_add(num::to_u64(buf.len())).ok_or(Error::Misuse("offset overflow"))?;
        self.check_range(&(at..end))?;
        self.note_change(at, buf)?;
        self.each_part(at..end, |part, range| {
            let skip = range.start.saturating_add(part.start).saturating_sub(at);
            let len = range.end.saturating_sub(range.start);
            let piece = buf
                .get(num::to_usize(skip)?..)
                .and_then(|rest| rest.get(..usize::try_from(len).ok()?));
            let piece = piece.ok_or(Error::Misuse("a part outside of the write"))?;
            match &part.body {
                Body::Zero if zeroes::is_zero(piece) => Ok(()),
                _ if !part.writable => {
                    Err(Error::ReadOnly("this part of the disk cannot be written"))
                }
                Body::Flat { at } => {
                    let host = at.saturating_add(range.start);
                    let file = self.part_writer(part)?;
                    file.write_all_at(piece, host).map_err(Error::io("write data", host))
                }
                Body::Grains(blocks) => blocks.write_at(piece, range.start),
                Body::Stream(stream) => stream.write(piece, range.start),
                Body::Zero | Body::Absent => {
                    Err(Error::ReadOnly("this part of the disk cannot be written"))
                }
            }
        })
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range)?;
        self.note_change(range.start, &range.end.to_le_bytes())?;
        self.each_part(range, |part, range| match &part.body {
            Body::Zero => Ok(()),
            _ if !part.writable => Err(Error::ReadOnly("this part of the disk cannot be written")),
            Body::Flat { at } => {
                let host = at.saturating_add(range.start)..at.saturating_add(range.end);
                let start = host.start;
                let file = self.part_writer(part)?;
                file.write_zeroes_at(host, Zeroing::MayPunch)
                    .map_err(Error::io("write zeroes", start))
            }
            Body::Grains(blocks) => blocks.write_zeroes_at(range),
            Body::Stream(stream) => stream.write_zeroes(range),
            Body::Absent => Err(Error::ReadOnly("this part of the disk cannot be written")),
        })
    }

    fn discard_at(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range)?;
        self.note_change(range.start, &range.end.to_le_bytes())?;
        self.each_part(range, |part, range| match &part.body {
            Body::Flat { at } if part.writable => {
                let host = at.saturating_add(range.start)..at.saturating_add(range.end);
                let start = host.start;
                let file = self.part_writer(part)?;
                file.discard_at(host).map_err(Error::io("discard", start))
            }
            Body::Grains(blocks) if part.writable => blocks.discard_at(range),
            // Giving grains of a stream back would make it longer.
            _ => Ok(()),
        })
    }

    fn flush(&self) -> Result<()> {
        self.flush_parts(false)
    }

    fn finish(&self) -> Result<()> {
        self.flush_parts(true)
    }

    fn places_in_order(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.body, Body::Grains(_) | Body::Stream(_)))
    }

    fn is_zero_initialised(&self) -> bool {
        self.was_blank
    }

    fn relax_until_flush(&self) {
        self.descriptor().relaxed = true;
        for part in self.parts.iter() {
            match &part.body {
                Body::Grains(blocks) if part.writable => blocks.relax_until_flush(),
                Body::Stream(stream) => stream.relax_until_flush(),
                _ => {}
            }
        }
    }
}

impl VmdkImage {
    fn flush_parts(&self, closing: bool) -> Result<()> {
        for part in self.parts.iter().filter(|part| part.writable) {
            match &part.body {
                Body::Grains(blocks) if closing => blocks.finish()?,
                Body::Grains(blocks) => blocks.flush()?,
                Body::Stream(stream) if closing => stream.finish()?,
                Body::Stream(stream) => stream.flush()?,
                _ => self.part_writer(part)?.sync().map_err(Error::io("flush", 0))?,
            }
        }
        self.descriptor().relaxed = false;
        Ok(())
    }

    /// Calls `work` with each part of `range`, and with what of the part it is.
    fn each_part(
        &self,
        range: Range<u64>,
        mut work: impl FnMut(&Part, Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let part = part_at(&self.parts, at)?;
            let end = part.end().min(range.end);
            work(part, at.saturating_sub(part.start)..end.saturating_sub(part.start))?;
            at = end;
        }
        Ok(())
    }

    pub(crate) fn part_writer(&self, part: &Part) -> Result<&dyn StorageWrite> {
        self.file_writer(part.file)
    }

    fn file_writer(&self, file: u16) -> Result<&dyn StorageWrite> {
        let writer = self.storage(file)?.writer();
        writer.ok_or(Error::ReadOnly("its file was opened for reading"))
    }

    /// Before the first change after opening, the content ID becomes another, and durable: so
    /// overlays notice that their parent is not what it was. An image that is being made keeps the
    /// one that it was given.
    pub(crate) fn note_change(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.descriptor();
        if state.cid_changed || state.relaxed {
            return Ok(());
        }
        let Some(descriptor) = &state.descriptor else {
            return Err(Error::ReadOnly("it has no descriptor"));
        };
        let mut changed = descriptor.clone();
        let mut hash = Hash::new(&descriptor.cid.to_le_bytes());
        hash.add(&at.to_le_bytes());
        hash.add(bytes.get(..CID_BYTES).unwrap_or(bytes));
        let cid = hash.cid();
        changed.set_cid(if cid == descriptor.cid { cid ^ 1 } else { cid });
        let place = state.place.clone();
        self.store_descriptor(&place, descriptor, &changed)?;
        state.descriptor = Some(changed);
        state.cid_changed = true;
        Ok(())
    }

    /// Writes what differs between two versions of the descriptor, and makes it durable.
    pub(crate) fn store_descriptor(
        &self,
        place: &DescriptorPlace,
        old: &Descriptor,
        new: &Descriptor,
    ) -> Result<()> {
        let (old, mut new) = (old.encode(), new.encode());
        let len = new.len();
        let start = match place {
            DescriptorPlace::File => 0,
            DescriptorPlace::Embedded(range) => {
                let room = range.end.saturating_sub(range.start);
                if num::to_u64(len) > room {
                    return Err(Error::Limit {
                        what: "descriptor",
                        needed: num::to_u64(len),
                        limit: room,
                    });
                }
                // What is left of the old text must not be taken for part of the new.
                new.resize(len.max(old.len()), 0);
                range.start
            }
        };
        let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
        let same_end = if old.len() == new.len() {
            let pairs = old.iter().rev().zip(new.iter().rev());
            pairs.take_while(|(old, new)| old == new).count().min(new.len().saturating_sub(same))
        } else {
            0
        };
        let changed = new.get(same..new.len().saturating_sub(same_end)).unwrap_or_default();
        let file = self.file_writer(0)?;
        let at = start.saturating_add(num::to_u64(same));
        if !changed.is_empty() {
            file.write_all_at(changed, at).map_err(Error::io("write descriptor", at))?;
        }
        if *place == DescriptorPlace::File && len < old.len() {
            let len = num::to_u64(len);
            file.set_len_bytes(len).map_err(Error::io("set file length", len))?;
        }
        file.sync().map_err(Error::io("make the descriptor durable", start))
    }
}
