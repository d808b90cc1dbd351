//! Internal snapshots: the table, and disks as they were.

mod apply;
mod create;
mod delete;
mod table;
mod tree;

pub(crate) use table::{NEEDED_EXTRA_BYTES, RawSnapshot, SnapshotEntry, read_table, until_nul};
pub(crate) use tree::{Branch, SharedTables};

use crate::allocate::FreeRun;
use crate::driver::{self, read_l1};
use crate::error::CorruptKind;
use crate::header::{Header, offset};
use crate::image::{Access, Qcow2Image, State};
use crate::spec;
use core::ops::Range;
use rimg_core::{
    BlockImage, Error, MetadataBudget, NewSnapshot, Result, SnapshotEdit, SnapshotInfo,
    SnapshotSelector, Snapshots, Storage, num,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Snapshots for Qcow2Image {
    fn list(&self) -> Result<Vec<SnapshotInfo>> {
        let entries = self.snapshot_entries()?;
        Ok(entries.into_iter().map(|entry| entry.info).collect())
    }

    fn open(&self, wanted: &SnapshotSelector<'_>) -> Result<Option<Box<dyn BlockImage>>> {
        if self.access.is_metadata_only() {
            return Err(Error::Misuse("the image was opened for inspection only"));
        }
        let entries = self.snapshot_entries()?;
        match select(&entries, wanted).and_then(|place| entries.get(place)) {
            Some(entry) => Ok(Some(Box::new(self.view(entry)?))),
            None => Ok(None),
        }
    }

    fn editor(&self) -> Option<&dyn SnapshotEdit> {
        (self.access == Access::Write).then_some(self)
    }
}

impl SnapshotEdit for Qcow2Image {
    fn create(&self, new: &NewSnapshot<'_>) -> Result<SnapshotInfo> {
        self.noting_damage(|| self.create_snapshot(new))
    }

    fn apply(&self, wanted: &SnapshotSelector<'_>) -> Result<bool> {
        self.noting_damage(|| self.apply_snapshot(wanted))
    }

    fn delete(&self, wanted: &SnapshotSelector<'_>) -> Result<bool> {
        self.noting_damage(|| self.delete_snapshot(wanted))
    }
}

impl Qcow2Image {
    /// Reads the snapshot table.
    pub(crate) fn snapshot_entries(&self) -> Result<Vec<SnapshotEntry>> {
        let header = self.lock()?.header.clone();
        self.read_snapshots(&header)
    }

    pub(crate) fn read_snapshots(&self, header: &Header) -> Result<Vec<SnapshotEntry>> {
        let mut budget = self.limits.metadata_budget();
        read_table(self.file.as_ref(), header, self.size_bytes(), &mut budget)
    }

    /// The disk of a snapshot, sharing this image's files.
    fn view(&self, entry: &SnapshotEntry) -> Result<Self> {
        let mut header = self.lock()?.header.clone();
        let wrong = |kind: CorruptKind| kind.at("snapshot table", "l1_table_offset", entry.at);
        if !header.geometry.is_aligned(entry.l1_offset) {
            return Err(wrong(CorruptKind::Misaligned(entry.l1_offset)));
        }
        let bytes = u64::from(entry.l1_entries).saturating_mul(8);
        if bytes > spec::MAX_L1_BYTES {
            return Err(wrong(CorruptKind::TableTooLarge(bytes)));
        }
        // Bitmaps are of the disk as it is.
        header.autoclear &= !spec::autoclear::BITMAPS;
        header.l1_offset = entry.l1_offset;
        header.l1_entries = entry.l1_entries;
        header.size_bytes = entry.info.disk_size_bytes;
        // Checked before the table is looked at: the disk may not reach past it.
        let needed = header.geometry.l1_entries_for(header.size_bytes);
        let entries = u64::from(header.l1_entries);
        if entries < needed {
            return Err(wrong(CorruptKind::L1TooSmall { entries, needed }));
        }
        let data_file = self.data_file.as_ref().map(Arc::clone);
        let file = Arc::clone(&self.file);
        let encryption = self.encryption.clone();
        let mut view =
            driver::assemble(file, data_file, header, encryption, Access::Read, self.limits)?;
        view.backing = self.backing.as_ref().map(Arc::clone);
        view.backing_left_out = self.backing_left_out;
        view.views = Arc::clone(&self.views);
        view.size_bytes.store(entry.info.disk_size_bytes, Ordering::Release);
        Ok(view)
    }

    /// The L1 table of a snapshot.
    pub(crate) fn snapshot_l1(&self, entry: &SnapshotEntry) -> Result<Vec<u64>> {
        let mut budget = self.limits.metadata_budget();
        read_l1(self.file.as_ref(), entry.l1_offset, entry.l1_entries, &mut budget)
    }
}

/// What changes to the list of snapshots share.
impl Qcow2Image {
    /// The L1 table of a snapshot whose entry is possible.
    pub(crate) fn checked_l1(&self, state: &State, entry: &SnapshotEntry) -> Result<Vec<u64>> {
        let wrong = |kind: CorruptKind| kind.at("snapshot table", "l1_table_offset", entry.at);
        if !self.geometry.is_aligned(entry.l1_offset) {
            return Err(wrong(CorruptKind::Misaligned(entry.l1_offset)));
        }
        let bytes = u64::from(entry.l1_entries).saturating_mul(8);
        if bytes > spec::MAX_L1_BYTES {
            return Err(wrong(CorruptKind::TableTooLarge(bytes)));
        }
        if entry.l1_offset == state.header.l1_offset && entry.l1_entries > 0 {
            return Err(wrong(CorruptKind::Overlap(entry.l1_offset)));
        }
        self.snapshot_l1(entry)
    }

    /// The clusters that an L1 table lies in.
    fn clusters_of_l1(&self, at: u64, entries: u32) -> Range<u64> {
        let first = self.geometry.cluster_index(at);
        let clusters = self.geometry.clusters_for(u64::from(entries).saturating_mul(8));
        first..first.saturating_add(clusters)
    }

    /// Clusters for `bytes` in a row; none for none.
    fn allocate_table(&self, state: &mut State, bytes: u64) -> Result<Option<FreeRun>> {
        if bytes == 0 {
            return Ok(None);
        }
        Ok(Some(self.allocate(state, self.geometry.clusters_for(bytes))?.0))
    }

    /// The result as it is; where it is an error, clusters that are not needed now are free again.
    fn or_give_back<T>(
        &self,
        state: &mut State,
        run: Option<FreeRun>,
        result: Result<T>,
    ) -> Result<T> {
        if let (Some(run), Err(_)) = (run, &result) {
            state.allocator_mut()?.give_back(run)?;
        }
        result
    }

    fn write_table(&self, words: &[u64], at: u64) -> Result<()> {
        if words.is_empty() {
            return Ok(());
        }
        let raw: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.file_writer()?.write_all_at(&raw, at).map_err(Error::io("write L1 table", at))
    }

    fn write_snapshots(&self, entries: &[SnapshotEntry], place: Option<FreeRun>) -> Result<()> {
        let Some(run) = place else { return Ok(()) };
        let at = self.geometry.cluster_offset(run.first);
        let bytes = table::encode_table(entries)?;
        self.file_writer()?.write_all_at(&bytes, at).map_err(Error::io("write snapshot table", at))
    }

    /// Gives every snapshot the extra data that version 3 asks for.
    pub(crate) fn complete_snapshots(&self) -> Result<()> {
        let mut state = self.lock()?;
        let state = &mut *state;
        let entries = self.read_snapshots(&state.header)?;
        if !entries.iter().any(|entry| entry.lacks_extra) {
            return Ok(());
        }
        let table_bytes = num::to_u64(table::encode_table(&entries)?.len());
        let place = self.allocate_table(state, table_bytes)?;
        let written = self.write_snapshots(&entries, place);
        self.or_give_back(state, place, written)?;
        self.enter_snapshots(state, &entries, place)?;
        self.guard_again(state)
    }

    /// Makes the snapshot table at `place`, which was written, the one in force, and frees the one
    /// before.
    fn enter_snapshots(
        &self,
        state: &mut State,
        entries: &[SnapshotEntry],
        place: Option<FreeRun>,
    ) -> Result<()> {
        self.catch_up(state)?;
        self.barrier(state)?;
        let g = self.geometry;
        let old_at = state.header.snapshots_offset;
        let old_bytes = self.snapshot_table_bytes(&state.header)?;
        let at = place.map_or(0, |run| g.cluster_offset(run.first));
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        // Count and offset are next to each other in one sector: both change or none does.
        let mut field = [0; 12];
        let (count_bytes, at_bytes) = field.split_at_mut(4);
        count_bytes.copy_from_slice(&count.to_be_bytes());
        at_bytes.copy_from_slice(&at.to_be_bytes());
        self.file_writer()?
            .write_all_at(&field, offset::SNAPSHOT_COUNT)
            .map_err(Error::io("write header", offset::SNAPSHOT_COUNT))?;
        self.barrier(state)?;
        state.header.snapshot_count = count;
        state.header.snapshots_offset = at;
        let first = g.cluster_index(old_at);
        let old = first..first.saturating_add(g.clusters_for(old_bytes));
        if !old.is_empty() {
            // The table is in force: that the old one leaks is no reason to fail.
            let _ = self.begin_freeing().and_then(|()| self.lower_clusters(state, old));
        }
        Ok(())
    }

    /// Says that clusters are about to be freed. Counts change in memory: who injects errors there
    /// is given something to refuse.
    fn begin_freeing(&self) -> Result<()> {
        self.file.note("cluster_free");
        if !self.file.listens() {
            return Ok(());
        }
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, 0).map_err(Error::io("free clusters", 0))
    }

    fn snapshot_table_bytes(&self, header: &Header) -> Result<u64> {
        let entries = self.read_snapshots(header)?;
        let end = entries.last().map_or(0, |last| last.at.saturating_add(last.len));
        Ok(end.saturating_sub(header.snapshots_offset))
    }

    /// Guards the tables that are in force now.
    pub(crate) fn guard_again(&self, state: &mut State) -> Result<()> {
        let State { allocator, header, l1, bitmaps, .. } = state;
        if let Some(allocator) = allocator {
            allocator.guard_tables(header, l1, &mut self.limits.metadata_budget())?;
            bitmaps.guard_again(&mut allocator.guard, self.geometry);
        }
        Ok(())
    }
}

