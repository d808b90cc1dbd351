//! A format as small as can be, for tests of the engine alone: a header, a table, blocks.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_blocks::{BlockMap, Blocks, Change, Freed, Place, SectorCipher, Setup, Stage, Zeroed};
use rimg_core::{
    BlockImage, Check, CheckSummary, Dependency, DependencyRole, Error, Extent, ExtentKind,
    FileOffset, Finding, FindingKind, FormatDriver, FormatInfo, HostOffset, ImageInfo, ImageWrite,
    Match, OpenOptions, Preallocation, ProbeWindow, RawOptions, Repair, Resize, Result, Storage,
    TargetFiles,
};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

pub(crate) static DRIVERS: &[&dyn FormatDriver] = &[&ToyDriver];

const HEADER_BYTES: u64 = 512;
const PAGE_BYTES: u64 = 512;
const IN_USE: u64 = 1;
const BELOW: u64 = 2;
const ENCRYPTED: u64 = 4;
/// An entry that says zeroes; 0 says nothing, anything else is an offset.
const ZERO: u64 = 1;

#[derive(Debug)]
pub(crate) struct ToyDriver;

impl FormatDriver for ToyDriver {
    fn format(&self) -> &'static FormatInfo {
        static INFO: FormatInfo = FormatInfo {
            name: "toy",
            description: "for tests",
            create_options: &[],
            amend_options: &[],
            writable: true,
            backing: true,
            compresses: false,
            extra_options: &[],
        };
        &INFO
    }

    fn probe(&self, _: &ProbeWindow<'_>) -> Match {
        Match::No
    }

    fn open(&self, file: Arc<dyn Storage>, how: &OpenOptions<'_>) -> Result<Box<dyn BlockImage>> {
        let header = read(file.as_ref(), 0, HEADER_BYTES);
        let words: Vec<u64> = words(&header);
        let (size, block_bytes, flags) = (words[1], words[2], words[3]);
        let entries = size.div_ceil(block_bytes);
        let table = super::common::words(&read(file.as_ref(), HEADER_BYTES, entries * 8));
        let below = if flags & BELOW != 0 {
            let wanted = Dependency {
                role: DependencyRole::Backing,
                name: "base",
                format: None,
                writable: false,
            };
            how.gate.open_image(&wanted)?
        } else {
            None
        };
        let end = file.len_bytes().unwrap().max(data_start(entries)).next_multiple_of(512);
        let map = ToyMap {
            size,
            block_bytes,
            flags: flags & !IN_USE,
            has_below: below.is_some(),
            table,
            end,
            ..ToyMap::default()
        };
        let cipher = (flags & ENCRYPTED != 0).then(|| -> Box<dyn SectorCipher> { Box::new(Xor) });
        let setup =
            Setup { file, below: below.into(), map, block_bytes, cipher, writable: how.writable };
        Ok(Box::new(ToyImage { blocks: Blocks::new(setup)? }))
    }

    fn create(&self, target: &dyn TargetFiles, size: u64, options: &RawOptions) -> Result<()> {
        let block_bytes = options.value("block_size").map_or(4096, |text| text.parse().unwrap());
        let below = if options.value("backing_file").is_some() { BELOW } else { 0 };
        let encrypted = if options.value("encrypted").is_some() { ENCRYPTED } else { 0 };
        let map = ToyMap { size, block_bytes, flags: below | encrypted, ..ToyMap::default() };
        let mut bytes = map.header(false);
        bytes.resize(usize::try_from(data_start(size.div_ceil(block_bytes))).unwrap(), 0);
        target.main().writer().unwrap().write_all_at(&bytes, 0).map_err(Error::io("write", 0))
    }
}

#[derive(Debug)]
pub(crate) struct ToyImage {
    blocks: Blocks<ToyMap>,
}

