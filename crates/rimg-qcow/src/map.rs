//! Where guest clusters lie in the file: L1 and L2 tables, and the end of the file.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::CorruptKind;
use crate::header::Header;
use crate::spec;
use crate::table::{L2Entry, max_encoded_offset};
use core::ops::Range;
use rimg_blocks::{BlockMap, Change, EntryOrder, Freed, Place, Stage, Table, TableCache, Zeroed};
use rimg_core::{
    Codec, Error, Extent, ExtentKind, FileOffset, HostOffset, MetadataBudget, Result, Storage, num,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The stages in which tables are written.
pub(crate) const L2: u8 = 0;
pub(crate) const L1: u8 = 1;

/// How many pieces of tables are looked at for one extent.
const MAX_STEPS: u32 = 4096;

/// The tables of an open image.
#[derive(Debug)]
pub(crate) struct QcowMap {
    file: Arc<dyn Storage>,
    pub(crate) header: Header,
    header_turn: Turn,
    /// How many entries the L1 table has room for.
    l1_entries: u64,
    tables: TableCache,
    /// Where L2 tables start, when the image was opened for writing: nothing may be written there.
    l2_starts: BTreeSet<u64>,
    /// The end of what is in use of the file: what comes next goes behind.
    end: u64,
    /// Clusters before the end that were given back.
    free: BTreeSet<u64>,
    /// The name of a new backing file, until it is written.
    new_name: Option<(u64, String)>,
}

/// When the header is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Never,
    /// Before the tables: a disk that became smaller is smaller before its entries are gone.
    First,
    /// After them: a disk that became larger is larger when what lies below is hidden, and when
    /// its L1 table is there.
    Last,
}

impl QcowMap {
    /// The tables of a file of `len_bytes`.
    pub(crate) fn open(file: Arc<dyn Storage>, header: Header, len_bytes: u64) -> Result<Self> {
        if header.l1_end() > len_bytes {
            let kind = CorruptKind::OutsideFile(header.l1_offset);
            return Err(kind.at("header", "l1_table_offset", crate::header::L1_OFFSET_AT));
        }
        Ok(Self {
            l1_entries: header.l1_entries(),
            header,
            header_turn: Turn::Never,
            tables: TableCache::new(Arc::clone(&file), EntryOrder::BigEndian),
            file,
            l2_starts: BTreeSet::new(),
            end: len_bytes,
            free: BTreeSet::new(),
            new_name: None,
        })
    }

    /// Learns where tables are, so that nothing is written over them.
    pub(crate) fn prepare_writing(&mut self, budget: &mut MetadataBudget) -> Result<()> {
        let l1 = self.l1();
        let mut index = 0;
        while index < l1.entries {
            let mut found = Vec::new();
            let shown = self.tables.entries(&l1, index, |entry| {
                found.push(entry);
                true
            })?;
            for (entry, index) in found.into_iter().zip(index..l1.entries) {
                if entry == 0 {
                    continue;
                }
                budget.reserve("places of L2 tables", 64)?;
                let wrong = |kind: CorruptKind| kind.at("L1 table", "entry", entry_at(&l1, index));
                self.check_place(entry, self.geometry().l2_bytes()).map_err(wrong)?;
                if self.is_in_metadata(entry, self.geometry().l2_bytes()) {
                    return Err(wrong(CorruptKind::SharedTable(entry)));
                }
                self.l2_starts.insert(entry);
            }
            index = index.saturating_add(shown);
        }
        Ok(())
    }

    /// Whether no L1 entry leads anywhere.
    pub(crate) fn is_blank(&mut self) -> Result<bool> {
        Ok(self.next_table(0)? >= self.l1_entries)
    }

    /// Forgets what lies behind the L1 table of an image without tables.
    pub(crate) fn cut_off(&mut self) -> Result<()> {
        let end = self.header.l1_end().max(self.header.end());
        let writer = self.file.writer().ok_or(Error::ReadOnly("it was opened for reading"))?;
        writer.set_len_bytes(end).map_err(Error::io("shorten file", end))?;
        self.end = end;
        self.free.clear();
        Ok(())
    }

