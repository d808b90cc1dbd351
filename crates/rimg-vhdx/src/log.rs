//! The log: entries to bytes and back, and which of them have to be replayed (2.3).
//!
//! A ring of 4 KiB sectors. An entry is some sectors of descriptors, each of which says what is to
//! be written to a sector of the file, followed by one sector of data for each that is not zeroes.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod replay;
mod writer;

pub(crate) use replay::{ReplayedStorage, pending, replay_to};
pub(crate) use writer::LogWriter;

use crate::error::CorruptKind;
use crate::header::{Guid, crc32c_with_field_zeroed, put_checksum};
use crate::spec::log as spec;
use rimg_core::{num, on_disk};
use std::borrow::Cow;

/// One sector of the file, as the log has it.
pub(crate) type Sector = [u8; 4096];

const SECTOR: usize = 4096;

on_disk! {
    /// The head of an entry (2.3.1.1).
    pub(crate) struct RawEntry: LittleEndian, 64 bytes {
        signature: u32 = 0,
        checksum: u32 = 4,
        entry_length: u32 = 8,
        tail: u32 = 12,
        sequence_number: u64 = 16,
        descriptor_count: u32 = 24,
        log_guid_low: u64 = 32,
        log_guid_high: u64 = 40,
        flushed_file_offset: u64 = 48,
        last_file_offset: u64 = 56,
    }
}

on_disk! {
    /// A descriptor (2.3.1.2, 2.3.1.3): of zeroes, or of data, where `amount` is a length or the
    /// first eight bytes.
    pub(crate) struct RawDescriptor: LittleEndian, 32 bytes {
        signature: u32 = 0,
        trailing_bytes: u32 = 4,
        amount: u64 = 8,
        file_offset: u64 = 16,
        sequence_number: u64 = 24,
    }
}

/// Something that an entry says is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Update {
    Zeroes { at: u64, len: u64 },
    Data { at: u64, sector: Box<Sector> },
}

/// What has to be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replay {
    /// In the order in which they are to be made.
    pub(crate) updates: Vec<Update>,
    /// How long the file was for sure when the newest entry was written, in bytes.
    pub(crate) flushed_file_offset: u64,
    /// How long the file has to be, in bytes.
    pub(crate) last_file_offset: u64,
}

/// The bytes of a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log<'a> {
    bytes: &'a [u8],
    guid: Guid,
}

/// A valid entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Where it starts in the log.
    at: usize,
    len: usize,
    raw: RawEntry,
}

impl<'a> Log<'a> {
    /// Of whole sectors, where only entries with this GUID count.
    pub(crate) fn new(bytes: &'a [u8], guid: Guid) -> Self {
        Self { bytes, guid }
    }

    /// What the active sequence of entries (2.3.2) says; `None` when there is no such sequence.
    pub(crate) fn replay(self) -> Result<Option<Replay>, CorruptKind> {
        let sequence = self.active_sequence()?;
        let Some(head) = sequence.last().copied() else { return Ok(None) };
        let mut updates = Vec::new();
        for entry in sequence {
            self.collect_updates(&entry, &mut updates);
        }
        Ok(Some(Replay {
            updates,
            flushed_file_offset: head.raw.flushed_file_offset,
            last_file_offset: head.raw.last_file_offset,
        }))
    }

    /// The entries from the tail that the newest one names up to that one.
    fn active_sequence(self) -> Result<Vec<Entry>, CorruptKind> {
        let mut best: Vec<Entry> = Vec::new();
        // What is looked at of a log that was written as it should be is read twice at most.
        let mut effort = self.bytes.len().saturating_mul(4);
        let mut start = 0;
        while start < self.bytes.len() {
            let (sequence, len) = self.sequence_at(start, &mut effort)?;
            start = start.saturating_add(len.max(SECTOR));
            let Some(head) = sequence.last() else { continue };
            let tail = usize::try_from(head.raw.tail).ok();
            let Some(first) = sequence.iter().position(|entry| Some(entry.at) == tail) else {
                continue;
            };
            let is_newer =
                best.last().is_none_or(|best| best.raw.sequence_number < head.raw.sequence_number);
            if is_newer {
                best = sequence.get(first..).unwrap_or_default().to_vec();
            }
        }
        Ok(best)
    }

