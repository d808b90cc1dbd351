//! Stream-optimised extents: compressed grains one behind the other, with markers, and the tables
//! behind them.
//!
//! A new image is written front to back: header, descriptor, grains, each grain table when the
//! grains have gone past it, grain directory, footer, end of stream. It was created with its
//! tables in front, for programs that go on with it in place; who promises that nobody misses it
//! before it is complete writes it so from the beginning.
//!
//! An image that has grains already is only ever added to. While that goes on, the header names
//! the grain directory that is in force, so that it does not matter what the file ends with. When
//! all is written, the header says again that the directory is at the end. What was the end before
//! then becomes a table that nobody refers to, for those who read from front to back.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::sectors;
use crate::compress::GrainEncoder;
use crate::create::stream_header;
use crate::header::SparseHeader;
use crate::header::marker::{END_OF_STREAM, GrainMarker, Marker};
use crate::image::unsupported;
use crate::map::GrainMap;
use crate::spec::{SECTOR_BYTES, marker, sparse};
use core::ops::Range;
use rimg_blocks::Blocks;
use rimg_core::{EncodedCluster, Error, ExtentKind, Result, StorageWrite, num, zeroes};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many bytes of tables may wait in memory.
const DIRTY_BYTES: usize = 4 << 20;

/// An open stream-optimised extent.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Finds and reads grains; what changes is written from here.
    pub(crate) blocks: Blocks<GrainMap>,
    writable: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// As on disk, but for the place of the directory while the stream is added to.
    header: SparseHeader,
    phase: Phase,
    /// Where the next grain goes, in bytes.
    next: u64,
    /// Where the footer's marker is, when it is the end of the file.
    end: Option<u64>,
    /// Where markers of footers are that are the end no more.
    old_ends: Vec<u64>,
    /// The table of the grain that was written last.
    table: u64,
    /// Grains or tables are newer than what the directory on disk knows.
    is_dirty: bool,
    /// Nobody minds losing the whole image before the next flush.
    relaxed: bool,
}

/// What the header on disk says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// As it was when the image was opened.
    Untouched,
    /// That the directory is at the end, though the end is being written over.
    New,
    /// Where the directory is.
    Adding,
}

impl Stream {
    pub(crate) fn new(
        blocks: Blocks<GrainMap>,
        header: SparseHeader,
        writable: bool,
    ) -> Result<Self> {
        let len = blocks.file().len_bytes().map_err(Error::io("read file length", 0))?;
        // The room of the descriptor may be longer than what is there of it.
        let start = header.descriptor().map_or(0, |range| range.end);
        let footer = marker::FOOTER_SECTORS.saturating_mul(SECTOR_BYTES);
        let state = State {
            header,
            phase: Phase::Untouched,
            next: sectors(len.max(start)).saturating_mul(SECTOR_BYTES),
            end: header.is_footer.then(|| len.saturating_sub(footer)),
            old_ends: Vec::new(),
            table: 0,
            is_dirty: false,
            relaxed: false,
        };
        Ok(Self { blocks, writable, state: Mutex::new(state) })
    }

    pub(crate) const fn is_writable(&self) -> bool {
        self.writable
    }

    pub(crate) fn relax_until_flush(&self) {
        let mut state = self.lock();
        state.relaxed = true;
        // Where it fails, grains are added as to any other image.
        let _ = self.start_over(&mut state);
    }

    /// Makes an image that is as it was created one to be written from front to back.
    fn start_over(&self, state: &mut State) -> Result<()> {
        let old = state.header;
        let is_in_front = !old.is_footer && old.gd.is_some();
        if state.phase != Phase::Untouched || !is_in_front || !self.is_as_created(state)? {
            return Ok(());
        }
        let writer = self.writer()?;
        let header = stream_header(old.geometry, old.has_zeroed_grains())?;
        let len = header.overhead_bytes();
        write_header(writer, &header)?;
        if let Err(error) = writer.set_len_bytes(len) {
            write_header(writer, &old)?;
            return Err(Error::io("set file length", len)(error));
        }
        self.blocks.look(|map| map.start_over(header));
        state.header = header;
        state.phase = Phase::New;
        state.next = len;
        // Without any grain, what belongs to the end is still to come.
        state.is_dirty = true;
        Ok(())
    }

