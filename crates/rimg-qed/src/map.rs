//! Where guest clusters lie in the file: L1 and L2 tables, and the end of the file.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::error::CorruptKind;
use crate::header::Header;
use crate::spec::{self, feature};
use crate::table::L2Entry;
use core::ops::Range;
use rimg_blocks::{BlockMap, Change, EntryOrder, Freed, Place, Stage, Table, TableCache, Zeroed};
use rimg_core::{
    Error, Extent, ExtentKind, FileOffset, HostOffset, MetadataBudget, Result, Storage, num,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The stages in which tables are written.
pub(crate) const L2: u8 = 0;
pub(crate) const L1: u8 = 1;

/// How many pieces of tables are looked at for one extent: an image may be all zeroes and large.
const MAX_STEPS: u32 = 1024;

/// The tables of an open image.
#[derive(Debug)]
pub(crate) struct QedMap {
    file: Arc<dyn Storage>,
    pub(crate) header: Header,
    header_turn: Turn,
    tables: TableCache,
    /// Where L2 tables start, when the image was opened for writing: nothing may be written there.
    l2_starts: BTreeSet<u64>,
    /// The end of the last cluster of the file that is in use: what comes next goes here.
    end: u64,
    /// Clusters before the end that were given back.
    free: BTreeSet<u64>,
}

/// When the header is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Never,
    /// Before the tables: a disk that became smaller is smaller before its entries are gone.
    First,
    /// After them: a disk that became larger is larger when what lies below is hidden.
    Last,
}

impl QedMap {
    /// The tables of a file of `len_bytes`.
    pub(crate) fn open(file: Arc<dyn Storage>, header: Header, len_bytes: u64) -> Result<Self> {
        let cluster_bytes = header.geometry.cluster_bytes();
        let end = num::align_up(len_bytes, cluster_bytes).unwrap_or(u64::MAX);
        // Data may end within the last cluster; tables do not.
        if header.l1_end() > len_bytes {
            let at = crate::header::L1_OFFSET_AT;
            let kind = CorruptKind::OutsideFile(header.l1_offset);
            return Err(kind.at("header", "l1_table_offset", at));
        }
        Ok(Self {
            header,
            header_turn: Turn::Never,
            tables: TableCache::new(Arc::clone(&file), EntryOrder::LittleEndian),
            file,
            l2_starts: BTreeSet::new(),
            end,
            free: BTreeSet::new(),
        })
    }

    /// Learns where tables are, so that nothing is written over them.
    pub(crate) fn prepare_writing(&mut self, budget: &mut MetadataBudget) -> Result<()> {
        let l1 = self.l1();
        let entries = self.l1_entries_in_use();
        let mut index = 0;
        while index < entries {
            let mut found = Vec::new();
            let shown = self.tables.entries(&l1, index, |entry| {
                found.push(entry);
                true
            })?;
            for (entry, at) in found.into_iter().zip(index..entries) {
                if entry == 0 {
                    continue;
                }
                budget.reserve("places of L2 tables", 64)?;
                let at = l1.at.saturating_add(at.saturating_mul(8));
                self.check_table(entry).map_err(|kind| kind.at("L1 table", "entry", at))?;
                if self.is_in_metadata(entry, self.header.geometry.table_bytes()) {
                    return Err(CorruptKind::SharedTable(entry).at("L1 table", "entry", at));
                }
                self.l2_starts.insert(entry);
            }
            index = index.saturating_add(shown);
        }
        Ok(())
    }

    /// Looks at the file again, whose tables were changed.
    pub(crate) fn reload(&mut self, budget: &mut MetadataBudget) -> Result<()> {
        let len = self.file.len_bytes().map_err(Error::io("read file length", 0))?;
        self.tables.forget_all();
        self.l2_starts.clear();
        self.free.clear();
        self.end = num::align_up(len, self.geometry().cluster_bytes()).unwrap_or(u64::MAX);
        self.prepare_writing(budget)
    }

    /// Whether the file has nothing but the header and the L1 table.
    pub(crate) const fn is_blank(&self) -> bool {
        self.end <= self.header.l1_end()
    }

