//! How VHD presents itself: probe, open, create.

mod parent;

use crate::address::Geometry;
use crate::create;
use crate::error::{CorruptKind, FORMAT};
use crate::header::{DiskType, DynamicHeader, Footer};
use crate::image::{Access, DynamicImage, FixedImage};
use crate::map::{Tables, VhdMap};
use crate::measure::VhdMeasure;
use crate::options::{self, RunTimeOptions, SizeCalculation};
use crate::spec;
use rimg_blocks::{Below, Blocks, Setup};
use rimg_core::{
    BlockImage, Error, FormatDriver, FormatInfo, Match, Measure, MetadataBudget, OpenOptions,
    ProbeWindow, RawOptions, Result, Storage, TargetFiles, num,
};
use std::sync::Arc;

/// How much of a table is read at a time, in bytes.
const TABLE_PIECE_BYTES: u64 = 1 << 20;

/// The format's entry in a registry.
pub static DRIVER: VhdDriver = VhdDriver(());

static INFO: FormatInfo = FormatInfo {
    name: FORMAT,
    description: "Virtual PC and Hyper-V disk images, version 1 (VHD)",
    amend_options: &[],
    create_options: options::SPECS,
    extra_options: options::EXTRA_SPECS,
    writable: true,
    backing: true,
    compresses: false,
};

/// Recognises, opens and creates VHD images; there is one, [`DRIVER`].
#[derive(Debug)]
pub struct VhdDriver(());

impl FormatDriver for VhdDriver {
    fn format(&self) -> &'static FormatInfo {
        &INFO
    }

    /// Images of fixed size begin with the guest's bytes: they are not recognised, as QEMU does
    /// not. Else a guest that writes a footer to the end of a raw disk would make it one.
    fn probe(&self, window: &ProbeWindow<'_>) -> Match {
        if Footer::has_cookie(window.head) { Match::Sure } else { Match::No }
    }

    fn open(&self, file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Box<dyn BlockImage>> {
        let options = RunTimeOptions::parse(how)?;
        if how.writable && file.writer().is_none() {
            return Err(Error::ReadOnly("its file was opened for reading"));
        }
        let (footer, len) = read_footer(file.as_ref())?;
        match footer.disk_type {
            DiskType::Fixed => open_fixed(file, footer, len, how, options),
            DiskType::Dynamic | DiskType::Differencing => open_dynamic(file, footer, how, options),
        }
    }

    fn create(
        &self,
        target: &dyn TargetFiles,
        size_bytes: u64,
        options: &RawOptions,
    ) -> Result<()> {
        create::create(target, size_bytes, options)
    }

    fn measure(&self, size_bytes: u64, options: &RawOptions) -> Result<Option<Box<dyn Measure>>> {
        Ok(Some(Box::new(VhdMeasure::new(size_bytes, options)?)))
    }
}

/// The footer, and how long the file is without the one at its end.
///
/// Disks that grow have a copy of it at the start, which counts first: the end of the file moves.
/// Either stands in for the other.
pub(crate) fn read_footer(file: &dyn Storage) -> Result<(Footer, u64)> {
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut wrong = None;
    let mut look_at = |offset: u64, footer_bytes: u64| -> Result<Option<Footer>> {
        let mut bytes = [0; 512];
        let there = bytes.get_mut(..num::to_usize(footer_bytes)?).unwrap_or_default();
        file.read_exact_at(there, offset).map_err(Error::io("read footer", offset))?;
        match Footer::parse(&bytes, offset) {
            Ok(footer) => return Ok(Some(footer)),
            Err(Error::WrongFormat { .. }) => {}
            Err(error) => wrong = wrong.take().or(Some(error)),
        }
        Ok(None)
    };
    if len >= spec::FOOTER_BYTES
        && let Some(footer) = look_at(0, spec::FOOTER_BYTES)?
        && footer.disk_type != DiskType::Fixed
    {
        return Ok((footer, len));
    }
    for footer_bytes in [spec::FOOTER_BYTES, spec::OLD_FOOTER_BYTES] {
        if let Some(offset) = len.checked_sub(footer_bytes)
            && let Some(footer) = look_at(offset, footer_bytes)?
        {
            return Ok((footer, offset));
        }
    }
    Err(wrong.unwrap_or(Error::WrongFormat { format: FORMAT }))
}

fn size_of(footer: &Footer, options: RunTimeOptions) -> u64 {
    match options.size_calculation {
        None => footer.size_bytes(false),
        Some(SizeCalculation::CurrentSize) => footer.size_bytes(true),
        Some(SizeCalculation::Geometry) => match footer.geometry() {
            Geometry::MAX => footer.size_bytes(true),
            geometry => geometry.total_bytes(),
        },
    }
}