    /// Names another backing file, or none. The name goes to the end of the file, as the L1 table
    /// is right behind the old one.
    pub(crate) fn change_backing(&mut self, name: Option<&str>) -> Result<()> {
        let Some(name) = name else {
            self.header.set_backing(None);
            self.header_turn = Turn::Last;
            return Ok(());
        };
        let len = num::to_u64(name.len());
        if len > spec::MAX_BACKING_NAME_BYTES.into() {
            let reason = "Backing file name too long".to_owned();
            return Err(Error::InvalidOption { option: "backing_file", reason });
        }
        let at = self.next(spec::SECTOR_BYTES, len)?;
        self.header.set_backing(Some((name, at)));
        self.new_name = Some((at, name.to_owned()));
        self.header_turn = Turn::Last;
        Ok(())
    }

    /// A place for an encoded cluster of `len` bytes.
    pub(crate) fn place_encoded(&mut self, block: u64, len: u64) -> Result<u64> {
        self.own_table_of(block)?;
        let host = self.next(spec::SECTOR_BYTES, len)?;
        let limit = max_encoded_offset(self.geometry());
        if host > limit {
            return Err(Error::Limit { what: "length of the file", needed: host, limit });
        }
        Ok(host)
    }

    /// From now on `block` is encoded, at a place from [`place_encoded`](Self::place_encoded).
    pub(crate) fn set_encoded(
        &mut self,
        block: u64,
        host: u64,
        len_bytes: u64,
    ) -> Result<Option<Freed>> {
        let old = self.entry_of(block)?;
        self.set_entry(block, L2Entry::Compressed { host, len_bytes })?;
        Ok(self.freed(old))
    }

    const fn geometry(&self) -> Geometry {
        self.header.geometry
    }

    fn l1(&self) -> Table {
        Table { at: self.header.l1_offset, entries: self.l1_entries, level: L1 }
    }

    fn l2(&self, at: u64) -> Table {
        Table { at, entries: self.geometry().l2_entries(), level: L2 }
    }

    /// Takes `len` bytes behind everything.
    fn next(&mut self, align: u64, len: u64) -> Result<u64> {
        let host = num::align_up(self.end, align);
        let end = host.and_then(|host| host.checked_add(len));
        match (host, end.filter(|&end| end < spec::MAX_FILE_BYTES)) {
            (Some(host), Some(end)) => {
                self.end = end;
                Ok(host)
            }
            _ => Err(Error::Limit {
                what: "length of the file",
                needed: self.end.saturating_add(len),
                limit: spec::MAX_FILE_BYTES,
            }),
        }
    }

    fn check_place(&self, at: u64, len: u64) -> Result<(), CorruptKind> {
        let start = num::to_u64(Header::RAW_BYTES);
        let is_inside = at >= start && at.checked_add(len).is_some_and(|end| end <= self.end);
        if is_inside { Ok(()) } else { Err(CorruptKind::OutsideFile(at)) }
    }

    /// Whether some of the `len` bytes at `at` belong to a table.
    fn is_in_metadata(&self, at: u64, len: u64) -> bool {
        let end = at.saturating_add(len);
        let l1 = self.l1();
        let l1_end = l1.at.saturating_add(l1.entries.saturating_mul(8));
        let in_l1 = at < l1_end && end > l1.at;
        let before = at.saturating_sub(self.geometry().l2_bytes().saturating_sub(1));
        in_l1 || self.l2_starts.range(before..end).next().is_some()
    }

    /// The L2 table of a guest cluster, where there is one.
    fn table_of(&mut self, cluster: u64) -> Result<Option<Table>> {
        let (l1, index) = (self.l1(), self.geometry().l1_index(cluster));
        let at = self.tables.entry(&l1, index)?;
        if at == 0 {
            return Ok(None);
        }
        self.check_place(at, self.geometry().l2_bytes())
            .map_err(|kind| kind.at("L1 table", "entry", entry_at(&l1, index)))?;
        Ok(Some(self.l2(at)))
    }