    /// The valid entries that follow each other from `start` on, and how long they are together.
    fn sequence_at(
        self,
        start: usize,
        effort: &mut usize,
    ) -> Result<(Vec<Entry>, usize), CorruptKind> {
        let mut sequence: Vec<Entry> = Vec::new();
        let mut len = 0_usize;
        loop {
            let at = self.wrap(start.saturating_add(len));
            let Some(entry) = self.entry_at(at, effort)? else { break };
            let follows = sequence.last().is_none_or(|last| {
                last.raw.sequence_number.checked_add(1) == Some(entry.raw.sequence_number)
            });
            let total = len.saturating_add(entry.len);
            if !follows || total > self.bytes.len() {
                break;
            }
            len = total;
            sequence.push(entry);
            if len == self.bytes.len() {
                break;
            }
        }
        Ok((sequence, len))
    }

    /// The entry at a sector, if it is one.
    fn entry_at(self, at: usize, effort: &mut usize) -> Result<Option<Entry>, CorruptKind> {
        let head = self.bytes.get(at..).and_then(<[u8]>::first_chunk).map(RawEntry::parse);
        let Some(raw) = head.filter(|raw| raw.signature == spec::ENTRY_SIGNATURE) else {
            return Ok(None);
        };
        let len = num::to_usize(raw.entry_length.into()).unwrap_or(usize::MAX);
        let descriptors = num::to_usize(raw.descriptor_count.into()).unwrap_or(usize::MAX);
        let is_possible = Guid::of_words(raw.log_guid_low, raw.log_guid_high) == self.guid
            && raw.sequence_number > 0
            && len > 0
            && len <= self.bytes.len()
            && len.is_multiple_of(SECTOR)
            && descriptor_bytes(descriptors) <= len;
        if !is_possible {
            return Ok(None);
        }
        *effort = effort.checked_sub(len).ok_or(CorruptKind::LogMaze)?;
        let bytes = self.ring(at, len);
        let is_valid = crc32c_with_field_zeroed(&bytes) == raw.checksum
            && has_valid_parts(&bytes, &raw, descriptors);
        Ok(is_valid.then_some(Entry { at, len, raw }))
    }

    fn collect_updates(self, entry: &Entry, updates: &mut Vec<Update>) {
        let bytes = self.ring(entry.at, entry.len);
        let count = num::to_usize(entry.raw.descriptor_count.into()).unwrap_or_default();
        let mut sectors =
            bytes.get(descriptor_bytes(count)..).unwrap_or_default().as_chunks().0.iter();
        for raw in descriptors(&bytes, count) {
            if raw.signature == spec::ZERO_SIGNATURE {
                updates.push(Update::Zeroes { at: raw.file_offset, len: raw.amount });
                continue;
            }
            let Some(sector) = sectors.next() else { return };
            let mut sector: Box<Sector> = Box::new(*sector);
            if let Some(leading) = sector.first_chunk_mut() {
                *leading = raw.amount.to_le_bytes();
            }
            if let Some(trailing) = sector.last_chunk_mut() {
                *trailing = raw.trailing_bytes.to_le_bytes();
            }
            updates.push(Update::Data { at: raw.file_offset, sector });
        }
    }

    /// Bytes of the ring, which goes on at its start.
    fn ring(self, at: usize, len: usize) -> Cow<'a, [u8]> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        match rest.get(..len) {
            Some(bytes) => Cow::Borrowed(bytes),
            None => {
                let start = self.bytes.get(..len.saturating_sub(rest.len())).unwrap_or_default();
                Cow::Owned([rest, start].concat())
            }
        }
    }

    fn wrap(self, at: usize) -> usize {
        at.checked_rem(self.bytes.len()).unwrap_or_default()
    }
}

/// An entry that writes sectors to places of the file, which are multiples of 4 KiB. `raw` says
/// the rest; signature, lengths and checksum are put in.
pub(crate) fn encode_entry(raw: RawEntry, sectors: &[(u64, Sector)]) -> Vec<u8> {
    let head = descriptor_bytes(sectors.len());
    let len = head.saturating_add(sectors.len().saturating_mul(SECTOR));
    let raw = RawEntry {
        signature: spec::ENTRY_SIGNATURE,
        entry_length: u32::try_from(len).unwrap_or_default(),
        descriptor_count: u32::try_from(sectors.len()).unwrap_or_default(),
        ..raw
    };
    let sequence_number = raw.sequence_number;
    let mut bytes = raw.encode().to_vec();
    for (file_offset, sector) in sectors {
        let descriptor = RawDescriptor {
            signature: spec::DATA_SIGNATURE,
            trailing_bytes: sector.last_chunk().map_or(0, |b| u32::from_le_bytes(*b)),
            amount: sector.first_chunk().map_or(0, |b| u64::from_le_bytes(*b)),
            file_offset: *file_offset,
            sequence_number,
        };
        bytes.extend_from_slice(&descriptor.encode());
    }
    bytes.resize(head, 0);
    let [low, high] = halves(sequence_number);
    for (_, sector) in sectors {
        bytes.extend_from_slice(&spec::SECTOR_SIGNATURE.to_le_bytes());
        bytes.extend_from_slice(&high);
        bytes.extend_from_slice(sector.get(8..4092).unwrap_or_default());
        bytes.extend_from_slice(&low);
    }
    put_checksum(&mut bytes);
    bytes
}

