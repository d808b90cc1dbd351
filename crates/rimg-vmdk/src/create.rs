//! New images.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::{Geometry, sectors};
use crate::descriptor::{ExtentKind, NewDescriptor, NewExtent};
use crate::error::FORMAT;
use crate::header::{RawHeader, SparseHeader};
use crate::options::{CreateOptions, PARENT_OF_OTHER_FORMAT, Subformat, check_text, refuse};
use crate::overlay;
use crate::spec::{SECTOR_BYTES, descriptor, sparse};
use rimg_core::{Error, RawOptions, Result, StorageWrite, TargetFiles, num};

/// The largest disk that a sparse extent can be for: one of grains all of which have places.
const MAX_BYTES: u64 = 1 << 62;

/// The name of an image whose files have none.
const DEFAULT_NAME: &str = "disk.vmdk";

/// Writes a new, empty image.
pub(crate) fn create(target: &dyn TargetFiles, size_bytes: u64, raw: &RawOptions) -> Result<()> {
    let options = CreateOptions::parse(raw)?;
    if size_bytes > MAX_BYTES {
        return refuse("size", "The image size is too large for file format 'vmdk'");
    }
    let size_bytes = sectors(size_bytes).saturating_mul(SECTOR_BYTES);
    let name = target.main_name().unwrap_or(DEFAULT_NAME);
    check_text("filename", name)?;
    let extents = extents(&options, size_bytes, name);
    let parent_cid = parent_cid(target, &options)?;
    let cylinders = sectors(size_bytes).checked_div(u64::from(options.heads()).saturating_mul(63));
    let text = NewDescriptor {
        cid: options.cid.unwrap_or_else(|| derived_cid(size_bytes, raw)),
        parent_cid: parent_cid.unwrap_or(descriptor::NO_PARENT),
        create_type: options.subformat.name(),
        parent_name: options.backing_file.as_deref(),
        extents: extents.iter().map(|extent| extent.line.clone()).collect(),
        hardware_version: &options.hardware_version,
        cylinders: cylinders.unwrap_or(0),
        heads: options.heads(),
        adapter_type: &options.adapter_type,
        tools_version: &options.tools_version,
    }
    .text();
    let main = target.main().writer().ok_or(Error::ReadOnly("the target is not writable"))?;
    let room = descriptor::EMBEDDED_SECTORS.saturating_mul(SECTOR_BYTES);
    match options.subformat {
        Subformat::MonolithicSparse | Subformat::StreamOptimized => {
            if num::to_u64(text.len()) > room {
                return refuse("backing_file", "The descriptor is too long");
            }
            write_sparse(main, size_bytes, &options)?;
            write(main, text.as_bytes(), SECTOR_BYTES)
        }
        _ => {
            for extent in &extents {
                let file = target.sibling(&extent.line.name)?;
                let file =
                    file.writer().ok_or(Error::ReadOnly("the extent's file is not writable"))?;
                if options.subformat.is_flat() {
                    set_len(file, extent.len)?;
                    // As QEMU does: a file that is all hole does not tell its alignment.
                    let first = FIRST_BLOCK_BYTES.min(extent.len);
                    write(file, &vec![0; num::to_usize(first)?], 0)?;
                } else {
                    write_sparse(file, extent.len, &options)?;
                }
            }
            write(main, text.as_bytes(), 0)
        }
    }
}

/// What a flat extent occupies at least, in bytes.
const FIRST_BLOCK_BYTES: u64 = 4096;

/// An extent of a new disk, and how many bytes of it it has.
struct PlannedExtent {
    line: NewExtent,
    len: u64,
}

fn extents(options: &CreateOptions, size_bytes: u64, name: &str) -> Vec<PlannedExtent> {
    let (stem, extension) = match name.rfind('.') {
        Some(dot) => name.split_at(dot),
        None => (name, ""),
    };
    let plan = |name: String, len: u64| {
        let kind = if options.subformat.is_flat() { ExtentKind::Flat } else { ExtentKind::Sparse };
        PlannedExtent { line: NewExtent { sectors: sectors(len), kind, name }, len }
    };
    if !options.subformat.is_split() {
        let own = match options.subformat {
            Subformat::MonolithicFlat => format!("{stem}-flat{extension}"),
            _ => name.to_owned(),
        };
        return vec![plan(own, size_bytes)];
    }
    let letter = if options.subformat.is_flat() { 'f' } else { 's' };
    let count = size_bytes.div_ceil(descriptor::SPLIT_BYTES).max(1);
    (0..count)
        .map(|index| {
            let start = index.saturating_mul(descriptor::SPLIT_BYTES);
            let len = size_bytes.saturating_sub(start).min(descriptor::SPLIT_BYTES);
            let number = index.saturating_add(1);
            plan(format!("{stem}-{letter}{number:03}{extension}"), len)
        })
        .collect()
}

/// The content ID that the parent has now.
fn parent_cid(target: &dyn TargetFiles, options: &CreateOptions) -> Result<Option<u32>> {
    if options.backing_file.is_none() {
        return Ok(None);
    }
    let Some(info) = target.backing_info() else {
        return refuse("backing_file", "the backing file has to be opened for its content ID");
    };
    match overlay::content_id(info) {
        Some(cid) => Ok(Some(cid)),
        None => refuse("backing_file", PARENT_OF_OTHER_FORMAT),
    }
}

