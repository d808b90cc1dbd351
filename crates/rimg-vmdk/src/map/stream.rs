//! What writing a stream changes in the map.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::{GrainMap, Metadata};
use crate::address::Geometry;
use crate::cache::TableCache;
use crate::header::SparseHeader;
use crate::spec::SECTOR_BYTES;
use rimg_core::{Error, Result, num};

impl GrainMap {
    /// Whether there is no table that could have a grain.
    pub(crate) fn cannot_have_grains(&self) -> bool {
        self.directory.iter().all(Option::is_none)
    }

    /// Forgets the tables of an image without grains: they will be elsewhere.
    pub(crate) fn start_over(&mut self, header: SparseHeader) {
        let tables = self.directory.len().max(self.redundant.len());
        self.directory = vec![None; tables];
        self.redundant.clear();
        self.cache = TableCache::default();
        self.forget_holes();
        self.file_len = header.overhead_bytes();
        self.metadata = Metadata::default();
        self.metadata.add(std::iter::once(0..self.file_len));
        self.header = Some(header);
    }

    /// A grain lies at a sector now, and the file reaches to `end`.
    pub(crate) fn set_stream_grain(&mut self, grain: u64, sector: u32, end: u64) -> Result<()> {
        self.file_len = self.file_len.max(end);
        let number = self.geometry.table_of(grain);
        self.load_or_make(number)?;
        self.set_entry(grain, sector.into())?;
        Ok(())
    }

    fn load_or_make(&mut self, number: u64) -> Result<()> {
        if !self.load(number)? {
            self.cache.insert(number, vec![0; num::to_usize(self.table_bytes())?]);
        }
        Ok(())
    }

    /// A table lies here now.
    pub(crate) fn set_stream_table(&mut self, number: u64, place: u64) -> Result<()> {
        let index = num::to_usize(number)?;
        if let Some(slot) = self.directory.get_mut(index) {
            *slot = Some(place);
        }
        if let Some(slot) = self.redundant.get_mut(index) {
            *slot = None;
        }
        self.forget_holes();
        Ok(())
    }

    /// The directory as it is to be on disk, in whole sectors.
    pub(crate) fn stream_directory(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (first, second) in (0..self.geometry.tables()).map(|number| self.places(number)) {
            let place = first.or(second).unwrap_or(0);
            let sector = u32::try_from(place / SECTOR_BYTES)
                .map_err(|_| Error::Misuse("a table beyond 2 TiB"))?;
            bytes.extend(sector.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        Ok(bytes)
    }

    /// Fits the tables to a disk of `size_bytes`, and returns how it is divided.
    pub(crate) fn set_stream_size(&mut self, size_bytes: u64) -> Result<Geometry> {
        let new = Geometry { size_bytes, ..self.geometry };
        self.drop_grains(new.grains())?;
        let tables = num::to_usize(new.tables())?;
        for list in [&mut self.directory, &mut self.redundant] {
            if !list.is_empty() || tables > 0 {
                list.resize(tables.max(list.len()), None);
            }
        }
        self.geometry = new;
        Ok(new)
    }
}