/// How many bytes the head of an entry and its descriptors take: whole sectors.
pub(crate) fn descriptor_bytes(count: usize) -> usize {
    count
        .saturating_mul(RawDescriptor::SIZE_BYTES)
        .saturating_add(RawEntry::SIZE_BYTES)
        .checked_next_multiple_of(SECTOR)
        .unwrap_or(usize::MAX)
}

fn descriptors(bytes: &[u8], count: usize) -> impl Iterator<Item = RawDescriptor> {
    let bytes = bytes.get(RawEntry::SIZE_BYTES..).unwrap_or_default();
    bytes
        .as_chunks::<{ RawDescriptor::SIZE_BYTES }>()
        .0
        .iter()
        .take(count)
        .map(RawDescriptor::parse)
}

/// Whether descriptors and data sectors belong to the entry, and there are as many as it says.
fn has_valid_parts(bytes: &[u8], raw: &RawEntry, count: usize) -> bool {
    let mut of_data = 0_usize;
    for descriptor in descriptors(bytes, count) {
        match descriptor.signature {
            spec::ZERO_SIGNATURE => {}
            spec::DATA_SIGNATURE => of_data = of_data.saturating_add(1),
            _ => return false,
        }
        if descriptor.sequence_number != raw.sequence_number {
            return false;
        }
    }
    let [low, high] = halves(raw.sequence_number);
    let sectors = bytes.get(descriptor_bytes(count)..).unwrap_or_default();
    let (sectors, _) = sectors.as_chunks::<SECTOR>();
    sectors.len() == of_data
        && sectors.iter().all(|sector| {
            sector.starts_with(&spec::SECTOR_SIGNATURE.to_le_bytes())
                && sector.get(4..8) == Some(&high)
                && sector.ends_with(&low)
        })
}

