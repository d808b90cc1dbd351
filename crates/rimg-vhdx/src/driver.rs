//! How VHDX presents itself: probe, open, create.

use crate::allocate::Space;
use crate::error::{CorruptKind, FORMAT};
use crate::flush::{read_headers, read_up_to};
use crate::header::Guid;
use crate::header::locator::ParentLocator;
use crate::header::metadata::Metadata;
use crate::header::region::{Region, RegionTables};
use crate::image::{Damaged, VhdxImage};
use crate::info::PARENT_FORMAT;
use crate::log::{LogWriter, ReplayedStorage, pending, replay_to};
use crate::map::{Bat, Todo, VhdxMap};
use crate::table::{Payload, parse_bitmap};
use crate::{options, spec};
use rimg_blocks::{Below, Blocks, Setup};
use rimg_core::{
    BlockImage, Dependency, DependencyRole, Error, FormatDriver, FormatInfo, Match, Measure,
    MetadataBudget, OpenOptions, ProbeWindow, RawOptions, Result, Storage, TargetFiles, num,
};
use std::sync::Arc;

/// The format's entry in a registry.
pub static DRIVER: VhdxDriver = VhdxDriver(());

static INFO: FormatInfo = FormatInfo {
    name: FORMAT,
    description: "Hyper-V virtual hard disks, version 2",
    amend_options: &[],
    create_options: options::SPECS,
    extra_options: options::EXTRA_SPECS,
    writable: true,
    backing: true,
    compresses: false,
};

/// Recognises, opens and creates VHDX images; there is one, [`DRIVER`].
#[derive(Debug)]
pub struct VhdxDriver(());

impl FormatDriver for VhdxDriver {
    fn format(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, window: &ProbeWindow<'_>) -> Match {
        if has_signature(window.head) { Match::Sure } else { Match::No }
    }