    /// The L2 table of a guest cluster; a new one where there is none.
    fn own_table_of(&mut self, cluster: u64) -> Result<Table> {
        if let Some(table) = self.table_of(cluster)? {
            return Ok(table);
        }
        let (l1, index) = (self.l1(), self.geometry().l1_index(cluster));
        let at = self.next(self.geometry().cluster_bytes(), self.geometry().l2_bytes())?;
        let table = self.l2(at);
        self.tables.begin_table(&table)?;
        self.tables.set(&l1, index, at)?;
        self.l2_starts.insert(at);
        Ok(table)
    }

    /// What a cluster's entry says; a place that cannot be is an error.
    fn checked(&self, raw: u64, table: &Table, index: u64) -> Result<L2Entry> {
        let entry = L2Entry::parse(raw, self.geometry());
        let (host, len) = match entry {
            L2Entry::Unallocated => return Ok(entry),
            L2Entry::Data(host) => (host, self.geometry().cluster_bytes()),
            L2Entry::Compressed { host, len_bytes } => (host, len_bytes),
        };
        let kind = match self.check_place(host, len) {
            Err(kind) => kind,
            Ok(()) if len == 0 => CorruptKind::NothingEncoded,
            Ok(()) if self.is_in_metadata(host, len) => CorruptKind::Overlap(host),
            Ok(()) => return Ok(entry),
        };
        Err(kind.at("L2 table", "entry", entry_at(table, index)))
    }

    fn entry_of(&mut self, cluster: u64) -> Result<L2Entry> {
        let Some(table) = self.table_of(cluster)? else { return Ok(L2Entry::Unallocated) };
        let index = self.geometry().l2_index(cluster);
        let raw = self.tables.entry(&table, index)?;
        self.checked(raw, &table, index)
    }

    fn set_entry(&mut self, cluster: u64, entry: L2Entry) -> Result<()> {
        let table = self.own_table_of(cluster)?;
        let g = self.geometry();
        self.tables.set(&table, g.l2_index(cluster), entry.encode(g))
    }

    /// What a cluster occupied. The places of compressed ones are of all sizes, and are lost.
    fn freed(&self, entry: L2Entry) -> Option<Freed> {
        match entry {
            L2Entry::Data(host) => Some(Freed { host, len_bytes: self.geometry().cluster_bytes() }),
            L2Entry::Unallocated | L2Entry::Compressed { .. } => None,
        }
    }

    /// The run of clusters from `cluster` on whose entries go on like the first, at most to `end`;
    /// where it ends, and the first entry.
    fn run(&mut self, cluster: u64, end: u64) -> Result<(u64, L2Entry)> {
        let g = self.geometry();
        let first = self.entry_of(cluster)?;
        if let L2Entry::Compressed { .. } = first {
            return Ok((cluster.saturating_add(1), first));
        }
        let (mut at, mut steps) = (cluster, 0_u32);
        while at < end && steps < MAX_STEPS {
            steps = steps.saturating_add(1);
            let Some(table) = self.table_of(at)? else {
                if first != L2Entry::Unallocated {
                    break;
                }
                at = g.first_cluster_of(g.l1_index(at).saturating_add(1));
                continue;
            };
            let index = g.l2_index(at);
            let mut same = 0_u64;
            let shown = self.tables.entries(&table, index, |raw| {
                let expected = match first {
                    L2Entry::Data(host) => {
                        let before = at.saturating_add(same).saturating_sub(cluster);
                        L2Entry::Data(host.saturating_add(g.cluster_start(before)))
                    }
                    other => other,
                };
                let goes_on = L2Entry::parse(raw, g) == expected;
                same = same.saturating_add(u64::from(goes_on));
                goes_on && at.saturating_add(same) < end
            })?;
            at = at.saturating_add(same);
            if same < shown {
                break;
            }
        }
        let at = at.min(end);
        if let L2Entry::Data(host) = first {
            // The first one is good. What is wrong with another is said when its turn comes.
            let len = g.cluster_start(at.saturating_sub(cluster));
            if self.check_place(host, len).is_err() || self.is_in_metadata(host, len) {
                return Ok((cluster.saturating_add(1), first));
            }
        }
        Ok((at, first))
    }