/// The clusters that the snapshot table and the L1 tables of snapshots lie in.
pub(crate) fn table_clusters(
    file: &dyn Storage,
    header: &Header,
    budget: &mut MetadataBudget,
) -> Result<Vec<Range<u64>>> {
    if header.snapshot_count == 0 {
        return Ok(Vec::new());
    }
    let g = header.geometry;
    let span = |at: u64, bytes: u64| {
        let first = g.cluster_index(at);
        first..first.saturating_add(g.clusters_for(bytes))
    };
    let entries = read_table(file, header, header.size_bytes, budget)?;
    let end = entries.last().map_or(0, |last| last.at.saturating_add(last.len));
    let table = span(header.snapshots_offset, end.saturating_sub(header.snapshots_offset));
    let l1 = entries.iter().filter(|entry| entry.l1_offset != 0);
    let l1 = l1.map(|entry| span(entry.l1_offset, u64::from(entry.l1_entries).saturating_mul(8)));
    Ok(core::iter::once(table).chain(l1).collect())
}

/// The clusters that the L1 tables of snapshots lead to.
pub(crate) fn l2_clusters(
    file: &dyn Storage,
    header: &Header,
    budget: &mut MetadataBudget,
) -> Result<Vec<u64>> {
    let g = header.geometry;
    let mut clusters = Vec::new();
    for entry in read_table(file, header, header.size_bytes, budget)? {
        // What the table says too much of is told by whoever uses it.
        if entry.l1_offset == 0 || u64::from(entry.l1_entries) * 8 > spec::MAX_L1_BYTES {
            continue;
        }
        let l1 = driver::read_l1(file, entry.l1_offset, entry.l1_entries, budget)?;
        let tables = l1.iter().map(|entry| entry & spec::OFFSET_MASK).filter(|at| *at != 0);
        clusters.extend(tables.map(|at| g.cluster_index(at)));
    }
    Ok(clusters)
}