    /// Names another backing file, or none.
    pub(crate) fn change_backing(&mut self, name: Option<&str>, is_raw: bool) -> Result<()> {
        self.header.set_backing(name, is_raw)?;
        self.header_turn = Turn::Last;
        Ok(())
    }

    const fn geometry(&self) -> Geometry {
        self.header.geometry
    }

    fn l1(&self) -> Table {
        Table { at: self.header.l1_offset, entries: self.geometry().table_entries(), level: L1 }
    }

    fn l2(&self, at: u64) -> Table {
        Table { at, entries: self.geometry().table_entries(), level: L2 }
    }

    /// How many L1 entries the disk needs.
    fn l1_entries_in_use(&self) -> u64 {
        let clusters = self.geometry().clusters_for(self.header.size_bytes);
        clusters.div_ceil(self.geometry().table_entries())
    }

    fn check_table(&self, at: u64) -> Result<(), CorruptKind> {
        self.header.check_offset(at, self.geometry().table_bytes(), self.end)
    }

    /// Whether some of the `len` bytes at `at` belong to a table.
    fn is_in_metadata(&self, at: u64, len: u64) -> bool {
        let end = at.saturating_add(len);
        let table_bytes = self.geometry().table_bytes();
        let in_l1 = at < self.header.l1_end() && end > self.header.l1_offset;
        let before = at.saturating_sub(table_bytes.saturating_sub(1));
        in_l1 || self.l2_starts.range(before..end).next().is_some()
    }

    /// The L2 table of a guest cluster, where there is one.
    fn table_of(&mut self, cluster: u64) -> Result<Option<Table>> {
        let (l1, index) = (self.l1(), self.geometry().l1_index(cluster));
        let at = self.tables.entry(&l1, index)?;
        if at == 0 {
            return Ok(None);
        }
        self.check_table(at).map_err(|kind| {
            kind.at("L1 table", "entry", l1.at.saturating_add(index.saturating_mul(8)))
        })?;
        Ok(Some(self.l2(at)))
    }

    /// The L2 table of a guest cluster; a new one where there is none.
    fn own_table_of(&mut self, cluster: u64) -> Result<Table> {
        if let Some(table) = self.table_of(cluster)? {
            return Ok(table);
        }
        let (l1, index) = (self.l1(), self.geometry().l1_index(cluster));
        let at = self.end;
        let end = grown(at, self.geometry().table_bytes())?;
        let table = self.l2(at);
        self.tables.begin_table(&table)?;
        self.tables.set(&l1, index, at)?;
        self.end = end;
        self.l2_starts.insert(at);
        Ok(table)
    }

    /// What a cluster's entry says; a place that cannot be is an error.
    fn checked(&self, raw: u64, table: &Table, index: u64) -> Result<L2Entry> {
        let entry = L2Entry::parse(raw);
        let L2Entry::Data(host) = entry else { return Ok(entry) };
        let cluster_bytes = self.geometry().cluster_bytes();
        let kind = match self.header.check_offset(host, cluster_bytes, self.end) {
            Ok(()) if !self.is_in_metadata(host, cluster_bytes) => return Ok(entry),
            Ok(()) => CorruptKind::Overlap(host),
            Err(kind) => kind,
        };
        Err(kind.at("L2 table", "entry", table.at.saturating_add(index.saturating_mul(8))))
    }

    fn entry_of(&mut self, cluster: u64) -> Result<L2Entry> {
        let Some(table) = self.table_of(cluster)? else { return Ok(L2Entry::Unallocated) };
        let index = self.geometry().l2_index(cluster);
        let raw = self.tables.entry(&table, index)?;
        self.checked(raw, &table, index)
    }