impl BlockImage for ToyImage {
    fn size_bytes(&self) -> u64 {
        self.blocks.size_bytes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.blocks.read_at(buf, at)
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        self.blocks.extent_at(range)
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo::default())
    }

    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>> {
        (index == 0).then_some(self.blocks.file())
    }

    fn backing(&self) -> Option<&Arc<dyn BlockImage>> {
        self.blocks.below()
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.blocks.is_writable().then_some(&self.blocks)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.blocks.is_writable().then_some(self)
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.blocks.finish()
    }
}

impl Resize for ToyImage {
    fn resize(&self, size_bytes: u64, _: Preallocation) -> Result<()> {
        self.blocks.resize(size_bytes)
    }
}

impl Check for ToyImage {
    fn check(&self, _: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        let len = self.blocks.file().len_bytes().unwrap();
        self.blocks.alone(|map| {
            let mut summary = CheckSummary::default();
            let mut used = BTreeSet::new();
            for entry in map.table.iter().copied().filter(|entry| *entry > ZERO) {
                let inside = entry >= data_start(map.entries())
                    && entry + map.block_bytes <= len
                    && entry % 512 == 0;
                let clash = used.range(..entry + map.block_bytes).next_back();
                let clash = clash.is_some_and(|other| other + map.block_bytes > entry);
                if !inside || clash {
                    summary.corruptions += 1;
                    let message = format!("block at {entry:#x}, file of {len:#x}");
                    found(&Finding {
                        kind: FindingKind::Corruption,
                        message,
                        repaired: false,
                        wordless_in_qemu: false,
                    });
                }
                used.insert(entry);
            }
            Ok(summary)
        })
    }
}

/// Every byte is turned over: zeroes in the file are not zeroes on the disk.
#[derive(Debug)]
struct Xor;

impl SectorCipher for Xor {
    fn sector_bytes(&self) -> u32 {
        512
    }

    fn encrypt(&self, sectors: &mut [u8], at: u64) {
        assert!(sectors.len().is_multiple_of(512) && at.is_multiple_of(512), "no whole sectors");
        for (number, sector) in (at / 512..).zip(sectors.chunks_mut(512)) {
            let key = 0xA5 ^ number.to_le_bytes()[0];
            sector.iter_mut().for_each(|byte| *byte ^= key);
        }
    }

    fn decrypt(&self, sectors: &mut [u8], at: u64) {
        self.encrypt(sectors, at);
    }
}

#[derive(Debug, Default)]
pub(crate) struct ToyMap {
    size: u64,
    block_bytes: u64,
    flags: u64,
    has_below: bool,
    table: Vec<u64>,
    end: u64,
    /// Where blocks may lie at the earliest once the table has grown.
    keep_free_until: u64,
    free: BTreeSet<u64>,
    dirty_pages: BTreeSet<u64>,
    dirty_header: bool,
    taken_pages: BTreeSet<u64>,
    taken_header: bool,
}

impl ToyMap {
    fn entries(&self) -> u64 {
        self.size.div_ceil(self.block_bytes)
    }

    fn set(&mut self, block: u64, entry: u64) -> Option<Freed> {
        let slot = &mut self.table[usize::try_from(block).unwrap()];
        let old = std::mem::replace(slot, entry);
        self.dirty_pages.insert(block * 8 / PAGE_BYTES);
        (old > ZERO && old != entry).then_some(Freed { host: old, len_bytes: self.block_bytes })
    }

    fn header(&self, in_use: bool) -> Vec<u8> {
        let flags = self.flags | if in_use { IN_USE } else { 0 };
        let mut bytes = b"TOYS\0\0\0\0".to_vec();
        for word in [self.size, self.block_bytes, flags] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(512, 0);
        bytes
    }

    fn page(&self, page: u64) -> Change {
        let first = usize::try_from(page * PAGE_BYTES / 8).unwrap();
        let entries = self.table.iter().skip(first).take(64);
        let bytes = entries.flat_map(|entry| entry.to_le_bytes()).collect();
        Change::Write { at: HEADER_BYTES + page * PAGE_BYTES, bytes }
    }
}

impl BlockMap for ToyMap {
    fn size_bytes(&self) -> u64 {
        self.size
    }

