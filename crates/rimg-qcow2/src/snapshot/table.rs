//! The snapshot table (Snapshots): entries of varying length, one behind the other.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use crate::header::{Header, offset};
use crate::spec;
use rimg_core::{Error, MetadataBudget, Result, SnapshotInfo, Storage, num, on_disk};

on_disk! {
    /// The fixed part of a snapshot table entry.
    pub(crate) struct RawSnapshot: BigEndian, 40 bytes {
        l1_table_offset: u64 = 0,
        l1_size: u32 = 8,
        id_str_size: u16 = 12,
        name_size: u16 = 14,
        date_sec: u32 = 16,
        date_nsec: u32 = 20,
        vm_clock_nsec: u64 = 24,
        vm_state_size: u32 = 32,
        extra_data_size: u32 = 36,
    }
}

/// The extra data that this crate knows, and writes: the size of the machine's state, the size of
/// the disk, and the count of instructions.
const KNOWN_EXTRA_BYTES: usize = 24;
/// What version 3 asks for: the size of the machine's state in 64 bits, and that of the disk.
pub(crate) const NEEDED_EXTRA_BYTES: usize = 16;
/// The count of instructions of a machine that does not count them.
const NO_ICOUNT: u64 = u64::MAX;

/// An entry of the snapshot table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SnapshotEntry {
    pub(crate) info: SnapshotInfo,
    /// Where the entry lies in the file, and how long it is with its padding.
    pub(crate) at: u64,
    pub(crate) len: u64,
    pub(crate) l1_offset: u64,
    pub(crate) l1_entries: u32,
    /// The bytes of identifier and name, which need not be UTF-8.
    pub(crate) id: Vec<u8>,
    pub(crate) name: Vec<u8>,
    /// Extra data behind what is known.
    pub(crate) unknown_extra: Vec<u8>,
    /// Extra data that version 3 asks for is not there.
    pub(crate) lacks_extra: bool,
}

impl SnapshotEntry {
    /// The bytes of the entry with its padding, as they stand in a table that this crate writes:
    /// with all the extra data that is known, and that which is not.
    ///
    /// # Errors
    /// [`Error::Limit`] when identifier or name are longer than their fields can say.
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let info = &self.info;
        let too_long =
            |what| move |_| Error::Limit { what, needed: u64::MAX, limit: u64::from(u16::MAX) };
        let extra_bytes = KNOWN_EXTRA_BYTES.saturating_add(self.unknown_extra.len());
        let raw = RawSnapshot {
            l1_table_offset: self.l1_offset,
            l1_size: self.l1_entries,
            id_str_size: u16::try_from(self.id.len()).map_err(too_long("snapshot identifier"))?,
            name_size: u16::try_from(self.name.len()).map_err(too_long("snapshot name"))?,
            date_sec: info.date_seconds,
            date_nsec: info.date_nanoseconds,
            vm_clock_nsec: info.vm_clock_nanoseconds,
            // Who does not look further than here must not take a part of the state for all of it.
            vm_state_size: u32::try_from(info.vm_state_bytes).unwrap_or(0),
            // At most 1024 and a few.
            extra_data_size: u32::try_from(extra_bytes).unwrap_or(u32::MAX),
        };
        bytes.extend_from_slice(&raw.encode());
        bytes.extend_from_slice(&info.vm_state_bytes.to_be_bytes());
        bytes.extend_from_slice(&info.disk_size_bytes.to_be_bytes());
        bytes.extend_from_slice(&info.icount.unwrap_or(NO_ICOUNT).to_be_bytes());
        bytes.extend_from_slice(&self.unknown_extra);
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.name);
        Ok(())
    }
}

