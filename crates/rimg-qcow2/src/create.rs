//! New images.
//!
//! An image begins as header, refcount table and one refcount block; everything else is what
//! growing it to its size does. The header is written last: before, the file is not an image.

use crate::address::Geometry;
use crate::driver;
use crate::header::{Extension, Header};
use crate::image::Access;
use crate::options::CreateOptions;
use crate::{refcount, spec};
use rimg_core::{
    Error, Limits, Preallocation, RawOptions, Resize as _, Result, StorageWrite, TargetFiles, num,
};
use std::sync::Arc;

/// Where a new image's refcount table and first refcount block are, in clusters.
const REFCOUNT_TABLE_CLUSTER: u64 = 1;
const REFCOUNT_BLOCK_CLUSTER: u64 = 2;

/// As QEMU does, smaller clusters are left to what has to be in the header.
const FEATURE_NAMES_MIN_CLUSTER_BYTES: u64 = 8192;

pub(crate) fn create(
    target: &dyn TargetFiles,
    size_bytes: u64,
    options: &RawOptions,
) -> Result<()> {
    let options = CreateOptions::parse(options)?;
    let size_bytes = round_size(size_bytes)?;
    let header = empty_header(&options);
    refuse_too_large(header.geometry, size_bytes)?;
    // Refused before anything is written when it does not fit.
    header.encode()?;
    let data_file = options.data_file.as_deref().map(|name| target.sibling(name)).transpose()?;
    let file = target.main();
    let writer = file.writer().ok_or(Error::Misuse("the target cannot be written"))?;
    write_refcounts(writer, header.geometry)?;
    let access = Access::Write;
    let image = driver::assemble(Arc::clone(file), data_file, header, access, Limits::default())?;
    // Nobody has seen the file yet: there is no order to keep.
    image.lock()?.relaxed = true;
    let preallocation = match options.preallocation {
        // Every guest byte of a raw data file is there from the beginning.
        Preallocation::Off if options.data_file_raw => Preallocation::Metadata,
        asked => asked,
    };
    image.resize(size_bytes, preallocation)?;
    let header = image.lock()?.header.encode()?;
    writer.write_all_at(&header, 0).map_err(Error::io("write header", 0))
}

/// Disks are whole sectors.
fn round_size(size_bytes: u64) -> Result<u64> {
    size_bytes.checked_next_multiple_of(spec::SECTOR_BYTES).ok_or_else(|| Error::Limit {
        what: "size of the disk",
        needed: size_bytes,
        limit: i64::MAX.unsigned_abs(),
    })
}

fn refuse_too_large(g: Geometry, size_bytes: u64) -> Result<()> {
    if g.l1_entries_for(size_bytes).saturating_mul(8) <= spec::MAX_L1_BYTES {
        return Ok(());
    }
    Err(Error::InvalidOption {
        option: "size",
        reason: "The image size is too large for file format 'qcow2' \
                 (try using a larger cluster size)"
            .into(),
    })
}

/// The header of an image of size 0.
fn empty_header(options: &CreateOptions) -> Header {
    let g = Geometry {
        cluster: options.cluster,
        extended_l2: options.extended_l2,
        zero_flag: options.version >= 3 && !options.extended_l2,
        refcount: options.refcount,
    };
    let flag = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
    let mut extensions = Vec::new();
    if let Some(format) = &options.backing_format {
        extensions.push(Extension::BackingFormat(format.clone()));
    }
    if let Some(name) = &options.data_file {
        extensions.push(Extension::DataFileName(name.clone()));
    }
    if options.version >= 3 && g.cluster_bytes() >= FEATURE_NAMES_MIN_CLUSTER_BYTES {
        extensions.push(Extension::feature_names());
    }
    Header {
        version: options.version,
        geometry: g,
        size_bytes: 0,
        crypt_method: spec::crypt::NONE,
        l1_entries: 0,
        l1_offset: 0,
        refcount_table_offset: g.cluster_offset(REFCOUNT_TABLE_CLUSTER),
        refcount_table_clusters: 1,
        snapshot_count: 0,
        snapshots_offset: 0,
        incompatible: flag(options.data_file.is_some(), spec::incompatible::DATA_FILE)
            | flag(
                options.compression_type != spec::compression::ZLIB,
                spec::incompatible::COMPRESSION_TYPE,
            )
            | flag(options.extended_l2, spec::incompatible::EXTENDED_L2),
        compatible: flag(options.lazy_refcounts, spec::compatible::LAZY_REFCOUNTS),
        autoclear: flag(options.data_file_raw, spec::autoclear::DATA_FILE_RAW),
        header_bytes: if options.version >= 3 {
            spec::HEADER_WITH_COMPRESSION_BYTES
        } else {
            spec::HEADER_V2_BYTES
        },
        compression_type: options.compression_type,
        backing_name: options.backing_file.clone(),
        extensions,
    }
}

/// The refcount table and the block that counts header, table and itself.
fn write_refcounts(file: &dyn StorageWrite, g: Geometry) -> Result<()> {
    let cluster_bytes = num::to_usize(g.cluster_bytes())?;
    let mut clusters = vec![0; cluster_bytes.saturating_mul(2)];
    let (table, block) = clusters.split_at_mut(cluster_bytes);
    if let Some(first) = table.first_chunk_mut() {
        *first = g.cluster_offset(REFCOUNT_BLOCK_CLUSTER).to_be_bytes();
    }
    for index in 0..3 {
        refcount::set(block, g.refcount, index, 1);
    }
    let at = g.cluster_offset(REFCOUNT_TABLE_CLUSTER);
    file.write_all_at(&clusters, at).map_err(Error::io("write refcount table", at))
}