    /// Whether nothing was written since the image was created.
    fn is_as_created(&self, state: &State) -> Result<bool> {
        if state.next != state.header.overhead_bytes() {
            return Ok(false);
        }
        let size = self.blocks.look(|map| map.geometry.size_bytes);
        let mut at = 0;
        while at < size {
            let extent = self.blocks.extent_at(at..size)?;
            if !matches!(extent.kind, ExtentKind::Backing { .. }) {
                return Ok(false);
            }
            at = at.saturating_add(extent.len_bytes.max(1));
        }
        Ok(true)
    }

    /// Writes `buf` at `at`; grains that it covers in part keep the rest.
    pub(crate) fn write(&self, buf: &[u8], at: u64) -> Result<()> {
        let mut state = self.lock();
        let grain_bytes = num::to_usize(self.blocks.block_bytes())?;
        let mut grain = vec![0; grain_bytes];
        let mut encoder = GrainEncoder::new()?;
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let start = num::align_down(at, self.blocks.block_bytes());
            let ahead = num::to_usize(at.saturating_sub(start))?;
            let len = rest.len().min(grain_bytes.saturating_sub(ahead));
            let (piece, later) = rest.split_at(len);
            if len < grain_bytes {
                self.read_grain(&mut grain, start)?;
            }
            if let Some(place) = grain.get_mut(ahead..).and_then(|tail| tail.get_mut(..len)) {
                place.copy_from_slice(piece);
            }
            self.append(&mut state, &mut encoder, start, &grain)?;
            at = at.saturating_add(num::to_u64(len));
            rest = later;
        }
        self.flush_when_much_is_dirty(&mut state)
    }

    /// Adds grains that are zlib streams already.
    pub(crate) fn write_encoded(&self, clusters: &[EncodedCluster<'_>]) -> Result<()> {
        let mut state = self.lock();
        for cluster in clusters {
            self.append_encoded(&mut state, cluster.at, cluster.bytes)?;
        }
        self.flush_when_much_is_dirty(&mut state)
    }

    /// Makes `range` read as zeroes. Grains that have data get a new version, so that those who
    /// read from front to back see zeroes as well.
    pub(crate) fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let extent = self.blocks.extent_at(at..range.end)?;
            let below = self.blocks.below().map_or(0, |below| below.size_bytes());
            let is_zero = match extent.kind {
                ExtentKind::Zero { .. } => true,
                ExtentKind::Backing { .. } => below <= at,
                _ => false,
            };
            let grain_end = num::align_down(at, self.blocks.block_bytes())
                .saturating_add(self.blocks.block_bytes());
            let end = if is_zero { at.saturating_add(extent.len_bytes) } else { grain_end };
            let end = end.min(range.end);
            if !is_zero {
                let zeroes = vec![0; num::to_usize(end.saturating_sub(at))?];
                self.write(&zeroes, at)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Makes everything durable.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut state = self.lock();
        self.store(&mut state)?;
        state.relaxed = false;
        self.writer()?.sync().map_err(Error::io("make writes durable", 0))
    }

    /// As [`flush`](Self::flush), and leaves a stream as it should be.
    pub(crate) fn finish(&self) -> Result<()> {
        self.flush()?;
        let mut state = self.lock();
        if state.phase != Phase::Adding {
            return Ok(());
        }
        let writer = self.writer()?;
        // Footer and end of stream become a table.
        let table = Marker { value: 2, size: 0, kind: marker::GRAIN_TABLE }.encode();
        let (table, _) = table.split_at(16);
        for at in std::mem::take(&mut state.old_ends) {
            writer.write_all_at(table, at).map_err(Error::io("write marker", at))?;
        }
        let sync = || writer.sync().map_err(Error::io("make writes durable", 0));
        sync()?;
        let mut header = state.header;
        header.raw.gd_offset = sparse::GD_AT_END;
        write_header(writer, &header)?;
        sync()?;
        state.phase = Phase::Untouched;
        Ok(())
    }

    /// Makes the disk `size_bytes` long.
    pub(crate) fn resize(&self, size_bytes: u64) -> Result<()> {
        let mut state = self.lock();
        self.begin(&mut state)?;
        let size_bytes = sectors(size_bytes).saturating_mul(SECTOR_BYTES);
        let old = self.blocks.look(|map| map.geometry.size_bytes);
        let below = self.blocks.below().map_or(0, |below| below.size_bytes());
        if size_bytes > old && below > old {
            return Err(unsupported("growing a compressed image over a parent that is longer"));
        }
        if size_bytes > old && !old.is_multiple_of(self.blocks.block_bytes()) {
            // What the last grain has behind the end is to be zeroes.
            let start = num::align_down(old, self.blocks.block_bytes());
            if matches!(self.blocks.extent_at(start..old)?.kind, ExtentKind::Encoded { .. }) {
                let mut grain = vec![0; num::to_usize(self.blocks.block_bytes())?];
                self.read_grain(&mut grain, start)?;
                self.append(&mut state, &mut GrainEncoder::new()?, start, &grain)?;
            }
        }
        // Readers learn of the size by this way only.
        let geometry = self.blocks.alone(|map| map.set_stream_size(size_bytes))?;
        state.header.geometry = geometry;
        state.header.raw.capacity = size_bytes / SECTOR_BYTES;
        state.is_dirty = true;
        drop(state);
        self.flush()
    }

    /// The whole grain that starts at `at`, as the guest sees it; zeroes behind the end.
    fn read_grain(&self, grain: &mut [u8], at: u64) -> Result<()> {
        let size = self.blocks.look(|map| map.geometry.size_bytes);
        let there = num::to_usize(size.saturating_sub(at).min(num::to_u64(grain.len())))?;
        let (inside, behind) = grain.split_at_mut(there);
        behind.fill(0);
        if inside.is_empty() { Ok(()) } else { self.blocks.read_at(inside, at) }
    }

    fn append(
        &self,
        state: &mut State,
        encoder: &mut GrainEncoder,
        at: u64,
        grain: &[u8],
    ) -> Result<()> {
        if zeroes::is_zero(grain) && self.is_unallocated(at)? {
            return Ok(());
        }
        let mut encoded = Vec::new();
        encoder.encode(grain, &mut encoded);
        self.append_encoded(state, at, &encoded)
    }

    /// Whether a grain has nothing, here or below.
    fn is_unallocated(&self, at: u64) -> Result<bool> {
        let below = self.blocks.below().map_or(0, |below| below.size_bytes());
        let kind = self.blocks.extent_at(at..at.saturating_add(1))?.kind;
        Ok(matches!(kind, ExtentKind::Backing { .. }) && below <= at)
    }

    fn append_encoded(&self, state: &mut State, at: u64, encoded: &[u8]) -> Result<()> {
        self.begin(state)?;
        let (grain, table) = self.blocks.look(|map| {
            let grain = map.geometry.grain_index(at);
            (grain, map.geometry.table_of(grain))
        });
        if state.phase == Phase::New && state.table != table {
            // Those who write in order are done with the table.
            self.store_tables(state)?;
        }
        state.table = table;
        let size = u32::try_from(encoded.len()).map_err(|_| Error::Misuse("grain too long"))?;
        let marker = GrainMarker { sector: at / SECTOR_BYTES, size };
        let mut bytes = Vec::with_capacity(encoded.len().saturating_add(1024));
        bytes.extend(marker.encode());
        bytes.extend_from_slice(encoded);
        pad(&mut bytes);
        let host = state.next;
        let sector = sector_of(host)?;
        self.write_next(state, &bytes)?;
        state.is_dirty = true;
        self.blocks.look(|map| map.set_stream_grain(grain, sector, state.next))
    }

    /// Before the first change.
    fn begin(&self, state: &mut State) -> Result<()> {
        let writer = self.writer()?;
        if state.phase == Phase::Untouched {
            let is_empty = self.blocks.look(|map| map.cannot_have_grains());
            if state.relaxed && is_empty && state.end.is_some() {
                state.phase = Phase::New;
                state.next = state.header.overhead_bytes();
                state.end = None;
                return Ok(());
            }
            write_header(writer, &state.header)?;
            writer.sync().map_err(Error::io("make writes durable", 0))?;
            state.phase = Phase::Adding;
        }
        if state.phase == Phase::Adding {
            // What comes next goes behind it.
            let end = state.end.take();
            state.old_ends.extend(end);
        }
        Ok(())
    }

    fn flush_when_much_is_dirty(&self, state: &mut State) -> Result<()> {
        let table_bytes = self.blocks.look(|map| map.table_bytes());
        let dirty = self.blocks.look(|map| map.cache.dirty_bytes(table_bytes));
        if dirty < DIRTY_BYTES {
            return Ok(());
        }
        if state.phase == Phase::New { self.store_tables(state) } else { self.store(state) }
    }

    /// Writes the tables that changed, behind everything.
    fn store_tables(&self, state: &mut State) -> Result<()> {
        let mut next = state.next;
        let bytes = self.blocks.look(|map| {
            let mut bytes = Vec::new();
            for number in map.cache.take_dirty() {
                let table = map.cache.get(number).unwrap_or_default().to_vec();
                bytes.extend(Marker::of_metadata(marker::GRAIN_TABLE, to_u64(&table)).encode());
                let place = next.saturating_add(to_u64(&bytes));
                bytes.extend(table);
                pad(&mut bytes);
                map.set_stream_table(number, place)?;
            }
            next = next.saturating_add(to_u64(&bytes));
            map.file_len = map.file_len.max(next);
            Ok::<_, Error>(bytes)
        })?;
        let written = self.write_next(state, &bytes);
        if written.is_err() {
            self.blocks.look(|map| map.cache.taken_again());
        }
        written
    }

    /// Brings what the disk does not know to it: tables, directory, footer, end of stream.
    fn store(&self, state: &mut State) -> Result<()> {
        if !state.is_dirty {
            return Ok(());
        }
        let writer = self.writer()?;
        let sync = |state: &State| match state.relaxed {
            true => Ok(()),
            false => writer.sync().map_err(Error::io("make writes durable", 0)),
        };
        sync(state)?;
        self.store_tables(state)?;
        let directory = self.blocks.look(|map| map.stream_directory())?;
        let gd = state.next.saturating_add(SECTOR_BYTES);
        let mut header = state.header;
        header.gd = Some(gd);
        header.raw.gd_offset = sector_of(gd)?.into();
        // There is one directory from now on.
        header.rgd = None;
        header.raw.rgd_offset = 0;
        header.raw.flags &= !sparse::flag::REDUNDANT_TABLES;
        let end = gd.saturating_add(to_u64(&directory));
        let tail = tail(&directory, &header);
        self.write_next(state, &tail)?;
        writer.set_len_bytes(state.next).map_err(Error::io("set file length", state.next))?;
        if state.phase == Phase::Adding {
            sync(state)?;
            write_header(writer, &header)?;
            sync(state)?;
            state.end = Some(end);
        } else {
            state.phase = Phase::Untouched;
            state.end = Some(end);
        }
        self.blocks.look(|map| map.redundant.clear());
        state.header = header;
        state.is_dirty = false;
        Ok(())
    }

    fn write_next(&self, state: &mut State, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let at = state.next;
        self.writer()?.write_all_at(bytes, at).map_err(Error::io("write grain", at))?;
        state.next = at.saturating_add(to_u64(bytes));
        Ok(())
    }

    fn writer(&self) -> Result<&dyn StorageWrite> {
        let writer = self.blocks.file().writer().filter(|_| self.writable);
        writer.ok_or(Error::ReadOnly("its extent was opened for reading"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a stream ends with: the directory, the footer and the end of the stream.
fn tail(directory: &[u8], footer: &SparseHeader) -> Vec<u8> {
    let mut tail = Vec::new();
    tail.extend(Marker::of_metadata(marker::GRAIN_DIRECTORY, to_u64(directory)).encode());
    tail.extend_from_slice(directory);
    tail.extend(Marker::of_metadata(marker::FOOTER, SECTOR_BYTES).encode());
    tail.extend(footer.raw.encode());
    tail.extend(END_OF_STREAM.encode());
    tail
}

fn write_header(file: &dyn StorageWrite, header: &SparseHeader) -> Result<()> {
    file.write_all_at(&header.raw.encode(), 0).map_err(Error::io("write header", 0))
}

/// Fills up to whole sectors.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

fn to_u64(bytes: &[u8]) -> u64 {
    num::to_u64(bytes.len())
}

fn sector_of(host: u64) -> Result<u32> {
    u32::try_from(host / SECTOR_BYTES)
        .map_err(|_| unsupported("a stream-optimised extent of more than 2 TiB"))
}
