//! The order in which metadata becomes durable.
//!
//! Changes of the table go through the log: an entry that has all of them, the header that makes
//! the entry count, then the table itself; each is durable before the next is begun. A crash
//! leaves the table as it was, or an entry to replay.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::unsupported;
use crate::header::{Guid, Header, Headers};
use crate::log::Sector;
use crate::map::{Direction, Todo, VhdxMap};
use crate::spec;
use rimg_blocks::{Change, Stage};
use rimg_core::{Error, Result, Storage, num};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

impl VhdxMap {
    /// Before the first change the header gets new identifiers: who knew the file, or is a child
    /// of the disk, sees that they are not what they were (2.2.2).
    pub(crate) fn begin_changes(&mut self) -> Result<Vec<Stage>> {
        self.know_headers()?;
        let old = self.headers.current;
        // Of two headers with the same number none is newer.
        if old.sequence_number >= u64::MAX >> 1 {
            return Err(unsupported(format!("header sequence number {}", old.sequence_number)));
        }
        let next = |what: &[u8], old: Guid| {
            let number = self.headers.current.sequence_number.to_le_bytes();
            Guid::derive(&[what, &old.to_le_bytes(), &number])
        };
        let begun = Header {
            file_write_guid: next(b"file write", old.file_write_guid),
            data_write_guid: next(b"data write", old.data_write_guid),
            ..old
        };
        self.has_begun = true;
        self.taken = Todo::default();
        Ok(vec![self.header_stage(begun)])
    }

    pub(crate) fn take_stages(&mut self, closing: bool) -> Result<Vec<Stage>> {
        self.know_headers()?;
        let metadata = self.metadata_sectors()?;
        let mut todo = std::mem::take(&mut self.todo);
        let mut stages = Vec::new();
        if todo.grow {
            stages.push(vec![Change::SetLen(self.used_end)]);
        }
        if todo.bat_moved {
            stages.push(self.whole_table());
        }
        if todo.bat_moved || todo.region_tables {
            // What the log says of the old table must not be replayed over what is there now.
            if self.headers.current.log_guid != Guid::ZERO {
                let without_log = Header { log_guid: Guid::ZERO, ..self.headers.current };
                stages.push(self.header_stage(without_log));
            }
            for at in spec::REGION_TABLE_AT {
                stages.push(vec![Change::Write { at, bytes: self.regions.encode() }]);
            }
        }
        let written = if todo.bat_moved { Vec::new() } else { self.table_sectors(&todo) };
        // The table is as large as the size says, or larger, whatever becomes of the rest.
        let (first, last) = match todo.size {
            Some(Direction::Down) => (metadata, Vec::new()),
            _ => (Vec::new(), metadata),
        };
        let sectors: Vec<_> = first.into_iter().chain(written).chain(last).collect();
        for batch in sectors.chunks(self.log.most_sectors()) {
            self.logged(batch, &mut stages);
        }
        if todo.cut {
            stages.push(vec![Change::SetLen(self.used_end)]);
        }
        if closing && self.has_begun {
            // Both, so that either of them can get lost.
            for _ in spec::HEADER_AT {
                let clean = Header { log_guid: Guid::ZERO, ..self.headers.current };
                stages.push(self.header_stage(clean));
            }
            self.has_begun = false;
        }
        std::mem::swap(&mut self.taken, &mut todo);
        Ok(stages)
    }

    /// Nobody knows how much of what was taken is on disk.
    pub(crate) fn take_back(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        self.todo.sectors.extend(taken.sectors);
        self.todo.size = self.todo.size.or(taken.size);
        self.todo.linkage = self.todo.linkage.or(taken.linkage);
        self.todo.bat_moved |= taken.bat_moved;
        self.todo.region_tables |= taken.region_tables;
        self.todo.grow |= taken.grow;
        self.headers_unknown = true;
        // Closing has to be done again, if it was that.
        self.has_begun = true;
    }

    /// Writes sectors through the log.
    fn logged(&mut self, sectors: &[(u64, Sector)], stages: &mut Vec<Stage>) {
        let header = self.headers.current;
        let guid = if header.log_guid == Guid::ZERO {
            let number = header.sequence_number.to_le_bytes();
            Guid::derive(&[b"log", &header.file_write_guid.to_le_bytes(), &number])
        } else {
            header.log_guid
        };
        stages.push(self.log.entry(guid, sectors, self.used_end));
        if header.log_guid != guid {
            // Only now: there is always an entry for a log that counts.
            stages.push(self.header_stage(Header { log_guid: guid, ..header }));
        }
        let write =
            |(at, sector): &(u64, Sector)| Change::Write { at: *at, bytes: sector.to_vec() };
        stages.push(sectors.iter().map(write).collect());
    }