    /// Lets go of all clusters from `first` on, and of tables that have only such.
    fn drop_from(&mut self, first: u64) -> Result<Vec<Freed>> {
        let g = self.geometry();
        let l1 = self.l1();
        let mut freed = Vec::new();
        let mut l1_index = g.l1_index(first);
        while l1_index < l1.entries {
            let base = g.first_cluster_of(l1_index);
            if let Some(table) = self.table_of(base)? {
                let keep = first.saturating_sub(base);
                self.drop_entries(&table, keep, &mut freed)?;
                if keep == 0 {
                    self.tables.forget(&table);
                    self.tables.set(&l1, l1_index, 0)?;
                    self.l2_starts.remove(&table.at);
                    freed.push(Freed { host: table.at, len_bytes: g.l2_bytes() });
                }
            }
            l1_index = self.next_table(l1_index.saturating_add(1))?;
        }
        Ok(freed)
    }

    /// The first L1 entry from `index` on that has a table, or the end of the L1 table.
    fn next_table(&mut self, index: u64) -> Result<u64> {
        let l1 = self.l1();
        let mut index = index;
        while index < l1.entries {
            let mut skipped = 0_u64;
            let shown = self.tables.entries(&l1, index, |entry| {
                skipped = skipped.saturating_add(u64::from(entry == 0));
                entry == 0
            })?;
            index = index.saturating_add(skipped);
            if skipped < shown {
                break;
            }
        }
        Ok(index)
    }

    /// Lets go of the clusters of a table from entry `from` on.
    fn drop_entries(&mut self, table: &Table, from: u64, freed: &mut Vec<Freed>) -> Result<()> {
        let mut index = from;
        while index < table.entries {
            let mut raw = Vec::new();
            let shown = self.tables.entries(table, index, |entry| {
                raw.push(entry);
                true
            })?;
            for (raw, index) in raw.into_iter().zip(index..table.entries) {
                if raw != 0 {
                    let entry = self.checked(raw, table, index)?;
                    freed.extend(self.freed(entry));
                    self.tables.set(table, index, 0)?;
                }
            }
            index = index.saturating_add(shown);
        }
        Ok(())
    }

    /// Gives the L1 table room for so many entries: at the end of the file.
    fn grow_l1(&mut self, entries: u64) -> Result<()> {
        if entries <= self.l1_entries {
            return Ok(());
        }
        let old = self.l1();
        let at = self.next(self.geometry().cluster_bytes(), entries.saturating_mul(8))?;
        let new = Table { at, entries, level: L1 };
        self.tables.begin_table(&new)?;
        let mut index = self.next_table(0)?;
        while index < old.entries {
            let entry = self.tables.entry(&old, index)?;
            self.tables.set(&new, index, entry)?;
            index = self.next_table(index.saturating_add(1))?;
        }
        self.tables.forget(&old);
        self.header.l1_offset = at;
        self.l1_entries = entries;
        Ok(())
    }

    fn header_stage(&self) -> Stage {
        vec![Change::Write { at: 0, bytes: self.header.encode().to_vec() }]
    }
}

impl BlockMap for QcowMap {
    fn size_bytes(&self) -> u64 {
        self.header.size_bytes()
    }

    fn extent(&mut self, range: Range<u64>) -> Result<Extent> {
        let g = self.geometry();
        let first = g.cluster_of(range.start);
        let (end, entry) = self.run(first, g.clusters_for(range.end))?;
        let end = g.cluster_start(end).min(range.end);
        let ahead = range.start.saturating_sub(g.cluster_start(first));
        let at = |host| FileOffset { file: 0, host: HostOffset(host) };
        let kind = match entry {
            L2Entry::Unallocated => ExtentKind::Backing { allocation: None },
            L2Entry::Data(host) => ExtentKind::Data(at(host.saturating_add(ahead))),
            L2Entry::Compressed { host, len_bytes } => {
                ExtentKind::Encoded { at: at(host), len_bytes, codec: Codec::Deflate }
            }
        };
        Ok(Extent { len_bytes: end.saturating_sub(range.start), kind })
    }