fn access(how: &OpenOptions<'_>) -> Access {
    match (how.inspect_only, how.writable) {
        (true, true) => Access::Repair,
        (true, false) => Access::Inspect,
        (false, true) => Access::Write,
        (false, false) => Access::Read,
    }
}

fn open_fixed(
    file: Arc<dyn Storage>,
    footer: Footer,
    room: u64,
    how: &OpenOptions<'_>,
    options: RunTimeOptions,
) -> Result<Box<dyn BlockImage>> {
    let size = size_of(&footer, options);
    if size > room {
        let kind = CorruptKind::FixedTooShort { disk: size, file: room };
        return Err(kind.at("footer", "current_size", room.saturating_add(48)));
    }
    Ok(Box::new(FixedImage::new(file, footer, size, access(how))?))
}

fn open_dynamic(
    file: Arc<dyn Storage>,
    footer: Footer,
    how: &OpenOptions<'_>,
    options: RunTimeOptions,
) -> Result<Box<dyn BlockImage>> {
    let mut budget = how.limits.metadata_budget();
    let header = read_header(file.as_ref(), &footer)?;
    let size_bytes = size_of(&footer, options);
    let needed = size_bytes.div_ceil(header.block_bytes.into());
    if needed > header.entries.into() {
        let kind = CorruptKind::TableTooSmall { entries: header.entries.into(), needed };
        let at = footer.data_offset().saturating_add(28);
        return Err(kind.at("dynamic disk header", "max_table_entries", at));
    }
    let has_parent = footer.disk_type == DiskType::Differencing;
    let parent = if has_parent {
        parent::open(file.as_ref(), &header, how, options)?
    } else {
        parent::Parent::default()
    };
    let below = match parent.image {
        None if has_parent => Below::LeftOut,
        image => Below::from(image),
    };
    let entries = read_table(file.as_ref(), &header, &mut budget)?;
    let block_bytes = u64::from(header.block_bytes);
    let tables = Tables { footer, header, size_bytes, entries };
    let mut map = VhdMap::new(Arc::clone(&file), tables, has_parent);
    let access = access(how);
    if access == Access::Write {
        // To be sorted, as large again.
        budget.reserve("block allocation table", map.header.table_bytes())?;
        map.prepare_for_writing()?;
    }
    let setup = Setup { file, below, map, block_bytes, cipher: None, writable: how.writable };
    Ok(Box::new(DynamicImage { blocks: Blocks::new(setup)?, access, parent_name: parent.name }))
}

fn read_header(file: &dyn Storage, footer: &Footer) -> Result<DynamicHeader> {
    let at = footer.data_offset();
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    if at < spec::FOOTER_BYTES {
        return Err(CorruptKind::InsideHeader(at).at("footer", "data_offset", 16));
    }
    let there = len.saturating_sub(at).min(spec::DYNAMIC_HEADER_BYTES);
    let mut bytes = vec![0; num::to_usize(there)?];
    file.read_exact_at(&mut bytes, at).map_err(Error::io("read dynamic disk header", at))?;
    DynamicHeader::parse(bytes, at)
}

fn read_table(
    file: &dyn Storage,
    header: &DynamicHeader,
    budget: &mut MetadataBudget,
) -> Result<Vec<u32>> {
    let what = "block allocation table";
    let bytes = u64::from(header.entries).saturating_mul(spec::ENTRY_BYTES);
    budget.reserve(what, bytes)?;
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut at = header.table_offset;
    let end = at.checked_add(bytes).filter(|end| *end <= len);
    let end = end.ok_or_else(|| CorruptKind::Truncated.at(what, "entries", at))?;
    let mut entries = Vec::new();
    let count = num::to_usize(header.entries.into())?;
    let no_memory = |_| Error::Limit { what, needed: bytes, limit: 0 };
    entries.try_reserve_exact(count).map_err(no_memory)?;
    let mut piece = vec![0; num::to_usize(bytes.min(TABLE_PIECE_BYTES))?];
    while at < end {
        let now = num::to_usize(end.saturating_sub(at))?.min(piece.len());
        let bytes = piece.get_mut(..now).unwrap_or_default();
        file.read_exact_at(bytes, at).map_err(Error::io("read block allocation table", at))?;
        let (words, _) = bytes.as_chunks::<4>();
        entries.extend(words.iter().map(|word| u32::from_be_bytes(*word)));
        at = at.saturating_add(num::to_u64(now));
    }
    Ok(entries)
}
