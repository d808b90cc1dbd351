//! New images.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::FORMAT;
use crate::header::{Header, ImageType};
use crate::options::{CreateOptions, invalid};
use crate::spec::{self, entry};
use rimg_core::{Error, RawOptions, Result, StorageWrite, TargetFiles, Uuid, num};

/// How much of a block map is written at a time, in bytes.
const PIECE_BYTES: u64 = 1 << 20;

/// Writes a new, empty image.
pub(crate) fn create(
    target: &dyn TargetFiles,
    size_bytes: u64,
    options: &RawOptions,
) -> Result<()> {
    let options = CreateOptions::parse(options)?;
    let header = new_header(size_bytes, options)?;
    let file = target.main().writer().ok_or(Error::ReadOnly("the target is not writable"))?;
    let mut start = header.encode();
    start.resize(num::to_usize(header.map_offset)?, 0);
    file.write_all_at(&start, 0).map_err(Error::io("write header", 0))?;
    write_map(file, &header)?;
    if options.is_static {
        let end = header.block_at(header.blocks);
        file.set_len_bytes(end).map_err(Error::io("set file length", end))?;
    }
    Ok(())
}

/// The header of a new image, its tables laid out.
pub(crate) fn new_header(size_bytes: u64, options: CreateOptions) -> Result<Header> {
    let block = u64::from(options.block_bytes);
    let largest = spec::MAX_BLOCKS.saturating_mul(block);
    let size = size_bytes.checked_next_multiple_of(spec::SECTOR_BYTES);
    let Some(size) = size.filter(|size| *size <= largest) else {
        return Err(invalid(
            "size",
            format!(
                "Unsupported VDI image size (size is {size_bytes:#x}, max supported is {largest:#x})"
            ),
        ));
    };
    let blocks = u32::try_from(size.div_ceil(block)).unwrap_or(u32::MAX);
    let (image_type, name) = if options.is_static {
        (ImageType::Static, "static")
    } else {
        (ImageType::Dynamic, "dynamic")
    };
    let derived =
        |role: &str| Uuid::derived([FORMAT, role, &size.to_string(), name, &block.to_string()]);
    let map_offset = u64::from(spec::MAP_OFFSET);
    Ok(Header {
        is_old: false,
        image_type,
        disk_bytes: size,
        block_bytes: options.block_bytes,
        extra_bytes: 0,
        blocks,
        allocated: if options.is_static { blocks } else { 0 },
        map_offset,
        data_offset: data_offset(map_offset, blocks),
        uuid: options.uuid.unwrap_or_else(|| derived("image")),
        modification_uuid: match options.uuid {
            Some(uuid) => Uuid::derived([FORMAT, "modification", &uuid.to_string()]),
            None => derived("modification"),
        },
        parent_uuid: Uuid::NIL,
        parent_modification_uuid: Uuid::NIL,
    })
}

/// Where the data begins behind a map of so many blocks: with a sector.
pub(crate) fn data_offset(map_offset: u64, blocks: u32) -> u64 {
    let map_bytes = u64::from(blocks).saturating_mul(spec::ENTRY_BYTES);
    map_offset.saturating_add(map_bytes.next_multiple_of(spec::SECTOR_BYTES))
}

fn write_map(file: &dyn StorageWrite, header: &Header) -> Result<()> {
    let is_static = header.image_type == ImageType::Static;
    let raw = |block: u32| if is_static { block } else { entry::FREE };
    let mut bytes = Vec::new();
    let mut at = header.map_offset;
    for block in 0..header.blocks {
        bytes.extend_from_slice(&raw(block).to_le_bytes());
        let len = num::to_u64(bytes.len());
        if len == PIECE_BYTES {
            file.write_all_at(&bytes, at).map_err(Error::io("write block map", at))?;
            at = at.saturating_add(len);
            bytes.clear();
        }
    }
    bytes.resize(num::to_usize(header.data_offset.saturating_sub(at))?, 0);
    if bytes.is_empty() {
        return Ok(());
    }
    file.write_all_at(&bytes, at).map_err(Error::io("write block map", at))
}
