//! Growing and shrinking: what changes is the last extent.

use crate::descriptor::Descriptor;
use crate::image::{Body, Part, VmdkImage, unsupported};
use crate::spec::{SECTOR_BYTES, descriptor};
use rimg_core::{
    Error, ExtentKind, Preallocation, Resize, Result, Storage, StorageWrite, Zeroing, op,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Disks beyond this are none.
const MAX_BYTES: u64 = 1 << 62;

impl Resize for VmdkImage {
    /// The disk ends with the sector that its last byte is in.
    ///
    /// An extent that grows is longer than the descriptor says until the descriptor says so; one
    /// that shrinks, too.
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()> {
        let size = size_bytes.min(MAX_BYTES).next_multiple_of(SECTOR_BYTES);
        if size_bytes > MAX_BYTES {
            return Err(unsupported("disks of more than 4 EiB"));
        }
        let Some(last) = self.parts.last() else {
            return Err(unsupported("disks without extents"));
        };
        let len = self.check_resize(last, size, preallocation)?;
        let old = last.len();
        if len == old {
            return Ok(());
        }
        self.note_change(old, &len.to_le_bytes())?;
        if len < old {
            self.describe_size(size, len)?;
        }
        match &last.body {
            Body::Flat { at } => self.resize_flat(last, at.saturating_add(len), preallocation)?,
            Body::Grains(blocks) => blocks.resize(len)?,
            Body::Stream(stream) => stream.resize(len)?,
            Body::Zero | Body::Absent => {}
        }
        if len > old {
            self.describe_size(size, len)?;
        }
        last.len.store(len, Ordering::Release);
        self.size_bytes.store(size, Ordering::Release);
        Ok(())
    }
}

impl VmdkImage {
    /// How long the last extent is to become.
    fn check_resize(&self, last: &Part, size: u64, preallocation: Preallocation) -> Result<u64> {
        let len = size.checked_sub(last.start).filter(|len| *len > 0 || self.parts.len() == 1);
        let len = len.ok_or_else(|| unsupported("removing extents"))?;
        let can_fill = matches!(last.body, Body::Flat { .. });
        if !matches!(preallocation, Preallocation::Off) && (!can_fill || len < last.len()) {
            return Err(Error::InvalidOption {
                option: "preallocation",
                reason: format!("Unsupported preallocation mode: {}", preallocation.name()),
            });
        }
        if !last.writable && !matches!(last.body, Body::Zero) {
            return Err(Error::ReadOnly("its last extent cannot be written"));
        }
        let is_split = self
            .descriptor()
            .descriptor
            .as_ref()
            .is_some_and(|found| found.create_type.contains("GbMaxExtent"));
        if is_split && len > last.len() && len > descriptor::SPLIT_BYTES {
            return Err(unsupported("adding extents"));
        }
        if let Body::Flat { at } = last.body {
            let file = self.storage(last.file)?;
            let there = file.len_bytes().map_err(Error::io("read file length", 0))?;
            if there != at.saturating_add(last.len()) {
                return Err(unsupported("resizing an extent in the middle of its file"));
            }
        }
        Ok(len)
    }

    fn resize_flat(&self, part: &Part, end: u64, preallocation: Preallocation) -> Result<()> {
        let file = self.part_writer(part)?;
        let old = file.len_bytes().map_err(Error::io("read file length", 0))?;
        file.set_len_bytes(end).map_err(Error::io("set file length", end))?;
        if matches!(preallocation, Preallocation::Falloc | Preallocation::Full) {
            file.write_zeroes_at(old..end, Zeroing::KeepAllocated)
                .map_err(Error::io(op::RESERVE_SPACE, old))?;
        }
        file.sync().map_err(Error::io("make writes durable", 0))
    }

    /// Brings the size to the descriptor.
    fn describe_size(&self, size: u64, last_len: u64) -> Result<()> {
        let mut state = self.descriptor();
        let Some(old) = &state.descriptor else { return Ok(()) };
        let mut new = old.clone();
        let last = self.parts.len().saturating_sub(1);
        new.set_extent_sectors(last, last_len / SECTOR_BYTES);
        set_cylinders(&mut new, size);
        self.store_descriptor(&state.place, old, &new)?;
        state.descriptor = Some(new);
        Ok(())
    }
}

fn set_cylinders(descriptor: &mut Descriptor, size: u64) {
    let number = |key: &str| descriptor.value(key).and_then(|value| value.parse::<u64>().ok());
    let heads = number("ddb.geometry.heads");
    let sectors = number("ddb.geometry.sectors");
    let track = heads.unwrap_or(0).saturating_mul(sectors.unwrap_or(0));
    if let Some(cylinders) = (size / SECTOR_BYTES).checked_div(track) {
        descriptor.set("ddb.geometry.cylinders", &cylinders.to_string());
    }
}

/// Whether nothing was written yet, as far as tables and holes tell; of a new image, whose flat
/// extents are files, nothing was.
pub(crate) fn is_blank(files: &[Arc<dyn Storage>], parts: &[Part]) -> Result<bool> {
    for part in parts {
        let mut at = 0;
        while at < part.len() {
            let range = at..part.len();
            let extent = match &part.body {
                Body::Grains(blocks) => blocks.extent_at(range)?,
                Body::Stream(stream) => stream.blocks.extent_at(range)?,
                Body::Zero => break,
                Body::Flat { at: start } => {
                    let Some(file) = files.get(usize::from(part.file)) else { return Ok(false) };
                    if file.writer().is_some_and(StorageWrite::is_zero_where_unwritten) {
                        break;
                    }
                    let host = start.saturating_add(at);
                    let run = file.run_at(host).map_err(Error::io("look for holes", host))?;
                    if run.is_data || run.len_bytes == 0 {
                        return Ok(false);
                    }
                    at = at.saturating_add(run.len_bytes);
                    continue;
                }
                Body::Absent => return Ok(false),
            };
            if !matches!(extent.kind, ExtentKind::Backing { .. }) {
                return Ok(false);
            }
            at = at.saturating_add(extent.len_bytes.max(1));
        }
    }
    Ok(true)
}
