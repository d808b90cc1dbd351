//! Internal snapshots: the table, and disks as they were.

mod table;

pub(crate) use table::{RawSnapshot, SnapshotEntry, read_table};

use crate::driver::{self, read_l1};
use crate::error::CorruptKind;
use crate::image::{Access, Qcow2Image};
use crate::spec;
use rimg_core::{BlockImage, Error, Result, SnapshotInfo, SnapshotSelector, Snapshots};
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
        match select(&entries, wanted) {
            Some(entry) => Ok(Some(Box::new(self.view(entry)?))),
            None => Ok(None),
        }
    }
}

impl Qcow2Image {
    /// Reads the snapshot table.
    pub(crate) fn snapshot_entries(&self) -> Result<Vec<SnapshotEntry>> {
        let header = self.lock()?.header.clone();
        let mut budget = self.limits.metadata_budget();
        read_table(self.file.as_ref(), &header, self.size_bytes(), &mut budget)
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
        let mut view = driver::assemble(file, data_file, header, Access::Read, self.limits)?;
        view.backing = self.backing.as_ref().map(Arc::clone);
        view.backing_left_out = self.backing_left_out;
        view.encryption = self.encryption.as_ref().map(Arc::clone);
        view.size_bytes.store(entry.info.disk_size_bytes, Ordering::Release);
        Ok(view)
    }

    /// The L1 table of a snapshot.
    pub(crate) fn snapshot_l1(&self, entry: &SnapshotEntry) -> Result<Vec<u64>> {
        let mut budget = self.limits.metadata_budget();
        read_l1(self.file.as_ref(), entry.l1_offset, entry.l1_entries, &mut budget)
    }
}

/// A bare word is an identifier if one has it, else a name.
fn select<'a>(
    entries: &'a [SnapshotEntry],
    wanted: &SnapshotSelector<'_>,
) -> Option<&'a SnapshotEntry> {
    match wanted {
        SnapshotSelector::IdOrName(word) => entries
            .iter()
            .find(|entry| entry.info.id == *word)
            .or_else(|| entries.iter().find(|entry| entry.info.name == *word)),
        SnapshotSelector::Fields { id, name } => entries.iter().find(|entry| {
            id.is_none_or(|id| entry.info.id == id)
                && name.is_none_or(|name| entry.info.name == name)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, name: &str) -> SnapshotEntry {
        let info = SnapshotInfo { id: id.into(), name: name.into(), ..SnapshotInfo::default() };
        SnapshotEntry { info, at: 0, len: 0, l1_offset: 0, l1_entries: 0 }
    }

    #[test]
    fn identifiers_come_before_names() {
        let entries = [entry("1", "2"), entry("2", "1"), entry("3", "x"), entry("4", "x")];
        let found = |wanted| select(&entries, &wanted).map(|entry| entry.info.id.as_str());
        assert_eq!(found(SnapshotSelector::IdOrName("1")), Some("1"));
        assert_eq!(found(SnapshotSelector::IdOrName("x")), Some("3"));
        assert_eq!(found(SnapshotSelector::IdOrName("y")), None);
        let fields = |id, name| SnapshotSelector::Fields { id, name };
        assert_eq!(found(fields(None, Some("1"))), Some("2"));
        assert_eq!(found(fields(Some("4"), Some("x"))), Some("4"));
        assert_eq!(found(fields(Some("1"), Some("x"))), None);
    }
}