/// The low and the high half, as bytes of the file.
fn halves(number: u64) -> [[u8; 4]; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [[a, b, c, d], [e, f, g, h]]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: Guid = Guid(77);

    fn entry(sequence_number: u64, tail: u32, sectors: &[(u64, Sector)]) -> Vec<u8> {
        let (log_guid_low, log_guid_high) = GUID.words();
        let raw = RawEntry {
            sequence_number,
            tail,
            log_guid_low,
            log_guid_high,
            flushed_file_offset: sequence_number << 20,
            last_file_offset: sequence_number << 20,
            ..RawEntry::default()
        };
        encode_entry(raw, sectors)
    }

    fn sector(byte: u8) -> Sector {
        let mut sector = [byte; 4096];
        (sector[0], sector[4095]) = (1, 2);
        sector
    }

    fn put(log: &mut [u8], at: usize, entry: &[u8]) {
        let (start, rest) = log.split_at_mut(at);
        let (first, behind) = entry.split_at(entry.len().min(rest.len()));
        rest[..first.len()].copy_from_slice(first);
        start[..behind.len()].copy_from_slice(behind);
    }

    fn replayed(log: &[u8]) -> Option<Vec<(u64, u8)>> {
        let replay = Log::new(log, GUID).replay().unwrap()?;
        let update = |update: &Update| match update {
            Update::Data { at, sector } => (*at, sector[100]),
            Update::Zeroes { at, .. } => (*at, 0),
        };
        Some(replay.updates.iter().map(update).collect())
    }

    #[test]
    fn what_was_encoded_is_replayed() {
        let mut log = vec![0; 1 << 20];
        let sectors: Vec<_> = (0..200).map(|n| (u64::from(n) << 12, sector(n))).collect();
        put(&mut log, 0, &entry(5, 0, &sectors));
        let replay = Log::new(&log, GUID).replay().unwrap().unwrap();
        let wanted: Vec<_> = sectors
            .iter()
            .map(|(at, sector)| Update::Data { at: *at, sector: Box::new(*sector) })
            .collect();
        assert_eq!(replay.updates, wanted);
        assert_eq!((replay.flushed_file_offset, replay.last_file_offset), (5 << 20, 5 << 20));
        assert_eq!(Log::new(&log, Guid(78)).replay().unwrap(), None);
    }

    #[test]
    fn the_newest_sequence_counts_from_its_tail() {
        let one = |n: u8, tail| entry(n.into(), tail, &[(u64::from(n) << 20, sector(n))]);
        let mut log = vec![0; 1 << 20];
        assert_eq!(replayed(&log), None);
        put(&mut log, 0, &one(1, 0));
        put(&mut log, 8192, &one(2, 8192));
        assert_eq!(replayed(&log), Some(vec![(2 << 20, 2)]));
        // The third names the second as its tail.
        put(&mut log, 16384, &one(3, 8192));
        assert_eq!(replayed(&log), Some(vec![(2 << 20, 2), (3 << 20, 3)]));
        // A fourth that was torn.
        put(&mut log, 24576, &one(4, 8192));
        log[24576 + 5000] ^= 1;
        assert_eq!(replayed(&log), Some(vec![(2 << 20, 2), (3 << 20, 3)]));
        log[24576 + 5000] ^= 1;
        assert_eq!(replayed(&log).unwrap().len(), 3);
        // A gap ends a sequence: its head's tail is not in it.
        log[16384 + 5000] ^= 1;
        assert_eq!(replayed(&log), Some(vec![(2 << 20, 2)]));
    }

    #[test]
    fn entries_go_round_the_end_of_the_log() {
        let mut log = vec![0; 1 << 20];
        let end = (1 << 20) - 4096;
        let tail = u32::try_from(end).unwrap();
        put(&mut log, end, &entry(8, tail, &[(1 << 20, sector(8)), (2 << 20, sector(7))]));
        put(&mut log, 8192, &entry(9, tail, &[(3 << 20, sector(9))]));
        assert_eq!(replayed(&log), Some(vec![(1 << 20, 8), (2 << 20, 7), (3 << 20, 9)]));
    }

    #[test]
    fn entries_that_contradict_themselves_do_not_count() {
        let good = entry(3, 0, &[(1 << 20, sector(3))]);
        let changed = |change: fn(&mut [u8])| {
            let mut entry = good.clone();
            change(&mut entry);
            put_checksum(&mut entry);
            let mut log = vec![0; 1 << 20];
            put(&mut log, 0, &entry);
            replayed(&log)
        };
        assert!(changed(|_| {}).is_some());
        for change in [
            |e: &mut [u8]| e[0] = 0,  // the signature
            |e: &mut [u8]| e[9] = 16, // too short
            |e: &mut [u8]| e[9] = 48, // a sector too long
            |e: &mut [u8]| e[12] = 1, // a tail that is nowhere
            |e: &mut [u8]| e[16] = 4, // a sequence number that the rest has not
            |e: &mut [u8]| e[24] = 2, // a second descriptor
            |e: &mut [u8]| e[64] = 0, // no descriptor
            |e: &mut [u8]| e[4096] = 0,
            |e: &mut [u8]| e[8191] = 1,
        ] {
            assert_eq!(changed(change), None);
        }
    }

    #[test]
    fn zeroes_have_no_sector() {
        let mut entry = entry(3, 0, &[(1 << 20, sector(3))]);
        entry.truncate(4096);
        entry[9] = 16;
        entry[64..68].copy_from_slice(b"zero");
        entry[72..80].copy_from_slice(&0x5000_u64.to_le_bytes());
        put_checksum(&mut entry);
        let mut log = vec![0; 1 << 20];
        put(&mut log, 0, &entry);
        let updates = Log::new(&log, GUID).replay().unwrap().unwrap().updates;
        assert_eq!(updates, [Update::Zeroes { at: 1 << 20, len: 0x5000 }]);
    }

    #[test]
    fn a_log_that_would_take_for_ever_is_refused() {
        let (log_guid_low, log_guid_high) = GUID.words();
        let head = RawEntry {
            signature: spec::ENTRY_SIGNATURE,
            entry_length: 1 << 20,
            sequence_number: 1,
            log_guid_low,
            log_guid_high,
            ..RawEntry::default()
        };
        let mut log = vec![0; 1 << 20];
        for at in (0..1 << 20).step_by(4096) {
            put(&mut log, at, &head.encode());
        }
        assert_eq!(Log::new(&log, GUID).replay(), Err(CorruptKind::LogMaze));
    }
}