    /// The run of clusters from `cluster` on whose entries go on like the first, at most to `end`;
    /// where it ends, and the first entry.
    fn run(&mut self, cluster: u64, end: u64) -> Result<(u64, L2Entry)> {
        let g = self.geometry();
        let mut first = None;
        let (mut at, mut steps) = (cluster, 0_u32);
        while at < end && steps < MAX_STEPS {
            steps = steps.saturating_add(1);
            let Some(table) = self.table_of(at)? else {
                if *first.get_or_insert(L2Entry::Unallocated) != L2Entry::Unallocated {
                    break;
                }
                at = g.first_cluster_of(g.l1_index(at).saturating_add(1));
                continue;
            };
            let index = g.l2_index(at);
            let (mut same, mut seen) = (0_u64, None);
            let shown = self.tables.entries(&table, index, |raw| {
                let entry = L2Entry::parse(raw);
                let expected = match *first.get_or_insert(entry) {
                    L2Entry::Data(host) => {
                        let before = at.saturating_add(same).saturating_sub(cluster);
                        L2Entry::Data(host.saturating_add(g.cluster_start(before)))
                    }
                    other => other,
                };
                let goes_on = entry == expected;
                same = same.saturating_add(u64::from(goes_on));
                seen = goes_on.then_some(raw).or(seen);
                goes_on && at.saturating_add(same) < end
            })?;
            // In a run that goes on, offsets ascend: both ends being possible is enough, but for
            // tables in between.
            if at == cluster
                && let Some(first) = first
            {
                self.checked(first.encode(), &table, index)?;
            }
            if let (Some(L2Entry::Data(host)), Some(last)) = (first, seen) {
                let len = last.saturating_sub(host).saturating_add(g.cluster_bytes());
                let last_index = index.saturating_add(same.saturating_sub(1));
                if self.is_in_metadata(host, len) {
                    // The next call comes to it.
                    return Ok((cluster.saturating_add(1), L2Entry::Data(host)));
                }
                self.checked(last, &table, last_index)?;
            }
            at = at.saturating_add(same);
            if same < shown {
                break;
            }
        }
        Ok((at.min(end), first.unwrap_or(L2Entry::Unallocated)))
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
                    freed.push(Freed { host: table.at, len_bytes: g.table_bytes() });
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
        let cluster_bytes = self.geometry().cluster_bytes();
        let mut index = from;
        while index < table.entries {
            let mut raw = Vec::new();
            let shown = self.tables.entries(table, index, |entry| {
                raw.push(entry);
                true
            })?;
            for (raw, index) in raw.into_iter().zip(index..table.entries) {
                if raw == 0 {
                    continue;
                }
                if let L2Entry::Data(host) = self.checked(raw, table, index)? {
                    freed.push(Freed { host, len_bytes: cluster_bytes });
                }
                self.tables.set(table, index, L2Entry::Unallocated.encode())?;
            }
            index = index.saturating_add(shown);
        }
        Ok(())
    }

    /// Drops what lies behind the end of a disk that is about to grow: it would come up.
    fn clear_behind(&mut self) -> Result<Vec<Freed>> {
        let first = self.geometry().clusters_for(self.header.size_bytes);
        if first < self.geometry().first_cluster_of(self.geometry().table_entries()) {
            self.drop_from(first)
        } else {
            Ok(Vec::new())
        }
    }

    fn header_stage(&self) -> Stage {
        let mut bytes = self.header.encode().to_vec();
        let mut stage = Vec::new();
        match self.header.encode_name() {
            Some((at, name)) if at == num::to_u64(bytes.len()) => bytes.extend_from_slice(name),
            Some((at, name)) => stage.push(Change::Write { at, bytes: name.to_vec() }),
            None => {}
        }
        stage.push(Change::Write { at: 0, bytes });
        stage
    }
}

impl BlockMap for QedMap {
    fn size_bytes(&self) -> u64 {
        self.header.size_bytes
    }

    fn extent(&mut self, range: Range<u64>) -> Result<Extent> {
        let g = self.geometry();
        let first = g.cluster_of(range.start);
        let (end, entry) = self.run(first, g.clusters_for(range.end))?;
        let end = g.cluster_start(end).min(range.end);
        let ahead = range.start.saturating_sub(g.cluster_start(first));
        let kind = match entry {
            L2Entry::Unallocated => ExtentKind::Backing { allocation: None },
            L2Entry::Zero => ExtentKind::Zero { allocation: None },
            L2Entry::Data(host) => ExtentKind::Data(FileOffset {
                file: 0,
                host: HostOffset(host.saturating_add(ahead)),
            }),
        };
        Ok(Extent { len_bytes: end.saturating_sub(range.start), kind })
    }

