//! Reading grain directories.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::{Encoding, GrainMap, Metadata};
use crate::address::Geometry;
use crate::allocate::Room;
use crate::cache::TableCache;
use crate::error::CorruptKind;
use crate::header::SparseHeader;
use crate::header::cowd::CowdHeader;
use crate::header::sesparse::SeSparseHeader;
use crate::spec::SECTOR_BYTES;
use crate::table::{self, TableKind};
use rimg_core::{Error, MetadataBudget, Result, Storage, num};
use std::sync::Arc;

impl GrainMap {
    /// The map of a hosted sparse extent. When its grain directory is not all there, the redundant
    /// one serves.
    pub(crate) fn of_sparse(
        file: Arc<dyn Storage>,
        header: &SparseHeader,
        budget: &mut MetadataBudget,
    ) -> Result<Self> {
        let kind = TableKind::Sparse { zeroed_grains: header.has_zeroed_grains() };
        let encoding = if header.is_compressed() {
            Encoding::Compressed { markers: header.has_markers() }
        } else {
            Encoding::Plain
        };
        let mut map = Self::empty(file, header.geometry, kind, encoding)?;
        map.header = Some(*header);
        let grain = header.geometry.grain_bytes();
        let end = map.file_len.max(header.overhead_bytes());
        map.room = Room::behind(num::align_up(end, grain).unwrap_or(u64::MAX));
        let second = header.rgd.map(|at| map.read_directory(at, budget));
        let first = match header.gd {
            Some(at) => map.read_directory(at, budget),
            None => Err(CorruptKind::Missing.at("sparse extent header", "gdOffset", 56)),
        };
        (map.directory, map.redundant) = match (first, second) {
            (Ok(first), Some(Ok(second))) => (first, second),
            (Ok(first), _) => (first, Vec::new()),
            (Err(_), Some(Ok(second))) => (Vec::new(), second),
            (Err(error), _) => return Err(error),
        };
        map.guard_metadata(budget)?;
        Ok(map)
    }

    pub(crate) fn of_cowd(
        file: Arc<dyn Storage>,
        header: &CowdHeader,
        budget: &mut MetadataBudget,
    ) -> Result<Self> {
        let mut map = Self::empty(file, header.geometry, TableKind::Cowd, Encoding::Plain)?;
        map.directory = map.read_directory(header.gd, budget)?;
        Ok(map)
    }

    pub(crate) fn of_sesparse(
        file: Arc<dyn Storage>,
        header: &SeSparseHeader,
        budget: &mut MetadataBudget,
    ) -> Result<Self> {
        let SeSparseHeader { geometry, tables, table_count, grains, .. } = *header;
        let kind = TableKind::SeSparse { tables, table_count, grains };
        let mut map = Self::empty(file, geometry, kind, Encoding::Plain)?;
        map.directory = map.read_directory(header.gd, budget)?;
        Ok(map)
    }

    /// A map without tables.
    pub(crate) fn empty(
        file: Arc<dyn Storage>,
        geometry: Geometry,
        kind: TableKind,
        encoding: Encoding,
    ) -> Result<Self> {
        let file_len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        Ok(Self {
            file,
            file_len,
            geometry,
            kind,
            encoding,
            directory: Vec::new(),
            redundant: Vec::new(),
            cache: TableCache::default(),
            hole: 0..0,
            header: None,
            below_bytes: 0,
            room: Room::default(),
            metadata: Metadata::default(),
        })
    }

    /// Where the tables lie, by the directory at `at`.
    fn read_directory(&self, at: u64, budget: &mut MetadataBudget) -> Result<Vec<Option<u64>>> {
        const STRUCTURE: &str = "grain directory";
        let tables = self.geometry.tables();
        let width = self.kind.entry_bytes();
        let bytes = tables.saturating_mul(width);
        if at < SECTOR_BYTES || at.saturating_add(bytes) > self.file_len {
            let kind = CorruptKind::BehindEnd(at / SECTOR_BYTES);
            return Err(kind.at(STRUCTURE, "entries", at));
        }
        // As numbers.
        budget.reserve(STRUCTURE, tables.saturating_mul(16))?;
        let raw = {
            // As bytes, for a moment.
            let mut buffer = budget.buffer(STRUCTURE, bytes)?;
            self.file.read_exact_at(&mut buffer, at).map_err(Error::io("read directory", at))?;
            buffer
        };
        (0..num::to_usize(tables)?)
            .map(|index| {
                self.kind.table(table::entry(&raw, index, width)).map_err(|kind| {
                    let entry = num::to_u64(index).saturating_mul(width).saturating_add(at);
                    kind.at(STRUCTURE, "entry", entry)
                })
            })
            .collect()
    }
}
