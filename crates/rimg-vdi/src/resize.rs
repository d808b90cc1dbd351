//! Changing the size of the disk.

use crate::header::ImageType;
use crate::image::VdiImage;
use crate::map::VdiMap;
use crate::options::invalid;
use crate::spec;
use crate::table::Entry;
use rimg_core::{Error, Preallocation, Resize, Result, StorageWrite, Zeroing, num};

/// How much of a block is copied at a time, in bytes.
const PIECE_BYTES: u64 = 1 << 20;

impl Resize for VdiImage {
    /// New blocks of a static image have their places at once. When a disk shrinks, blocks from
    /// the end of the file move to where others were: no program expects gaps.
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        if preallocation != Preallocation::Off {
            let reason = format!("Unsupported preallocation mode: {}", preallocation.name());
            return Err(invalid("preallocation", reason));
        }
        let size = size_bytes.checked_next_multiple_of(spec::SECTOR_BYTES).ok_or(Error::Limit {
            what: "disk size",
            needed: size_bytes,
            limit: u64::MAX,
        })?;
        self.blocks.resize(size)?;
        self.blocks.alone(|map| {
            map.close_gaps()?;
            if map.header.image_type == ImageType::Static {
                map.place_all()?;
            }
            Ok(())
        })
    }
}

impl VdiMap {
    /// Moves blocks from the end of the file into gaps before them.
    pub(crate) fn close_gaps(&mut self) -> Result<()> {
        let mut last: Vec<(u32, u64)> = Vec::new();
        for block in 0..self.blocks() {
            if let Entry::Block(index) = self.entry(block) {
                last.push((index, block));
            }
        }
        last.sort_unstable();
        while let (Some(gap), Some((index, block))) = (self.slots.first_hole(), last.pop()) {
            if gap > index {
                break;
            }
            self.slots.take_hole(gap);
            self.copy_block(index, gap)?;
            self.set_entry(block, Entry::Block(gap))?;
            self.slots.use_it(gap);
            self.slots.free_now(index);
        }
        Ok(())
    }

    /// Gives every block of the disk a place.
    fn place_all(&mut self) -> Result<()> {
        let len = self.file_len()?;
        let mut end = len;
        for block in 0..self.blocks() {
            if matches!(self.entry(block), Entry::Block(_)) {
                continue;
            }
            let index = self.slots.take()?;
            let host = self.header.block_at(index);
            let until = host.saturating_add(self.block_bytes());
            if host < len {
                // Another block was there.
                self.writer()?
                    .write_zeroes_at(host..until.min(len), Zeroing::MayPunch)
                    .map_err(Error::io("write zeroes", host))?;
            }
            self.set_entry(block, Entry::Block(index))?;
            self.slots.use_it(index);
            end = end.max(until);
        }
        if end > len {
            self.writer()?.set_len_bytes(end).map_err(Error::io("set file length", end))?;
        }
        Ok(())
    }

    fn writer(&self) -> Result<&dyn StorageWrite> {
        self.file.writer().ok_or(Error::ReadOnly("its file cannot be written"))
    }

    /// Copies a block of the file, with what it has before its data.
    pub(crate) fn copy_block(&self, from: u32, to: u32) -> Result<()> {
        let writer = self.writer()?;
        let extra = u64::from(self.header.extra_bytes);
        let start = |index| self.header.block_at(index).saturating_sub(extra);
        let (from, to) = (start(from), start(to));
        let mut done = 0;
        let stride = self.header.stride();
        while done < stride {
            let len = stride.saturating_sub(done).min(PIECE_BYTES);
            let mut piece = vec![0; num::to_usize(len)?];
            let (at, target) = (from.saturating_add(done), to.saturating_add(done));
            // The disk's last block may be shorter in the file.
            let there = self.file_len()?.saturating_sub(at).min(len);
            let inside = piece.get_mut(..num::to_usize(there)?).unwrap_or_default();
            self.file.read_exact_at(inside, at).map_err(Error::io("read data", at))?;
            writer.write_all_at(&piece, target).map_err(Error::io("write data", target))?;
            done = done.saturating_add(len);
        }
        Ok(())
    }
}
