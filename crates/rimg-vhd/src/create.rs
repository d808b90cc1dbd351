//! New images.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::FORMAT;
use crate::header::{DiskType, DynamicHeader, Footer};
use crate::options::{CreateOptions, invalid};
use crate::spec::{self, SECTOR_BYTES};
use rimg_core::{Error, RawOptions, Result, StorageWrite, TargetFiles, Uuid, num};

/// How much of a table is written at a time, in bytes.
const PIECE_BYTES: u64 = 1 << 20;

/// What a new file of fixed size occupies at its start, in bytes.
const FIRST_BLOCK_BYTES: u64 = 4096;

/// What a new image is made of.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) footer: Footer,
    /// Of disks that grow.
    pub(crate) header: Option<DynamicHeader>,
    /// The size of the disk in bytes.
    pub(crate) size_bytes: u64,
}

/// Writes a new, empty image.
pub(crate) fn create(
    target: &dyn TargetFiles,
    size_bytes: u64,
    options: &RawOptions,
) -> Result<()> {
    let options = CreateOptions::parse(options)?;
    let mut layout = Layout::new(size_bytes, &options)?;
    let mut locator = None;
    if let (Some(name), Some(header)) = (&options.parent, &mut layout.header) {
        let (uuid, timestamp) = parent_identity(target)?;
        locator = Some(header.set_parent(name, uuid, timestamp)?);
    }
    let file = target.main().writer().ok_or(Error::ReadOnly("the target is not writable"))?;
    match &layout.header {
        Some(header) => write_dynamic(file, &layout.footer, header, locator),
        None => write_fixed(file, &layout.footer, layout.size_bytes),
    }
}

/// The parent's UUID and time stamp.
fn parent_identity(target: &dyn TargetFiles) -> Result<(Uuid, u32)> {
    let refused = |reason: &str| invalid("backing_file", reason.to_owned());
    let info =
        target.backing_info().ok_or_else(|| refused("The parent has to be opened for its UUID"))?;
    let identity = info.identity.filter(|_| info.format == FORMAT);
    let identity = identity.ok_or_else(|| refused("Parent must be a vpc image"))?;
    // That of a VHD has 32 bits.
    Ok((identity.uuid, u32::try_from(identity.timestamp).unwrap_or(u32::MAX)))
}

impl Layout {
    pub(crate) fn new(asked: u64, options: &CreateOptions) -> Result<Self> {
        if asked > spec::MAX_DISK_BYTES {
            let reason = format!("The image size is too large for file format '{FORMAT}'");
            return Err(invalid("size", reason));
        }
        let rounded = spec::whole_sectors(asked);
        // An image over another is as large as it was asked to be.
        let force_size = options.force_size || options.parent.is_some();
        let geometry = if force_size { None } else { Geometry::holding(rounded / SECTOR_BYTES) };
        // Disks that are too large for a geometry have the largest, which says to look elsewhere.
        let creator = if force_size { None } else { Some(geometry.unwrap_or(Geometry::MAX)) };
        let size_bytes = geometry.map_or(rounded, Geometry::total_bytes);
        let disk_type = match (options.is_fixed, &options.parent) {
            (true, _) => DiskType::Fixed,
            (false, None) => DiskType::Dynamic,
            (false, Some(_)) => DiskType::Differencing,
        };
        let uuid = options.uuid.unwrap_or_else(|| {
            let (size, block) = (size_bytes.to_string(), options.block_bytes.to_string());
            let subformat = if options.is_fixed { "fixed" } else { "dynamic" };
            let by_size = if force_size { "size" } else { "geometry" };
            let parent = options.parent.as_deref().unwrap_or_default();
            let time = options.timestamp.to_string();
            Uuid::derived([FORMAT, subformat, by_size, &size, &block, &time, parent])
        });
        let footer = Footer::new(disk_type, uuid, options.timestamp).with_size(size_bytes, creator);
        let entries = size_bytes.div_ceil(options.block_bytes.into());
        let entries = u32::try_from(entries).map_err(|_| {
            invalid("block_size", "Block size is too small for the size of the disk".to_owned())
        })?;
        let table = spec::FOOTER_BYTES.saturating_add(spec::DYNAMIC_HEADER_BYTES);
        let header =
            (!options.is_fixed).then(|| DynamicHeader::new(table, entries, options.block_bytes));
        Ok(Self { footer, header, size_bytes })
    }
}

fn write_dynamic(
    file: &dyn StorageWrite,
    footer: &Footer,
    header: &DynamicHeader,
    locator: Option<(u64, Vec<u8>)>,
) -> Result<()> {
    let mut start = footer.encode().to_vec();
    start.extend_from_slice(&header.encode()?);
    file.write_all_at(&start, 0).map_err(Error::io("write header", 0))?;
    let end = header.table_offset.saturating_add(header.table_bytes());
    let unused = vec![0xff; num::to_usize(header.table_bytes().min(PIECE_BYTES))?];
    let mut at = header.table_offset;
    while at < end {
        let len = num::to_usize(end.saturating_sub(at))?.min(unused.len());
        let piece = unused.get(..len).unwrap_or(&unused);
        file.write_all_at(piece, at).map_err(Error::io("write block allocation table", at))?;
        at = at.saturating_add(num::to_u64(len));
    }
    let mut end = end;
    if let Some((offset, name)) = locator {
        file.write_all_at(&name, offset).map_err(Error::io("write parent locator", offset))?;
        end = end.max(offset.saturating_add(num::to_u64(name.len())));
    }
    file.write_all_at(&footer.encode(), end).map_err(Error::io("write footer", end))
}

fn write_fixed(file: &dyn StorageWrite, footer: &Footer, size_bytes: u64) -> Result<()> {
    let first = num::to_usize(size_bytes.min(FIRST_BLOCK_BYTES))?;
    let is_hole = |file: &dyn StorageWrite| file.run_at(0).map(|run| !run.is_data);
    file.set_len_bytes(size_bytes).map_err(Error::io("set file length", size_bytes))?;
    // As QEMU does: whoever opens the file past the page cache finds out by reading which
    // alignment the file system wants. A device has its space already.
    if first > 0 && is_hole(file).map_err(Error::io("look for holes", 0))? {
        file.write_all_at(&vec![0; first], 0).map_err(Error::io("write zeroes", 0))?;
    }
    file.write_all_at(&footer.encode(), size_bytes).map_err(Error::io("write footer", size_bytes))
}