    fn place(&mut self, _block: u64) -> Result<Place> {
        if let Some(host) = self.free.pop_first() {
            return Ok(Place { host, is_zeroed: false });
        }
        let host = self.end;
        self.end = grown(host, self.geometry().cluster_bytes())?;
        Ok(Place { host, is_zeroed: true })
    }

    fn unplace(&mut self, _block: u64, place: Place) {
        self.free.insert(place.host);
    }

    fn set_data(&mut self, block: u64, place: Place) -> Result<Option<Freed>> {
        let old = self.entry_of(block)?;
        let table = self.own_table_of(block)?;
        let entry = L2Entry::Data(place.host).encode();
        self.tables.set(&table, self.geometry().l2_index(block), entry)?;
        let len_bytes = self.geometry().cluster_bytes();
        Ok(match old {
            L2Entry::Data(host) if host != place.host => Some(Freed { host, len_bytes }),
            _ => None,
        })
    }

    /// A cluster with data keeps its place, and zeroes are written there: nothing in a QED image
    /// says that a place is free, so one that was given up would be lost.
    fn set_zero(&mut self, block: u64) -> Result<Zeroed> {
        match self.entry_of(block)? {
            L2Entry::Data(_) => return Ok(Zeroed::Impossible),
            L2Entry::Zero => {}
            L2Entry::Unallocated => {
                let table = self.own_table_of(block)?;
                let index = self.geometry().l2_index(block);
                self.tables.set(&table, index, L2Entry::Zero.encode())?;
            }
        }
        Ok(Zeroed::Done(None))
    }

    fn marks_zeroes(&self) -> bool {
        true
    }

    fn set_size_bytes(&mut self, size_bytes: u64) -> Result<Vec<Freed>> {
        if size_bytes > self.geometry().max_image_bytes()
            || !size_bytes.is_multiple_of(spec::SECTOR_BYTES)
        {
            return crate::options::refuse("size", "Invalid image size specified");
        }
        let (freed, turn) = if size_bytes < self.header.size_bytes {
            (self.drop_from(self.geometry().clusters_for(size_bytes))?, Turn::First)
        } else {
            (self.clear_behind()?, Turn::Last)
        };
        self.header.size_bytes = size_bytes;
        self.header_turn = turn;
        Ok(freed)
    }

    /// The image says that it needs a check, until it is closed: an entry may be durable before
    /// the file is as long as it says, and clusters may belong to nobody. Features that are not
    /// kept up are given up.
    fn before_changes(&mut self) -> Result<Vec<Stage>> {
        self.header.features |= feature::NEED_CHECK;
        self.header.autoclear_features = 0;
        Ok(vec![self.header_stage()])
    }

    fn take_dirty(&mut self, closing: bool) -> Result<Vec<Stage>> {
        self.tables.written();
        let mut stages = Vec::new();
        let turn = core::mem::replace(&mut self.header_turn, Turn::Never);
        if turn == Turn::First {
            stages.push(self.header_stage());
        }
        stages.push(self.tables.take(L2));
        stages.push(self.tables.take(L1));
        if turn == Turn::Last {
            stages.push(self.header_stage());
        }
        if closing {
            self.header.features &= !feature::NEED_CHECK;
            stages.push(self.header_stage());
        }
        Ok(stages)
    }

    fn write_failed(&mut self) {
        self.tables.write_failed();
        self.header.features |= feature::NEED_CHECK;
        self.header_turn = Turn::Last;
    }

    fn reuse(&mut self, freed: Freed) {
        let mut host = freed.host;
        let end = freed.host.saturating_add(freed.len_bytes);
        while host < end {
            self.free.insert(host);
            host = host.saturating_add(self.geometry().cluster_bytes());
        }
    }

    fn dirty_bytes(&self) -> usize {
        let header = if self.header_turn == Turn::Never { 0 } else { Header::RAW_BYTES };
        self.tables.dirty_bytes().saturating_add(header)
    }
}

/// Where the file ends with `len` more bytes.
fn grown(end: u64, len: u64) -> Result<u64> {
    let grown = end.checked_add(len).filter(|&end| end < spec::MAX_FILE_BYTES);
    grown.ok_or(Error::Limit {
        what: "length of the file",
        needed: end.saturating_add(len),
        limit: spec::MAX_FILE_BYTES,
    })
}
