//! The disk that a descriptor describes.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::{Descriptor, ImageElement, MAX_BYTES, StorageElement, wrong};
use crate::driver;
use crate::error::{CorruptKind, FORMAT};
use crate::image::Access;
use crate::spec::SECTOR_BYTES;
use core::ops::Range;
use rimg_core::{
    BlockImage, Dependency, DependencyRole, Error, Extent, ExtentKind, FileOffset, HostOffset,
    ImageInfo, OpenOptions, Result, Storage, num,
};
use std::sync::Arc;

/// All storages of a disk, in order.
#[derive(Debug)]
pub(crate) struct Bundle {
    size_bytes: u64,
    parts: Vec<Part>,
    /// The descriptor, and then the files of the parts.
    files: Vec<Arc<dyn Storage>>,
}

/// A storage, in bytes of the disk.
#[derive(Debug)]
struct Part {
    range: Range<u64>,
    /// The images from what the guest sees down, and which file each is.
    layers: Vec<(Box<dyn BlockImage>, u16)>,
}

/// Opens a disk by its descriptor.
pub(crate) fn open(file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Bundle> {
    if how.writable {
        return Err(Error::ReadOnly("bundles are read"));
    }
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    if len > MAX_BYTES {
        let kind = CorruptKind::DescriptorTooLong(MAX_BYTES);
        return Err(kind.at("DiskDescriptor.xml", "length", 0));
    }
    let mut text = how.limits.metadata_budget().buffer("descriptor", len)?;
    file.read_exact_at(&mut text, 0).map_err(Error::io("read descriptor", 0))?;
    let descriptor = Descriptor::parse(&text)?;
    let depth = u32::try_from(descriptor.chain.len()).unwrap_or(u32::MAX);
    if depth > how.limits.chain_depth {
        return Err(Error::Limit {
            what: "number of snapshots",
            needed: depth.into(),
            limit: how.limits.chain_depth.into(),
        });
    }
    let size_bytes = descriptor.sectors.saturating_mul(SECTOR_BYTES);
    let mut bundle = Bundle { size_bytes, parts: Vec::new(), files: vec![file] };
    for storage in &descriptor.storages {
        bundle.add(storage, &descriptor.chain, how)?;
    }
    Ok(bundle)
}

impl Bundle {
    fn add(
        &mut self,
        storage: &StorageElement,
        chain: &[String],
        how: &OpenOptions<'_>,
    ) -> Result<()> {
        let bytes = |sectors: u64| sectors.saturating_mul(SECTOR_BYTES);
        let mut layers = Vec::new();
        for guid in chain {
            let image = storage.images.iter().find(|image| image.guid == *guid);
            let Some(image) = image else { return wrong("a storage lacks a snapshot's image") };
            if image.is_plain && layers.len().saturating_add(1) < chain.len() {
                return wrong("a plain image stands on another one");
            }
            layers.push(self.open_layer(image, how)?);
        }
        self.parts.push(Part { range: bytes(storage.start)..bytes(storage.end), layers });
        Ok(())
    }

    fn open_layer(
        &mut self,
        image: &ImageElement,
        how: &OpenOptions<'_>,
    ) -> Result<(Box<dyn BlockImage>, u16)> {
        let index = u16::try_from(self.files.len()).map_err(|_| Error::Limit {
            what: "number of files",
            needed: num::to_u64(self.files.len()),
            limit: u16::MAX.into(),
        })?;
        let wanted = Dependency {
            role: DependencyRole::Extent,
            name: &image.file,
            format: Some(if image.is_plain { "raw" } else { FORMAT }),
            writable: false,
        };
        let file = how.gate.open_file(&wanted)?;
        self.files.push(Arc::clone(&file));
        let access = if how.inspect_only { Access::Inspect } else { Access::Read };
        let image: Box<dyn BlockImage> = if image.is_plain {
            Box::new(Plain::new(file)?)
        } else {
            Box::new(driver::open(file, access, how.limits)?)
        };
        Ok((image, index))
    }

    fn check_range(&self, range: &Range<u64>) -> Result<()> {
        if range.start <= range.end && range.end <= self.size_bytes {
            Ok(())
        } else {
            Err(Error::Misuse("range past the end of the disk"))
        }
    }

    /// The part that `at` lies in.
    fn part(&self, at: u64) -> Result<&Part> {
        let index = self.parts.partition_point(|part| part.range.end <= at);
        self.parts.get(index).ok_or(Error::Misuse("range past the end of the disk"))
    }
}

impl Part {
    /// The first run of `range`, and the layer that it is of.
    fn run(&self, range: Range<u64>) -> Result<(Extent, usize)> {
        let end = range.end.min(self.range.end);
        let mut len = end.saturating_sub(range.start);
        let start = range.start.saturating_sub(self.range.start);
        for (depth, (image, file)) in self.layers.iter().enumerate() {
            let there = image.size_bytes().saturating_sub(start);
            if there == 0 {
                break;
            }
            len = len.min(there);
            let extent = image.extent_at(start..start.saturating_add(len))?;
            len = len.min(extent.len_bytes);
            let kind = match extent.kind {
                ExtentKind::Backing { .. } => continue,
                ExtentKind::Data(at) => ExtentKind::Data(FileOffset { file: *file, ..at }),
                other => other,
            };
            return Ok((Extent { len_bytes: len, kind }, depth));
        }
        let kind = ExtentKind::Backing { allocation: None };
        Ok((Extent { len_bytes: len, kind }, self.layers.len()))
    }
}

impl BlockImage for Bundle {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let end = at.checked_add(num::to_u64(buf.len()));
        let end = end.ok_or(Error::Misuse("range past the end of the disk"))?;
        self.check_range(&(at..end))?;
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let part = self.part(at)?;
            let (extent, depth) = part.run(at..end)?;
            let len = num::to_usize(extent.len_bytes)?.min(rest.len());
            let (piece, behind) = rest.split_at_mut(len);
            match (part.layers.get(depth), extent.kind) {
                (Some((image, _)), ExtentKind::Data(_)) => {
                    image.read_at(piece, at.saturating_sub(part.range.start))?;
                }
                _ => piece.fill(0),
            }
            at = at.saturating_add(extent.len_bytes);
            rest = behind;
        }
        Ok(())
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.check_range(&range)?;
        if range.is_empty() {
            return Err(Error::Misuse("empty range"));
        }
        self.part(range.start)?.run(range).map(|(extent, _)| extent)
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo {
            format: FORMAT,
            virtual_size_bytes: self.size_bytes,
            ..ImageInfo::default()
        })
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        self.files.get(usize::from(index))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// A plain image: the bytes of its file, and zeroes behind.
#[derive(Debug)]
struct Plain {
    file: Arc<dyn Storage>,
    len: u64,
}

impl Plain {
    fn new(file: Arc<dyn Storage>) -> Result<Self> {
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        Ok(Self { file, len })
    }
}

impl BlockImage for Plain {
    fn size_bytes(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(buf, at).map_err(Error::io("read plain image", at))
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        let wanted = range.end.saturating_sub(range.start);
        let run =
            self.file.run_at(range.start).map_err(Error::io("look for holes", range.start))?;
        let at = FileOffset { file: 0, host: HostOffset(range.start) };
        let kind =
            if run.is_data { ExtentKind::Data(at) } else { ExtentKind::Zero { allocation: None } };
        Ok(Extent { len_bytes: run.len_bytes.clamp(1, wanted.max(1)), kind })
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo { format: "raw", virtual_size_bytes: self.len, ..ImageInfo::default() })
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then_some(&self.file)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