    fn table_sectors(&self, todo: &Todo) -> Vec<(u64, Sector)> {
        todo.sectors.iter().map(|number| self.bat.sector(*number)).collect()
    }

    /// All of the table, at its new place, which nothing refers to yet.
    fn whole_table(&self) -> Stage {
        let mut bytes: Vec<u8> =
            self.bat.entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        bytes.resize(usize::try_from(self.bat.region.length).unwrap_or(bytes.len()), 0);
        vec![Change::Write { at: self.bat.region.offset, bytes }]
    }

    /// The sectors of the metadata that change, as they are to be.
    fn metadata_sectors(&self) -> Result<Vec<(u64, Sector)>> {
        let mut fields = Vec::new();
        if self.todo.size.is_some() {
            fields.push((self.size_at, self.size_bytes.to_le_bytes().to_vec()));
        }
        if let (Some(guid), Some((at, len))) = (self.todo.linkage, self.linkage_at) {
            let text = guid.utf16_of(len);
            fields.push((at, text.ok_or_else(|| unsupported("a linkage of such a length"))?));
        }
        let mut sectors: BTreeMap<u64, Sector> = BTreeMap::new();
        for (field_at, field) in fields {
            // A field may lie across two sectors, and two fields in one.
            for (at, byte) in (field_at..).zip(field) {
                let start = num::align_down(at, spec::log::SECTOR_BYTES);
                let sector = match sectors.entry(start) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => new.insert(self.read_sector(start)?),
                };
                let within = num::to_usize(at.saturating_sub(start))?;
                if let Some(place) = sector.get_mut(within) {
                    *place = byte;
                }
            }
        }
        Ok(sectors.into_iter().collect())
    }

    /// A sector of the file, with zeroes behind its end.
    fn read_sector(&self, at: u64) -> Result<Sector> {
        let mut sector: Sector = [0; 4096];
        let len = self.file.len_bytes().map_err(Error::io("read file length", 0))?;
        let there = num::to_usize(len.saturating_sub(at))?.min(sector.len());
        let known = sector.get_mut(..there).unwrap_or_default();
        self.file.read_exact_at(known, at).map_err(Error::io("read metadata", at))?;
        Ok(sector)
    }

    fn header_stage(&mut self, next: Header) -> Stage {
        let (at, bytes) = self.headers.advance(next);
        vec![Change::Write { at, bytes }]
    }

    /// The header that counts, as whoever opens the file next finds it.
    pub(crate) fn durable_header(&self) -> Result<Header> {
        match self.headers_unknown {
            true => Ok(read_headers(self.file.as_ref())?.current),
            false => Ok(self.headers.current),
        }
    }

    /// Looks at the headers again after writing failed: the next one must not go over the only
    /// one that is good.
    fn know_headers(&mut self) -> Result<()> {
        if self.headers_unknown {
            self.headers = read_headers(self.file.as_ref())?;
            self.headers_unknown = false;
        }
        Ok(())
    }
}

/// Reads the headers of a file, as far as it goes.
pub(crate) fn read_headers(file: &dyn Storage) -> Result<Headers> {
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut copies = [Vec::new(), Vec::new()];
    for (copy, at) in copies.iter_mut().zip(spec::HEADER_AT) {
        let there = num::to_usize(len.saturating_sub(at))?;
        *copy = read_up_to(file, at, there.min(spec::HEADER_BYTES), "read headers")?;
    }
    let [first, second] = &copies;
    Headers::parse([first, second])
}

/// The bytes from `at` on, which the file has: none, where it ends before.
pub(crate) fn read_up_to(
    file: &dyn Storage,
    at: u64,
    bytes: usize,
    op: &'static str,
) -> Result<Vec<u8>> {
    let mut buf = vec![0; bytes];
    if !buf.is_empty() {
        file.read_exact_at(&mut buf, at).map_err(Error::io(op, at))?;
    }
    Ok(buf)
}