/// A content ID that is the same whenever the same is asked for.
fn derived_cid(size_bytes: u64, raw: &RawOptions) -> u32 {
    let mut hash = Hash::new(FORMAT.as_bytes());
    hash.add(&size_bytes.to_le_bytes());
    for (name, value) in raw.iter() {
        hash.add(name.as_bytes());
        hash.add(value.as_bytes());
    }
    hash.cid()
}

/// FNV-1a: content IDs need no secret, only to be different.
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn new(start: &[u8]) -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        hash.add(start);
        hash
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        // The length keeps "ab", "c" and "a", "bc" apart.
        let len = num::to_u64(bytes.len()).to_le_bytes();
        for byte in bytes.iter().chain(&len) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A content ID: any but that of "no parent".
    pub(crate) fn cid(&self) -> u32 {
        let folded = (self.0 ^ (self.0 >> 32)) & 0xffff_ffff;
        u32::try_from(folded).unwrap_or_default().min(descriptor::NO_PARENT.saturating_sub(1))
    }
}

/// A sparse extent without its descriptor.
fn write_sparse(file: &dyn StorageWrite, size_bytes: u64, options: &CreateOptions) -> Result<()> {
    let geometry = Geometry { size_bytes, grain_bits: 16, gtes_per_gt: sparse::GTES_PER_GT };
    let tables = geometry.tables();
    let directory = sectors(tables.saturating_mul(4));
    let table = sectors(geometry.gtes().saturating_mul(4));
    let both = directory.saturating_add(tables.saturating_mul(table));
    let rgd_offset = descriptor::EMBEDDED_SECTORS.saturating_add(1);
    let gd_offset = rgd_offset.saturating_add(both);
    let overhead = num::align_up(gd_offset.saturating_add(both), sparse::GRAIN_SECTORS);
    let overhead = overhead.filter(|end| u32::try_from(*end).is_ok());
    let Some(overhead) = overhead else {
        return refuse("size", "The image size is too large for file format 'vmdk'");
    };
    let zeroed = if options.zeroed_grain { sparse::flag::ZEROED_GRAINS } else { 0 };
    let flags = sparse::flag::END_OF_LINE_TEST | sparse::flag::REDUNDANT_TABLES | zeroed;
    let version = if options.zeroed_grain { 2 } else { 1 };
    let plain =
        RawHeader { version, flags, rgd_offset, gd_offset, overhead, ..plain_header(geometry) };
    let header = match options.subformat {
        // Tables in front let others write to it in place. A conversion begins anew: see `stream`.
        Subformat::StreamOptimized => RawHeader {
            version: 3,
            flags: flags | sparse::flag::COMPRESSED | sparse::flag::MARKERS,
            compress_algorithm: sparse::compression::DEFLATE,
            ..plain
        },
        _ => plain,
    };
    set_len(file, overhead.saturating_mul(SECTOR_BYTES))?;
    for start in [rgd_offset, gd_offset] {
        write_directory(file, start, directory, table, tables)?;
    }
    write(file, &header.encode(), 0)
}

/// The header of a stream: what it cannot know beforehand stands in the footer.
pub(crate) fn stream_header(geometry: Geometry, zeroed_grain: bool) -> Result<SparseHeader> {
    let zeroed = if zeroed_grain { sparse::flag::ZEROED_GRAINS } else { 0 };
    let raw = RawHeader {
        version: 3,
        flags: sparse::flag::END_OF_LINE_TEST
            | sparse::flag::COMPRESSED
            | sparse::flag::MARKERS
            | zeroed,
        rgd_offset: 0,
        gd_offset: sparse::GD_AT_END,
        overhead: sparse::GRAIN_SECTORS,
        compress_algorithm: sparse::compression::DEFLATE,
        ..plain_header(geometry)
    };
    SparseHeader::parse(&raw.encode(), 0)
}

fn plain_header(geometry: Geometry) -> RawHeader {
    let [first, second, third, fourth] = sparse::END_OF_LINE_TEST;
    RawHeader {
        magic: sparse::MAGIC,
        version: 1,
        flags: 0,
        capacity: geometry.size_bytes / SECTOR_BYTES,
        grain_size: sparse::GRAIN_SECTORS,
        descriptor_offset: 1,
        descriptor_size: descriptor::EMBEDDED_SECTORS,
        gtes_per_gt: geometry.gtes_per_gt,
        rgd_offset: 0,
        gd_offset: 0,
        overhead: 0,
        unclean_shutdown: 0,
        single_end_of_line: first,
        non_end_of_line: second,
        double_end_of_line_1: third,
        double_end_of_line_2: fourth,
        compress_algorithm: sparse::compression::NONE,
    }
}

/// A grain directory at sector `start`, whose tables follow it.
fn write_directory(
    file: &dyn StorageWrite,
    start: u64,
    directory: u64,
    table: u64,
    tables: u64,
) -> Result<()> {
    let mut bytes = Vec::new();
    for number in 0..tables {
        let at = start.saturating_add(directory).saturating_add(number.saturating_mul(table));
        let sector = u32::try_from(at).map_err(|_| Error::Misuse("table beyond 2 TiB"))?;
        bytes.extend(sector.to_le_bytes());
    }
    write(file, &bytes, start.saturating_mul(SECTOR_BYTES))
}

fn write(file: &dyn StorageWrite, bytes: &[u8], at: u64) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    file.write_all_at(bytes, at).map_err(Error::io("write", at))
}

fn set_len(file: &dyn StorageWrite, len: u64) -> Result<()> {
    file.set_len_bytes(len).map_err(Error::io("set file length", len))
}
