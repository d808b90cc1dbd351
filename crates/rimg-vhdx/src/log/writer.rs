//! Writing entries: where the next one goes, and what it says.

use super::{RawEntry, SECTOR, Sector, descriptor_bytes, encode_entry};
use crate::header::{Guid, Header};
use rimg_blocks::Change;
use rimg_core::num;

/// The place in the ring that the next entry goes to.
///
/// Each entry is a sequence by itself: what the ones before it say has been written to the file,
/// and is durable, when it comes. Half of the log at most is one entry, so it never lies where the
/// one before it is, which counts until it is complete.
#[derive(Debug)]
pub(crate) struct LogWriter {
    offset: u64,
    length: u64,
    /// Where in the log, in bytes.
    next_at: u64,
    sequence_number: u64,
}

impl LogWriter {
    pub(crate) fn new(header: &Header) -> Self {
        Self {
            offset: header.log_offset,
            length: header.log_length,
            next_at: 0,
            sequence_number: 0,
        }
    }

    /// How many sectors an entry can write.
    pub(crate) fn most_sectors(&self) -> usize {
        let half = usize::try_from(self.length / 2).unwrap_or(usize::MAX) / SECTOR;
        // A sector of descriptors has 128 of them; the first has two less.
        let of_descriptors = descriptor_bytes(half) / SECTOR;
        half.saturating_sub(of_descriptors).max(1)
    }

    /// Writes an entry with these sectors, for a file that is `file_bytes` long.
    pub(crate) fn entry(
        &mut self,
        guid: Guid,
        sectors: &[(u64, Sector)],
        file_bytes: u64,
    ) -> Vec<Change> {
        let (log_guid_low, log_guid_high) = guid.words();
        self.sequence_number = self.sequence_number.saturating_add(1);
        let raw = RawEntry {
            // A log is shorter than 4 GiB.
            tail: u32::try_from(self.next_at).unwrap_or_default(),
            sequence_number: self.sequence_number,
            log_guid_low,
            log_guid_high,
            flushed_file_offset: file_bytes,
            last_file_offset: file_bytes,
            ..RawEntry::default()
        };
        let mut bytes = encode_entry(raw, sectors);
        let at = self.offset.saturating_add(self.next_at);
        let to_the_end = self.length.saturating_sub(self.next_at);
        let len = num::to_u64(bytes.len());
        if len < to_the_end {
            self.next_at = self.next_at.saturating_add(len);
            return vec![Change::Write { at, bytes }];
        }
        self.next_at = len.saturating_sub(to_the_end);
        let rest = bytes.split_off(usize::try_from(to_the_end).unwrap_or(bytes.len()));
        let mut changes = vec![Change::Write { at, bytes }];
        if !rest.is_empty() {
            changes.push(Change::Write { at: self.offset, bytes: rest });
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Log, Update};
    use super::*;

    #[test]
    fn the_newest_entry_is_replayed_and_the_one_before_it_survives() {
        let header = Header {
            sequence_number: 1,
            file_write_guid: Guid(1),
            data_write_guid: Guid(2),
            log_guid: Guid(3),
            log_offset: 5 << 20,
            log_length: 1 << 20,
        };
        let mut writer = LogWriter::new(&header);
        let most = writer.most_sectors();
        assert_eq!(most, 126);
        let mut log = vec![0; 1 << 20];
        let mut last = Vec::new();
        for n in 0..40_u8 {
            let count = if n % 3 == 0 { most } else { usize::from(n) + 1 };
            let sectors: Vec<_> = (0..count).map(|at| (num::to_u64(at) << 12, [n; 4096])).collect();
            let changes = writer.entry(Guid(3), &sectors, 9 << 20);
            let mut torn = log.clone();
            for change in changes {
                let Change::Write { at, bytes } = change else { panic!("{change:?}") };
                let at = usize::try_from(at - (5 << 20)).unwrap();
                log[at..at + bytes.len()].copy_from_slice(&bytes);
                torn[at..at + bytes.len() / 2].copy_from_slice(&bytes[..bytes.len() / 2]);
            }
            let of = |log: &[u8]| Log::new(log, Guid(3)).replay().unwrap().map(|r| r.updates);
            let wanted: Vec<_> = sectors
                .into_iter()
                .map(|(at, sector)| Update::Data { at, sector: Box::new(sector) })
                .collect();
            assert_eq!(of(&log).as_ref(), Some(&wanted), "entry {n}");
            if n > 0 {
                assert_eq!(of(&torn), Some(last), "entry {n}");
            }
            last = wanted;
        }
    }
}