    /// As QEMU does: the L2 table comes before what it will refer to.
    fn place(&mut self, block: u64) -> Result<Place> {
        self.own_table_of(block)?;
        if let Some(host) = self.free.pop_first() {
            return Ok(Place { host, is_zeroed: false });
        }
        let cluster_bytes = self.geometry().cluster_bytes();
        let host = self.next(cluster_bytes, cluster_bytes)?;
        if host & spec::COMPRESSED != 0 {
            return Err(Error::Limit { what: "length of the file", needed: host, limit: !host });
        }
        Ok(Place { host, is_zeroed: true })
    }

    fn unplace(&mut self, _block: u64, place: Place) {
        self.free.insert(place.host);
    }

    fn set_data(&mut self, block: u64, place: Place) -> Result<Option<Freed>> {
        let old = self.entry_of(block)?;
        self.set_entry(block, L2Entry::Data(place.host))?;
        Ok(self.freed(old).filter(|freed| freed.host != place.host))
    }

    /// Nothing in the format says that a cluster is zeroes, nor that a place is free.
    fn set_zero(&mut self, _block: u64) -> Result<Zeroed> {
        Ok(Zeroed::Impossible)
    }

    fn set_size_bytes(&mut self, size_bytes: u64) -> Result<Vec<Freed>> {
        let g = self.geometry();
        let entries = g.l1_entries_for(size_bytes);
        if size_bytes > spec::MAX_FILE_BYTES || entries.saturating_mul(8) > spec::MAX_L1_BYTES {
            return crate::options::refuse("size", "The image size is too large");
        }
        let (freed, turn) = if size_bytes < self.header.size_bytes() {
            (self.drop_from(g.clusters_for(size_bytes))?, Turn::First)
        } else {
            let freed = self.drop_from(g.clusters_for(self.header.size_bytes()))?;
            self.grow_l1(entries)?;
            (freed, Turn::Last)
        };
        self.header.set_size_bytes(size_bytes);
        self.header_turn = turn;
        Ok(freed)
    }

    fn take_dirty(&mut self, _closing: bool) -> Result<Vec<Stage>> {
        self.tables.written();
        let mut stages = Vec::new();
        let turn = core::mem::replace(&mut self.header_turn, Turn::Never);
        if turn == Turn::First {
            stages.push(self.header_stage());
        }
        stages.push(self.tables.take(L2));
        let mut l1 = self.tables.take(L1);
        if let Some((at, name)) = self.new_name.take() {
            l1.push(Change::Write { at, bytes: name.into_bytes() });
        }
        stages.push(l1);
        if turn == Turn::Last {
            stages.push(self.header_stage());
        }
        Ok(stages)
    }

    fn write_failed(&mut self) {
        self.tables.write_failed();
        if let Some(name) = &self.header.backing
            && let Some((at, _)) = self.header.name_at()
        {
            self.new_name = Some((at, name.clone()));
        }
        self.header_turn = Turn::Last;
    }

    fn reuse(&mut self, freed: Freed) {
        let cluster_bytes = self.geometry().cluster_bytes();
        let mut host = freed.host;
        let end = freed.host.saturating_add(freed.len_bytes);
        while host.saturating_add(cluster_bytes) <= end {
            self.free.insert(host);
            host = host.saturating_add(cluster_bytes);
        }
    }

    fn dirty_bytes(&self) -> usize {
        let header = if self.header_turn == Turn::Never { 0 } else { Header::RAW_BYTES };
        self.tables.dirty_bytes().saturating_add(header)
    }
}

fn entry_at(table: &Table, index: u64) -> u64 {
    table.at.saturating_add(index.saturating_mul(8))
}