    fn extent(&mut self, range: Range<u64>) -> Result<Extent> {
        let block = range.start / self.block_bytes;
        let within = range.start % self.block_bytes;
        let kind = match self.table[usize::try_from(block).unwrap()] {
            0 => ExtentKind::Backing { allocation: None },
            ZERO => ExtentKind::Zero { allocation: None },
            host => ExtentKind::Data(FileOffset { file: 0, host: HostOffset(host + within) }),
        };
        let len = (self.block_bytes - within).min(range.end - range.start);
        Ok(Extent { len_bytes: len, kind })
    }

    fn place(&mut self, _: u64) -> Result<Place> {
        let free = self.free.iter().copied().find(|host| *host >= self.keep_free_until);
        if let Some(host) = free {
            self.free.remove(&host);
            return Ok(Place { host, is_zeroed: false });
        }
        let host = self.end.max(self.keep_free_until);
        self.end = host + self.block_bytes;
        Ok(Place { host, is_zeroed: true })
    }

    fn unplace(&mut self, _: u64, place: Place) {
        self.free.insert(place.host);
    }

    fn set_data(&mut self, block: u64, place: Place) -> Result<Option<Freed>> {
        Ok(self.set(block, place.host))
    }

    fn set_zero(&mut self, block: u64) -> Result<Zeroed> {
        let entry = if self.has_below { ZERO } else { 0 };
        Ok(Zeroed::Done(self.set(block, entry)))
    }

    fn set_size_bytes(&mut self, size_bytes: u64) -> Result<Vec<Freed>> {
        let entries = usize::try_from(size_bytes.div_ceil(self.block_bytes)).unwrap();
        let block_bytes = self.block_bytes;
        let gone = self.table.iter().skip(entries).filter(|entry| **entry > ZERO);
        let freed = gone.map(|host| Freed { host: *host, len_bytes: block_bytes }).collect();
        for block in self.table.len()..entries {
            self.dirty_pages.insert(u64::try_from(block).unwrap() * 8 / PAGE_BYTES);
        }
        self.table.resize(entries, 0);
        self.size = size_bytes;
        self.dirty_header = true;
        self.keep_free_until = self.keep_free_until.max(data_start(self.entries()));
        Ok(freed)
    }

    fn in_the_way(&mut self, size_bytes: u64) -> Result<Vec<u64>> {
        let start = data_start(size_bytes.div_ceil(self.block_bytes));
        self.keep_free_until = self.keep_free_until.max(start);
        let low = |(_, entry): &(u64, u64)| *entry > ZERO && *entry < start;
        Ok((0..).zip(self.table.iter().copied()).filter(low).map(|(block, _)| block).collect())
    }

    fn before_changes(&mut self) -> Result<Vec<Stage>> {
        Ok(vec![vec![Change::Write { at: 0, bytes: self.header(true) }]])
    }

    fn take_dirty(&mut self, closing: bool) -> Result<Vec<Stage>> {
        let pages = std::mem::take(&mut self.dirty_pages);
        let header = std::mem::take(&mut self.dirty_header);
        let mut stages = vec![pages.iter().map(|page| self.page(*page)).collect()];
        let write_header = |in_use| vec![Change::Write { at: 0, bytes: self.header(in_use) }];
        if header {
            stages.push(write_header(true));
        }
        if closing {
            stages.push(write_header(false));
        }
        (self.taken_pages, self.taken_header) = (pages, header);
        Ok(stages)
    }

    fn write_failed(&mut self) {
        self.dirty_pages.append(&mut self.taken_pages);
        self.dirty_header |= self.taken_header;
    }

    fn reuse(&mut self, freed: Freed) {
        self.free.insert(freed.host);
    }

    fn dirty_bytes(&self) -> usize {
        self.dirty_pages.len() * 512 + usize::from(self.dirty_header) * 512
    }
}

fn data_start(entries: u64) -> u64 {
    (HEADER_BYTES + entries * 8).next_multiple_of(512)
}

fn read(file: &dyn Storage, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}