/// One more than the highest number that an identifier begins with.
fn next_id(entries: &[SnapshotEntry]) -> String {
    let number = |entry: &SnapshotEntry| {
        let digits = entry.id.iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0_u64, |number, digit| {
            number.saturating_mul(10).saturating_add(u64::from(digit.wrapping_sub(b'0')))
        })
    };
    let highest = entries.iter().map(number).max().unwrap_or(0);
    highest.wrapping_add(1).to_string()
}

/// The place of the entry that is wanted. A bare word is an identifier if one has it, else a name.
fn select(entries: &[SnapshotEntry], wanted: &SnapshotSelector<'_>) -> Option<usize> {
    let find =
        |fits: &dyn Fn(&SnapshotInfo) -> bool| entries.iter().position(|entry| fits(&entry.info));
    match wanted {
        SnapshotSelector::IdOrName(word) => {
            find(&|info| info.id == *word).or_else(|| find(&|info| info.name == *word))
        }
        SnapshotSelector::Fields { id, name } => find(&|info| {
            id.is_none_or(|id| info.id == id) && name.is_none_or(|name| info.name == name)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, name: &str) -> SnapshotEntry {
        let info = SnapshotInfo { id: id.into(), name: name.into(), ..SnapshotInfo::default() };
        SnapshotEntry { info, id: id.as_bytes().to_vec(), ..SnapshotEntry::default() }
    }

    #[test]
    fn identifiers_come_before_names() {
        let entries = [entry("1", "2"), entry("2", "1"), entry("3", "x"), entry("4", "x")];
        let found = |wanted| select(&entries, &wanted).map(|at| entries[at].info.id.as_str());
        assert_eq!(found(SnapshotSelector::IdOrName("1")), Some("1"));
        assert_eq!(found(SnapshotSelector::IdOrName("x")), Some("3"));
        assert_eq!(found(SnapshotSelector::IdOrName("y")), None);
        let fields = |id, name| SnapshotSelector::Fields { id, name };
        assert_eq!(found(fields(None, Some("1"))), Some("2"));
        assert_eq!(found(fields(Some("4"), Some("x"))), Some("4"));
        assert_eq!(found(fields(Some("1"), Some("x"))), None);
    }

    #[test]
    fn identifiers_count_on_from_the_highest() {
        let next = |ids: &[&str]| {
            next_id(&ids.iter().map(|id| entry(id, "")).collect::<Vec<SnapshotEntry>>())
        };
        assert_eq!(next(&[]), "1");
        assert_eq!(next(&["3", "1"]), "4");
        assert_eq!(next(&["9x", "zz", ""]), "10");
    }
}