/// The bytes of a table with these entries. Entries start at multiples of 8; the last one is not
/// padded.
///
/// # Errors
/// [`Error::Limit`] when the table would be larger than QEMU reads.
pub(crate) fn encode_table(entries: &[SnapshotEntry]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        entry.encode(&mut bytes)?;
    }
    let needed = num::to_u64(bytes.len());
    if needed > spec::MAX_SNAPSHOT_TABLE_BYTES {
        let limit = spec::MAX_SNAPSHOT_TABLE_BYTES;
        return Err(Error::Limit { what: "snapshot table in bytes", needed, limit });
    }
    Ok(bytes)
}

/// Reads the whole table. Snapshots of version 2 do not tell the size of their disk: it is
/// `size_bytes`, that of the image.
pub(crate) fn read_table(
    file: &dyn Storage,
    header: &Header,
    size_bytes: u64,
    budget: &mut MetadataBudget,
) -> Result<Vec<SnapshotEntry>> {
    if header.snapshot_count > spec::MAX_SNAPSHOTS {
        let kind = CorruptKind::TooManySnapshots(header.snapshot_count);
        return Err(kind.at("header", "nb_snapshots", offset::SNAPSHOT_COUNT));
    }
    let mut entries = Vec::new();
    let mut at = header.snapshots_offset;
    for index in 0..header.snapshot_count {
        let entry = read_entry(file, at, index, size_bytes, budget)?;
        at = at.saturating_add(entry.len);
        let table_bytes = at.saturating_sub(header.snapshots_offset);
        if table_bytes > spec::MAX_SNAPSHOT_TABLE_BYTES {
            let left = header.snapshot_count.saturating_sub(index);
            let kind = CorruptKind::SnapshotTableTooBig(left);
            return Err(kind.at("snapshot table", "entry", entry.at));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn read_entry(
    file: &dyn Storage,
    at: u64,
    index: u32,
    size_bytes: u64,
    budget: &mut MetadataBudget,
) -> Result<SnapshotEntry> {
    let mut fixed = [0; RawSnapshot::SIZE_BYTES];
    file.read_exact_at(&mut fixed, at).map_err(Error::io("read snapshot table", at))?;
    let raw = RawSnapshot::parse(&fixed);
    if raw.extra_data_size > spec::MAX_SNAPSHOT_EXTRA_BYTES {
        let field_at = at.saturating_add(RawSnapshot::offset_of("extra_data_size"));
        let kind = CorruptKind::SnapshotExtra(index);
        return Err(kind.at("snapshot table", "extra_data_size", field_at));
    }
    let extra_len = num::to_usize(raw.extra_data_size.into())?;
    let (id_len, name_len) = (usize::from(raw.id_str_size), usize::from(raw.name_size));
    let rest_len = extra_len.saturating_add(id_len).saturating_add(name_len);
    let rest_at = at.saturating_add(num::to_u64(RawSnapshot::SIZE_BYTES));
    let mut rest = budget.buffer("snapshot table", num::to_u64(rest_len))?;
    file.read_exact_at(&mut rest, rest_at).map_err(Error::io("read snapshot table", rest_at))?;
    let (extra, texts) = rest.split_at_checked(extra_len).unwrap_or_default();
    let (id, name) = texts.split_at_checked(id_len).unwrap_or_default();
    let (id, name) = (until_nul(id), until_nul(name));
    let extra_word = |index: usize| {
        let start = index.saturating_mul(8);
        extra.get(start..).and_then(<[u8]>::first_chunk).map(|word| u64::from_be_bytes(*word))
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let end = rest_at.saturating_add(num::to_u64(rest_len));
    Ok(SnapshotEntry {
        info: SnapshotInfo {
            id: text(id),
            name: text(name),
            date_seconds: raw.date_sec,
            date_nanoseconds: raw.date_nsec,
            vm_clock_nanoseconds: raw.vm_clock_nsec,
            // Where the extra data tells it, it need not fit 32 bits.
            vm_state_bytes: extra_word(0).unwrap_or(raw.vm_state_size.into()),
            // All ones stand for a machine that does not count.
            icount: extra_word(2).filter(|count| *count != NO_ICOUNT),
            disk_size_bytes: extra_word(1).unwrap_or(size_bytes),
        },
        at,
        // Entries start at multiples of 8 from the start of the table, which is aligned.
        len: num::align_up(end, 8).unwrap_or(u64::MAX).saturating_sub(at),
        l1_offset: raw.l1_table_offset,
        l1_entries: raw.l1_size,
        id: id.to_vec(),
        name: name.to_vec(),
        unknown_extra: extra.get(KNOWN_EXTRA_BYTES..).unwrap_or_default().to_vec(),
        lacks_extra: extra_len < NEEDED_EXTRA_BYTES,
    })
}

/// The text in a field: it ends before the first NUL, if there is one.
pub(crate) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;
    use rimg_testkit::MemoryStorage;

    fn entry(extra: &[u8]) -> Vec<u8> {
        let raw = RawSnapshot {
            l1_table_offset: 0x5_0000,
            l1_size: 3,
            id_str_size: 1,
            name_size: 4,
            date_sec: 5,
            date_nsec: 6,
            vm_clock_nsec: 7,
            vm_state_size: 8,
            extra_data_size: u32::try_from(extra.len()).unwrap(),
        };
        let mut bytes = raw.encode().to_vec();
        bytes.extend_from_slice(extra);
        bytes.extend_from_slice(b"9name");
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<SnapshotEntry> {
        let mut budget = rimg_core::Limits::default().metadata_budget();
        read_entry(&MemoryStorage::from(bytes), 0, 3, 1234, &mut budget)
    }

    #[test]
    fn entries_without_extra_data_take_the_size_of_the_image() {
        let entry = read(entry(&[])).unwrap();
        assert_eq!((entry.info.id.as_str(), entry.info.name.as_str()), ("9", "name"));
        assert_eq!((entry.info.vm_state_bytes, entry.info.disk_size_bytes), (8, 1234));
        assert_eq!((entry.info.icount, entry.len), (None, 48));
        assert_eq!((entry.l1_offset, entry.l1_entries), (0x5_0000, 3));
    }

    #[test]
    fn extra_data_is_wider_and_may_be_longer_than_known() {
        let mut extra = [1_u64 << 40, 99, 7].map(u64::to_be_bytes).concat();
        extra.extend_from_slice(&[0xff; 5]);
        let entry = read(entry(&extra)).unwrap();
        assert_eq!((entry.info.vm_state_bytes, entry.info.disk_size_bytes), (1 << 40, 99));
        assert_eq!((entry.info.icount, entry.info.name.as_str()), (Some(7), "name"));
    }

    #[test]
    fn an_entry_is_written_with_all_that_was_read() {
        let mut extra = [1_u64 << 40, 99, 7].map(u64::to_be_bytes).concat();
        extra.extend_from_slice(&[0xff; 5]);
        let first = read(entry(&extra)).unwrap();
        let bytes = encode_table(&[first.clone(), first.clone()]).unwrap();
        assert_eq!(bytes.len(), 80 + 74, "padding between, none at the end");
        let again = read(bytes[80..].to_vec()).unwrap();
        assert_eq!(again, first);
        assert_eq!(bytes[32..36], [0; 4], "a state too large for its old field is not cut off");
    }

    #[test]
    fn extra_data_is_completed() {
        let bytes = encode_table(&[read(entry(&[])).unwrap()]).unwrap();
        assert_eq!(bytes[36..40], 24_u32.to_be_bytes());
        assert_eq!(bytes[40..64], [8, 1234, u64::MAX].map(u64::to_be_bytes).concat());
    }

    #[test]
    fn too_much_extra_data_is_refused() {
        let mut bytes = entry(&[]);
        bytes[36..40].copy_from_slice(&1025_u32.to_be_bytes());
        let error = read(bytes).unwrap_err();
        assert_eq!(kind_of(&error), Some(&CorruptKind::SnapshotExtra(3)));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = entry(&[0; 24]);
        for len in 0..bytes.len() {
            assert!(read(bytes[..len].to_vec()).is_err(), "{len}");
        }
    }
}
