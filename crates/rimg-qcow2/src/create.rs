//! New images.
//!
//! The header is written last: a file that was left half-made is no image.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod layout;
mod tables;

use crate::cache::TableCache;
use crate::crypt::{NewEncryption, write_luks};
use crate::driver;
use crate::header::{Extension, Header};
use crate::image::Access;
use crate::options::CreateOptions;
use crate::spec;
use layout::Layout;
use rimg_core::{
    Codec, Error, Limits, Preallocation, RawOptions, Result, Storage, StorageWrite, TargetFiles,
    num,
};
use std::sync::Arc;

pub(crate) fn create(target: &dyn TargetFiles, size_bytes: u64, raw: &RawOptions) -> Result<()> {
    let options = CreateOptions::parse(size_bytes, raw)?;
    let layout = layout(&options);
    // Everything that can be refused is, before anything is written.
    let mut header = header(&options, &layout);
    encode(&header, &options)?;
    let data_file = match &options.data_file {
        Some(name) => Some(create_data_file(target, name, options.size_bytes)?),
        None => None,
    };
    let file = writer(target.main())?;
    tables::write(file, &layout, &options)?;
    let maps = options.preallocation != Preallocation::Off && layout.mapping.is_none();
    if maps || matches!(options.encryption, Some(NewEncryption::Luks(_))) {
        header = complete(target.main(), data_file, header, &options, maps)?;
    }
    file.write_all_at(&encode(&header, &options)?, 0).map_err(Error::io("write header", 0))
}

fn layout(options: &CreateOptions) -> Layout {
    match options.preallocation {
        Preallocation::Falloc | Preallocation::Full if options.data_file.is_none() => {
            Layout::with_data(options.geometry, options.size_bytes)
        }
        _ => Layout::new(options.geometry, options.size_bytes),
    }
}

fn writer(file: &Arc<dyn Storage>) -> Result<&dyn StorageWrite> {
    file.writer().ok_or(Error::Misuse("the target file cannot be written"))
}

fn create_data_file(
    target: &dyn TargetFiles,
    name: &str,
    size_bytes: u64,
) -> Result<Arc<dyn Storage>> {
    let file = target.sibling(name)?;
    writer(&file)?.set_len_bytes(size_bytes).map_err(Error::io("extend data file", 0))?;
    Ok(file)
}

fn header(options: &CreateOptions, layout: &Layout) -> Header {
    let g = options.geometry;
    let flag = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
    let is_zstd = options.codec == Codec::Zstd;
    Header {
        version: options.version,
        geometry: g,
        size_bytes: options.size_bytes,
        crypt_method: options.encryption.as_ref().map_or(spec::crypt::NONE, NewEncryption::method),
        l1_entries: u32::try_from(layout.l1_entries).unwrap_or(u32::MAX),
        l1_offset: layout.l1_offset,
        refcount_table_offset: g.cluster_offset(layout.table.start),
        refcount_table_clusters: u32::try_from(layout.table.end.saturating_sub(layout.table.start))
            .unwrap_or(u32::MAX),
        snapshot_count: 0,
        snapshots_offset: 0,
        incompatible: flag(options.data_file.is_some(), spec::incompatible::DATA_FILE)
            | flag(is_zstd, spec::incompatible::COMPRESSION_TYPE)
            | flag(g.extended_l2, spec::incompatible::EXTENDED_L2),
        compatible: flag(options.lazy_refcounts, spec::compatible::LAZY_REFCOUNTS),
        autoclear: flag(options.data_file_raw, spec::autoclear::DATA_FILE_RAW),
        header_bytes: if options.version >= 3 {
            spec::HEADER_WITH_COMPRESSION_BYTES
        } else {
            spec::HEADER_V2_BYTES
        },
        compression_type: if is_zstd { spec::compression::ZSTD } else { spec::compression::ZLIB },
        backing_name: options.backing_file.clone(),
        extensions: extensions(options),
    }
}

fn extensions(options: &CreateOptions) -> Vec<Extension> {
    let mut extensions = Vec::new();
    if let Some(format) = &options.backing_format {
        extensions.push(Extension::BackingFormat(format.clone()));
    }
    if let Some(name) = &options.data_file {
        extensions.push(Extension::DataFileName(name.clone()));
    }
    extensions.extend(options.encryption.as_ref().and_then(NewEncryption::extension));
    if options.version >= 3
        && options.geometry.cluster_bytes() > spec::FEATURE_NAMES_ABOVE_CLUSTER_BYTES
    {
        extensions.push(Extension::feature_names());
    }
    extensions
}

/// The header's bytes. Only names can make it too long.
fn encode(header: &Header, options: &CreateOptions) -> Result<Vec<u8>> {
    let encoded = header.encode();
    let (Err(Error::InvalidOption { .. }), Some(name)) = (&encoded, &options.backing_file) else {
        return encoded;
    };
    let why = if num::to_u64(name.len()) > u64::from(spec::MAX_BACKING_NAME_BYTES) {
        "Invalid argument"
    } else {
        "No space left on device"
    };
    let with = match &options.backing_format {
        Some(format) => format!(" with format '{format}'"),
        None => String::new(),
    };
    let reason = format!("Could not assign backing file '{name}'{with}: {why}");
    Err(Error::InvalidOption { option: "backing_file", reason })
}

/// Adds to an image that is whole but empty what takes space: maps the whole disk if `maps`, and
/// gives it a LUKS header. Returns its header, as tables may have moved.
fn complete(
    file: &Arc<dyn Storage>,
    data_file: Option<Arc<dyn Storage>>,
    header: Header,
    options: &CreateOptions,
    maps: bool,
) -> Result<Header> {
    let file = Arc::clone(file);
    let image = driver::assemble(file, data_file, header, None, Access::Write, Limits::default())?;
    let mut state = image.lock()?;
    // Nobody has seen the file yet: there is no order to keep.
    state.relaxed = true;
    // Tables are filled one after the other, and none is come back to.
    state.l2 = TableCache::new(image.geometry.cluster_bytes(), 0);
    drop(state);
    if maps {
        let _claim = image.claim_disk()?;
        image.preallocate(0..options.size_bytes, options.preallocation)?;
    }
    if let Some(NewEncryption::Luks(wanted)) = &options.encryption {
        write_luks(&image, wanted)?;
    }
    image.finish_all()?;
    Ok(image.lock()?.header.clone())
}
