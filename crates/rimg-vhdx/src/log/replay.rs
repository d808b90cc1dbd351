//! Replaying: into the file, or over it in memory where it was opened for reading.

use super::{Log, Replay, Sector, Update};
use crate::error::CorruptKind;
use crate::header::{Header, Headers};
use crate::spec;
use core::ops::Range;
use rimg_core::{Error, MetadataBudget, Result, Storage, StorageRun, StorageWrite, Zeroing, num};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// Reads the log that `header` names and finds what has to be replayed, if there is something.
pub(crate) fn pending(
    file: &dyn Storage,
    header: &Header,
    budget: &mut MetadataBudget,
) -> Result<Option<Replay>> {
    if header.log_guid == crate::header::Guid::ZERO {
        return Ok(None);
    }
    let at = header.log_offset;
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let end = at.saturating_add(header.log_length);
    if end > len {
        return Err(CorruptKind::RegionTruncated { end, len }.at("log", "entries", at));
    }
    // Once as bytes of the log, once as what they say.
    budget.reserve("log", header.log_length)?;
    let mut bytes = budget.buffer("log", header.log_length)?;
    file.read_exact_at(&mut bytes, at).map_err(Error::io("read log", at))?;
    let wrong = |kind: CorruptKind| kind.at("log", "entries", at);
    let Some(replay) = Log::new(&bytes, header.log_guid).replay().map_err(wrong)? else {
        return Ok(None);
    };
    if replay.flushed_file_offset > len {
        return Err(wrong(CorruptKind::FileTruncated { end: replay.flushed_file_offset, len }));
    }
    let end = replay.last_file_offset.max(len);
    if end > spec::MAX_FILE_BYTES {
        return Err(wrong(CorruptKind::BehindEnd { offset: end, len }));
    }
    let log = header.log_offset..header.log_offset.saturating_add(header.log_length);
    for update in &replay.updates {
        let range = update.range();
        let in_log = range.start < log.end && log.start < range.end;
        // Headers are never logged; all the rest may be.
        let is_metadata = range.start >= spec::REGION_TABLE_AT[0]
            && range.end <= end
            && range.start.is_multiple_of(spec::log::SECTOR_BYTES)
            && range.end.is_multiple_of(spec::log::SECTOR_BYTES);
        if in_log || !is_metadata {
            let len = range.end.saturating_sub(range.start);
            return Err(wrong(CorruptKind::LogTarget { at: range.start, len }));
        }
    }
    Ok(Some(replay))
}

/// Replays into the file, and says in its headers that it is done.
pub(crate) fn replay_to(
    file: &dyn StorageWrite,
    replay: Option<&Replay>,
    headers: &mut Headers,
) -> Result<()> {
    let sync = || file.sync().map_err(Error::io("make writes durable", 0));
    if let Some(replay) = replay {
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        if len < replay.last_file_offset {
            file.set_len_bytes(replay.last_file_offset)
                .map_err(Error::io("make the file longer", len))?;
        }
        // What lies behind the old end is zeroes but for these sectors: a log may tell of more
        // zeroes there than anybody wants to wait for.
        let mut behind = BTreeSet::new();
        for update in &replay.updates {
            let range = update.range();
            let at = range.start;
            match update {
                Update::Zeroes { .. } => {
                    let known: Vec<u64> = behind.range(range.clone()).copied().collect();
                    for at in known {
                        behind.remove(&at);
                        zero(file, at..at.saturating_add(spec::log::SECTOR_BYTES))?;
                    }
                    zero(file, at..range.end.min(len))?;
                }
                Update::Data { sector, .. } => {
                    if range.end > len {
                        behind.insert(at);
                    }
                    file.write_all_at(&sector[..], at).map_err(Error::io("replay log", at))?;
                }
            }
        }
        sync()?;
    }
    let done = Header { log_guid: crate::header::Guid::ZERO, ..headers.current };
    let (at, bytes) = headers.advance(done);
    file.write_all_at(&bytes, at).map_err(Error::io("write header", at))?;
    sync()
}

fn zero(file: &dyn StorageWrite, range: Range<u64>) -> Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let at = range.start;
    file.write_zeroes_at(range, Zeroing::MayPunch).map_err(Error::io("replay log", at))
}

impl Update {
    fn range(&self) -> Range<u64> {
        match self {
            Self::Zeroes { at, len } => *at..at.saturating_add(*len),
            Self::Data { at, .. } => *at..at.saturating_add(spec::log::SECTOR_BYTES),
        }
    }
}

/// A file as it will be when its log has been replayed.
#[derive(Debug)]
pub(crate) struct ReplayedStorage {
    below: Arc<dyn Storage>,
    below_len: u64,
    len: u64,
    sectors: BTreeMap<u64, Box<Sector>>,
    /// Starts and ends, which do not touch each other. A sector counts where both are.
    zeroes: BTreeMap<u64, u64>,
}

