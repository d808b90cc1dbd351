//! New images.

use crate::address::Geometry;
use crate::error::FORMAT;
use crate::header::locator::ParentLocator;
use crate::header::metadata::Metadata;
use crate::header::region::{Region, Regions};
use crate::header::{Guid, Header, file_identifier};
use crate::info::identity_of;
use crate::options::CreateOptions;
use crate::spec;
use crate::table::Payload;
use rimg_core::{Error, RawOptions, Result, StorageWrite, TargetFiles, num};

/// Entries of the table are written so many bytes at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// What lies behind the metadata is left free, as qemu-img leaves it.
const GAP_BYTES: u64 = 4 << 20;

/// Where everything of a new image lies: the header section, the log, the block allocation table,
/// the metadata, a gap, and the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) log: Region,
    pub(crate) bat: Region,
    pub(crate) metadata: Region,
    /// Where the first block goes.
    pub(crate) data_at: u64,
}

impl Layout {
    pub(crate) fn of(options: &CreateOptions) -> Self {
        let geometry = Geometry::new(options.block, options.logical_sector);
        let entries = geometry.entries_for(options.size_bytes, options.parent.is_some()).max(1);
        let bat_bytes = entries.saturating_mul(spec::BAT_ENTRY_BYTES);
        let bat_bytes = num::align_up(bat_bytes, spec::ALIGN_BYTES).unwrap_or(u64::MAX);
        let log = Region { offset: spec::HEADER_SECTION_BYTES, length: options.log_bytes };
        let bat = Region { offset: log.end(), length: bat_bytes };
        let metadata = Region { offset: bat.end(), length: spec::MIB };
        Self { log, bat, metadata, data_at: metadata.end().saturating_add(GAP_BYTES) }
    }
}

/// Writes a new image. Nothing is durable before the last sync, which is the caller's.
pub(crate) fn create(
    target: &dyn TargetFiles,
    size_bytes: u64,
    options: &RawOptions,
) -> Result<()> {
    let options = CreateOptions::parse(size_bytes, options)?;
    let layout = Layout::of(&options);
    let geometry = Geometry::new(options.block, options.logical_sector);
    let file = target.main().writer().ok_or(Error::ReadOnly("the target is not writable"))?;
    let write = |bytes: &[u8], at: u64| {
        file.write_all_at(bytes, at).map_err(Error::io("write new image", at))
    };
    let parent = locate_parent(target, &options)?;
    let mut fingerprint = options.fingerprint();
    fingerprint.extend(parent.iter().flat_map(ParentLocator::encode));
    let derive = |what: &[u8]| Guid::derive(&[FORMAT.as_bytes(), b"new", what, &fingerprint]);

    let blocks = geometry.blocks_for(options.size_bytes);
    let of_blocks =
        if options.is_fixed { blocks.saturating_mul(geometry.block_bytes()) } else { 0 };
    let len = layout.data_at.saturating_add(of_blocks);
    file.set_len_bytes(len).map_err(Error::io("make the file longer", len))?;

    write(&file_identifier("rimg"), 0)?;
    let mut header = Header {
        sequence_number: 0,
        file_write_guid: derive(b"file write"),
        data_write_guid: derive(b"data write"),
        log_guid: Guid::ZERO,
        log_offset: layout.log.offset,
        log_length: layout.log.length,
    };
    for at in spec::HEADER_AT {
        header.sequence_number = header.sequence_number.saturating_add(1);
        write(&header.encode(), at)?;
    }
    let regions = Regions { bat: layout.bat, metadata: layout.metadata, others: Vec::new() };
    for at in spec::REGION_TABLE_AT {
        write(&regions.encode(), at)?;
    }
    let metadata = Metadata {
        geometry,
        size_bytes: options.size_bytes,
        size_at: 0,
        leave_blocks_allocated: options.is_fixed,
        disk_id: options.disk_id.unwrap_or_else(|| derive(b"disk")),
        physical_sector: options.physical_sector,
        parent,
        linkage_at: None,
    };
    write(&metadata.encode(), layout.metadata.offset)?;
    write_table(file, &options, geometry, &layout)
}

/// How the image is to find and know its parent.
fn locate_parent(
    target: &dyn TargetFiles,
    options: &CreateOptions,
) -> Result<Option<ParentLocator>> {
    let Some(name) = &options.parent else { return Ok(None) };
    let identity = target.backing_info().and_then(identity_of);
    let Some(linkage) = identity else {
        return Err(Error::InvalidOption {
            option: "backing_file",
            reason: "The parent has to be opened, and to be a vhdx image".to_owned(),
        });
    };
    let key = if name.starts_with('/') { "absolute_win32_path" } else { "relative_path" };
    let paths = vec![(key, name.replace('/', "\\"))];
    Ok(Some(ParentLocator { linkage, linkage2: None, paths }))
}

fn write_table(
    file: &dyn StorageWrite,
    options: &CreateOptions,
    geometry: Geometry,
    layout: &Layout,
) -> Result<()> {
    if !options.is_fixed && !options.zero_blocks {
        // Blocks that are not present are zeroes in the table, too.
        return Ok(());
    }
    let entry = |index: u64| {
        let Some(block) = geometry.block_of_entry(index) else { return 0 };
        if options.zero_blocks {
            return Payload::Zero.encode();
        }
        Payload::FullyPresent(layout.data_at.saturating_add(geometry.start_of(block))).encode()
    };
    let entries = geometry.entries_for(options.size_bytes, false);
    let step = PIECE_BYTES / spec::BAT_ENTRY_BYTES;
    let mut first = 0;
    while first < entries {
        let end = entries.min(first.saturating_add(step));
        let bytes: Vec<u8> = (first..end).flat_map(|index| entry(index).to_le_bytes()).collect();
        let at = layout.bat.offset.saturating_add(first.saturating_mul(spec::BAT_ENTRY_BYTES));
        file.write_all_at(&bytes, at).map_err(Error::io("write block allocation table", at))?;
        first = end;
    }
    Ok(())
}