    fn open(&self, file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Box<dyn BlockImage>> {
        Ok(Box::new(open(file, how)?))
    }

    fn create(
        &self,
        target: &dyn TargetFiles,
        size_bytes: u64,
        options: &RawOptions,
    ) -> Result<()> {
        crate::create::create(target, size_bytes, options)
    }

    fn measure(&self, size_bytes: u64, options: &RawOptions) -> Result<Option<Box<dyn Measure>>> {
        Ok(Some(Box::new(crate::measure::measure(size_bytes, options)?)))
    }
}

fn has_signature(head: &[u8]) -> bool {
    head.first_chunk().is_some_and(|word| u64::from_le_bytes(*word) == spec::FILE_SIGNATURE)
}

fn open(file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<VhdxImage> {
    how.refuse_options(FORMAT)?;
    let mut signature = [0; 8];
    let is_readable = file.read_exact_at(&mut signature, 0);
    match is_readable {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            return Err(Error::io("read file type identifier", 0)(error));
        }
        Err(_) => return Err(Error::WrongFormat { format: FORMAT }),
        Ok(()) if !has_signature(&signature) => return Err(Error::WrongFormat { format: FORMAT }),
        Ok(()) => {}
    }
    if how.writable && file.writer().is_none() {
        return Err(Error::ReadOnly("its file was opened for reading"));
    }
    let mut budget = how.limits.metadata_budget();
    let mut headers = read_headers(file.as_ref())?;
    let damaged_header = !headers.has_both;
    let replay = pending(file.as_ref(), &headers.current, &mut budget)?;
    let has_log = headers.current.log_guid != Guid::ZERO;
    let behind_log = replay.is_some() && how.writable;
    let file = match (replay, file.writer().filter(|_| how.writable)) {
        (replay, Some(writer)) if has_log => {
            replay_to(writer, replay.as_ref(), &mut headers)?;
            file
        }
        (Some(replay), _) => Arc::new(ReplayedStorage::new(file, replay)?),
        (None, _) => file,
    };
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let tables = read_region_tables(file.as_ref(), len)?;
    let regions = tables.regions;
    let log = Region { offset: headers.current.log_offset, length: headers.current.log_length };
    if let Some(region) = regions.all().find(|region| region.overlaps(log)) {
        let at = spec::HEADER_AT.get(headers.slot).copied().unwrap_or_default();
        let kind = CorruptKind::Overlap(region.offset);
        return Err(kind.at("header", "log_offset", at.saturating_add(72)));
    }
    let metadata = read_metadata(file.as_ref(), regions.metadata, len, &mut budget)?;
    let has_parent = metadata.parent.is_some();
    let bat = read_bat(file.as_ref(), regions.bat, &metadata, len, &mut budget)?;
    let mut map = VhdxMap {
        file: Arc::clone(&file),
        limits: how.limits,
        geometry: metadata.geometry,
        size_bytes: metadata.size_bytes,
        size_at: metadata.size_at,
        linkage_at: metadata.linkage_at,
        has_parent,
        is_fixed: metadata.leave_blocks_allocated,
        bat,
        log: LogWriter::new(&headers.current),
        headers,
        regions,
        space: Space::default(),
        used_end: 0,
        todo: Todo::default(),
        taken: Todo::default(),
        has_begun: false,
        headers_unknown: false,
        bits: None,
    };
    if !how.inspect_only {
        validate(&map, len)?;
    }
    if how.writable {
        prepare_writing(&mut map, len, how.inspect_only, &mut budget)?;
    }
    let was_blank = !has_parent && is_blank(&map, len)?;
    let parent = match &metadata.parent {
        Some(locator) => open_parent(locator, how)?,
        None => None,
    };
    let below = match parent {
        Some(parent) => Below::Image(parent),
        None if has_parent => Below::LeftOut,
        None => Below::Nothing,
    };
    let block_bytes = map.geometry.block_bytes();
    let writable = how.writable;
    let blocks = Blocks::new(Setup { file, below, map, block_bytes, cipher: None, writable })?;
    Ok(VhdxImage {
        blocks,
        parent: metadata.parent,
        inspect_only: how.inspect_only,
        damaged: Damaged {
            header: damaged_header,
            region_tables: tables.are_good.map(|is_good| !is_good),
            behind_log,
        },
        was_blank,
    })
}

fn read_region_tables(file: &dyn Storage, len: u64) -> Result<RegionTables> {
    let [at, _] = spec::REGION_TABLE_AT;
    let both = spec::REGION_TABLE_BYTES.saturating_mul(2);
    let there = num::to_usize(len.saturating_sub(at))?;
    RegionTables::parse(&read_up_to(file, at, there.min(both), "read region tables")?)
}

fn read_metadata(
    file: &dyn Storage,
    region: Region,
    len: u64,
    budget: &mut MetadataBudget,
) -> Result<Metadata> {
    let at = region.offset;
    let mut read = |bytes: u64| {
        let end = at.saturating_add(bytes);
        if end > len {
            let kind = CorruptKind::RegionTruncated { end, len };
            return Err(kind.at("metadata table", "entries", at));
        }
        let mut buf = budget.buffer("metadata", bytes)?;
        file.read_exact_at(&mut buf, at).map_err(Error::io("read metadata", at))?;
        Ok(buf)
    };
    let table = read(spec::metadata::TABLE_BYTES.into())?;
    let bytes = read(Metadata::bytes_needed(&table, region)?)?;
    Metadata::parse(&bytes, region)
}

fn read_bat(
    file: &dyn Storage,
    region: Region,
    metadata: &Metadata,
    len: u64,
    budget: &mut MetadataBudget,
) -> Result<Bat> {
    /// What is read at once.
    const PIECE_BYTES: usize = 1 << 20;
    let has_parent = metadata.parent.is_some();
    let count = metadata.geometry.entries_for(metadata.size_bytes, has_parent);
    let needed = count.saturating_mul(spec::BAT_ENTRY_BYTES);
    let wrong = |kind: CorruptKind| kind.at("block allocation table", "entries", region.offset);
    if needed > region.length {
        return Err(wrong(CorruptKind::BatTooSmall { found: region.length, needed }));
    }
    let end = region.offset.saturating_add(needed);
    if end > len {
        return Err(wrong(CorruptKind::RegionTruncated { end, len }));
    }
    budget.reserve("block allocation table", needed)?;
    let mut entries = Vec::new();
    entries.try_reserve_exact(num::to_usize(count)?).map_err(|_| Error::Limit {
        what: "block allocation table",
        needed,
        limit: 0,
    })?;
    let mut buf = vec![0; num::to_usize(needed)?.min(PIECE_BYTES)];
    let mut at = region.offset;
    while at < end {
        let left = num::to_usize(end.saturating_sub(at))?.min(buf.len());
        let piece = buf.get_mut(..left).unwrap_or_default();
        file.read_exact_at(piece, at).map_err(Error::io("read block allocation table", at))?;
        entries.extend(piece.as_chunks::<8>().0.iter().map(|entry| u64::from_le_bytes(*entry)));
        at = at.saturating_add(num::to_u64(left));
    }
    Ok(Bat { entries, region })
}

/// Whether nobody wrote to the disk yet: there are no blocks, or they are all in one hole that the
/// file ends with, as those of a new fixed image are.
fn is_blank(map: &VhdxMap, len: u64) -> Result<bool> {
    let entries = (0..).zip(&map.bat.entries);
    let places = entries.filter_map(|(index, entry)| map.place_of(index, *entry));
    let Some(first) = places.map(|(host, _)| host).min() else { return Ok(true) };
    if first >= len {
        return Ok(false);
    }
    let run = map.file.run_at(first).map_err(Error::io("look for holes", first))?;
    Ok(!run.is_data && first.saturating_add(run.len_bytes) >= len)
}

/// Refuses a table that leads out of the file.
fn validate(map: &VhdxMap, len: u64) -> Result<()> {
    for (index, entry) in (0..).zip(&map.bat.entries) {
        map.check_entry(index, *entry, len).map_err(|kind| map.wrong(kind, index))?;
    }
    Ok(())
}

impl VhdxMap {
    /// Whether an entry is possible in a file of `len` bytes.
    pub(crate) fn check_entry(&self, index: u64, entry: u64, len: u64) -> Result<(), CorruptKind> {
        let (host, needed) = match self.geometry.block_of_entry(index) {
            Some(block) => {
                let payload = Payload::parse(entry)?;
                let host = match payload {
                    Payload::FullyPresent(host) => host,
                    Payload::PartiallyPresent(host) => {
                        let bitmap = self.bat.entry(self.geometry.bitmap_entry_of(block));
                        if !self.has_parent || parse_bitmap(bitmap)?.is_none() {
                            return Err(CorruptKind::NoBitmap);
                        }
                        host
                    }
                    _ => return Ok(()),
                };
                // The last block may end where the disk does.
                let behind = self.size_bytes.saturating_sub(self.geometry.start_of(block));
                (host, behind.min(self.geometry.block_bytes()))
            }
            // Without a parent nobody looks at sector bitmaps.
            None if !self.has_parent => return Ok(()),
            None => match parse_bitmap(entry)? {
                Some(host) => (host, spec::BITMAP_BLOCK_BYTES),
                None => return Ok(()),
            },
        };
        if host < spec::HEADER_SECTION_BYTES {
            return Err(CorruptKind::Overlap(0));
        }
        if host.saturating_add(needed) > len {
            return Err(CorruptKind::BehindEnd { offset: host, len });
        }
        Ok(())
    }
}

/// Finds out which parts of the file are free, and refuses images in which writing to one block
/// would change another.
fn prepare_writing(
    map: &mut VhdxMap,
    len: u64,
    for_repair: bool,
    budget: &mut MetadataBudget,
) -> Result<()> {
    let entries = (0..).zip(&map.bat.entries);
    let places = entries.filter(|(index, entry)| map.place_of(*index, **entry).is_some());
    budget.reserve("list of blocks", num::to_u64(places.count()).saturating_mul(16))?;
    let mut used = map.used();
    used.sort_unstable_by_key(|range| range.start);
    let shared = used.windows(2).find_map(|pair| match pair {
        [first, second] if second.start < first.end => Some(second.start),
        _ => None,
    });
    if let Some(host) = shared.filter(|_| !for_repair) {
        let is_there =
            |index, entry: u64| map.place_of(index, entry).is_some_and(|(place, _)| place == host);
        let entries = (0..).zip(&map.bat.entries);
        let index = entries.filter(|(index, entry)| is_there(*index, **entry)).last();
        return Err(map.wrong(CorruptKind::Overlap(host), index.map_or(0, |(index, _)| index)));
    }
    let ends = used.iter().map(|range| range.end).max().unwrap_or_default();
    map.used_end = ends.min(len);
    map.space = Space::around(used, len);
    Ok(())
}

/// Opens the parent under the first name that leads to it. `None` when the caller asked not to.
fn open_parent(
    locator: &ParentLocator,
    how: &OpenOptions<'_>,
) -> Result<Option<Arc<dyn BlockImage>>> {
    let mut first_error = None;
    for name in locator.names() {
        let wanted = Dependency {
            role: DependencyRole::Backing,
            name: &name,
            format: Some(PARENT_FORMAT),
            writable: false,
        };
        match how.gate.open_image(&wanted) {
            Ok(None) => return Ok(None),
            Ok(Some(parent)) => {
                check_linkage(locator, parent.as_ref())?;
                return Ok(Some(parent));
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| {
        CorruptKind::NoLocatorKey("relative_path").at("parent locator", "key", 0)
    }))
}

/// The parent has to be what it was when the child was made: otherwise the child's sectors lie
/// among those of another disk.
fn check_linkage(locator: &ParentLocator, parent: &dyn BlockImage) -> Result<()> {
    let info = parent.info()?;
    let Some(file) = parent.file(0).filter(|_| info.format == FORMAT) else {
        return Err(Error::WrongFormat { format: FORMAT });
    };
    let found = read_headers(file.as_ref())?.current.data_write_guid;
    if found == locator.linkage || Some(found) == locator.linkage2 {
        return Ok(());
    }
    let kind = CorruptKind::Linkage { found, wanted: locator.linkage };
    Err(kind.at("parent locator", "parent_linkage", 0))
}