impl ReplayedStorage {
    pub(crate) fn new(below: Arc<dyn Storage>, replay: Replay) -> Result<Self> {
        let below_len = below.len_bytes().map_err(Error::io("read file length", 0))?;
        let len = below_len.max(replay.last_file_offset);
        let mut replayed =
            Self { below, below_len, len, sectors: BTreeMap::new(), zeroes: BTreeMap::new() };
        for update in replay.updates {
            match update {
                Update::Data { at, sector } => {
                    replayed.sectors.insert(at, sector);
                }
                Update::Zeroes { at, len } => replayed.zero(at..at.saturating_add(len)),
            }
        }
        Ok(replayed)
    }

    fn zero(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((at, _)) = self.sectors.range(range.clone()).next() {
            let at = *at;
            self.sectors.remove(&at);
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((first, last)) = self.zeroes.range(..=end).next_back() {
            let (first, last) = (*first, *last);
            if last < start {
                break;
            }
            self.zeroes.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        self.zeroes.insert(start, end);
    }

    /// What is at `at`, and where that ends.
    fn part_at(&self, at: u64) -> (Part<'_>, u64) {
        let start = num::align_down(at, spec::log::SECTOR_BYTES);
        if let Some(sector) = self.sectors.get(&start) {
            return (Part::Sector { start, sector }, start.saturating_add(spec::log::SECTOR_BYTES));
        }
        let next = self.sectors.range(at..).next().map_or(self.len, |(next, _)| *next);
        let zeroes = self.zeroes.range(..=at).next_back();
        if let Some((_, end)) = zeroes.filter(|(_, end)| **end > at) {
            return (Part::Zeroes, (*end).min(next));
        }
        let next = self.zeroes.range(at..).next().map_or(next, |(start, _)| next.min(*start));
        if at < self.below_len {
            (Part::Below, next.min(self.below_len))
        } else {
            (Part::Zeroes, next)
        }
    }
}

enum Part<'a> {
    Below,
    Zeroes,
    Sector { start: u64, sector: &'a Sector },
}

impl Storage for ReplayedStorage {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(num::to_u64(buf.len()));
        let Some(end) = end.filter(|end| *end <= self.len) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let (mut at, mut rest) = (at, buf);
        while at < end {
            let (part, part_end) = self.part_at(at);
            let len = part_end.min(end).saturating_sub(at);
            let len = usize::try_from(len).map_err(io::Error::other)?.min(rest.len());
            let (piece, behind) = rest.split_at_mut(len);
            match part {
                Part::Below => self.below.read_exact_at(piece, at)?,
                Part::Zeroes => piece.fill(0),
                Part::Sector { start, sector } => {
                    let skip = usize::try_from(at.saturating_sub(start)).unwrap_or_default();
                    let bytes = sector.get(skip..).and_then(|bytes| bytes.get(..len));
                    piece.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
                }
            }
            at = at.saturating_add(num::to_u64(len));
            rest = behind;
        }
        Ok(())
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let (part, end) = self.part_at(at);
        let len = end.saturating_sub(at);
        match part {
            Part::Sector { .. } => Ok(StorageRun::data(len)),
            Part::Zeroes => Ok(StorageRun::hole(len)),
            Part::Below => {
                let run = self.below.run_at(at)?;
                Ok(StorageRun { len_bytes: run.len_bytes.min(len), ..run })
            }
        }
    }

    fn align_bytes(&self) -> u32 {
        self.below.align_bytes()
    }

    fn allocated_bytes(&self) -> io::Result<Option<u64>> {
        self.below.allocated_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_storage::MemoryStorage;

    #[test]
    fn the_last_update_of_a_byte_counts() {
        let mut model = vec![7; 40_960];
        let below: Arc<dyn Storage> = Arc::new(MemoryStorage::from(model.clone()));
        let data = |at: u64, byte| Update::Data { at, sector: Box::new([byte; 4096]) };
        let zeroes = |at, len| Update::Zeroes { at, len };
        let updates = vec![
            data(4096, 1),
            zeroes(0, 8192),
            data(8192, 2),
            zeroes(20_480, 4096),
            zeroes(12_288, 12_288),
            data(16_384, 3),
            data(53_248, 4),
        ];
        model.resize(65_536, 0);
        for update in &updates {
            let range = update.range();
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            model[range].fill(match update {
                Update::Data { sector, .. } => sector[0],
                Update::Zeroes { .. } => 0,
            });
        }
        let replay = Replay { updates, flushed_file_offset: 0, last_file_offset: 65_536 };
        let replayed = ReplayedStorage::new(below, replay).unwrap();
        let mut all = vec![0; 65_536];
        replayed.read_exact_at(&mut all, 0).unwrap();
        assert!(all == model);
        for at in (0..65_000).step_by(501) {
            let mut piece = [0; 536];
            replayed.read_exact_at(&mut piece, at).unwrap();
            let at = usize::try_from(at).unwrap();
            assert_eq!(piece[..], model[at..at + 536], "at {at}");
        }
        assert!(replayed.read_exact_at(&mut [0; 2], 65_535).is_err());
        let mut at = 0;
        while at < 65_536 {
            let run = replayed.run_at(at).unwrap();
            let range = usize::try_from(at).unwrap()..usize::try_from(at + run.len_bytes).unwrap();
            assert!(run.is_data || model[range.clone()].iter().all(|byte| *byte == 0), "{range:?}");
            at += run.len_bytes;
        }
        assert_eq!(at, 65_536);
    }
}
