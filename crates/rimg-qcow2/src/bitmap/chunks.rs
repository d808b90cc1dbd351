//! The bits of one bitmap in memory, a cluster of them at a time.
//!
//! Clusters are read when somebody asks for a bit of them, and kept while memory is to be had.
//! Where it is not, a cluster of bits becomes all ones: such a bitmap says that more was written
//! than was, never less.

use crate::bitmap::bits;
use crate::bitmap::table::TableEntry;
use crate::cache::read_padded;
use core::ops::Range;
use rimg_core::{Error, MetadataBudget, Result, Storage, num};
use std::borrow::Cow;

/// The bits of a bitmap.
#[derive(Debug)]
pub(crate) struct Chunks {
    granularity_bits: u32,
    cluster_bytes: u64,
    disk_bytes: u64,
    chunks: Vec<Chunk>,
}

#[derive(Debug, Default)]
struct Chunk {
    /// What the table on disk says.
    stored: TableEntry,
    now: Now,
    /// Whether memory says something else than the disk.
    is_changed: bool,
}

/// What the bits are.
#[derive(Debug, Default)]
enum Now {
    /// What the cluster on disk holds.
    Unread,
    #[default]
    Zeroes,
    Ones,
    /// A cluster of bits; those behind the end of the disk are 0.
    Bits(Box<[u8]>),
}

/// What is to be stored of a changed chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Zeroes,
    Ones,
    Bytes(&'a [u8]),
}

/// Where bits come from, and the memory that they may take.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a dyn Storage,
    pub(crate) budget: &'a mut MetadataBudget,
}

/// How many clusters the bits take that a disk of `disk_bytes` needs.
pub(crate) const fn clusters_for(
    disk_bytes: u64,
    granularity_bits: u32,
    cluster_bytes: u64,
) -> u64 {
    disk_bytes.div_ceil(1 << granularity_bits).div_ceil(8).div_ceil(cluster_bytes)
}

impl Chunks {
    /// The bits that `table` on disk leads to; as many entries as the disk needs.
    pub(crate) fn stored(
        granularity_bits: u32,
        cluster_bytes: u64,
        disk_bytes: u64,
        table: impl Iterator<Item = TableEntry>,
    ) -> Self {
        let chunk = |stored| {
            let now = match stored {
                TableEntry::Zeroes => Now::Zeroes,
                TableEntry::Ones => Now::Ones,
                TableEntry::Cluster(_) => Now::Unread,
            };
            Chunk { stored, now, is_changed: false }
        };
        Self { granularity_bits, cluster_bytes, disk_bytes, chunks: table.map(chunk).collect() }
    }

    /// What a chunk takes in memory without its bits, in bytes.
    pub(crate) const CHUNK_BYTES: u64 = num::to_u64(size_of::<Chunk>());

    /// The size of the disk that the bits are for.
    pub(crate) const fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// The table as it is on disk.
    pub(crate) fn stored_table(&self) -> impl Iterator<Item = TableEntry> + '_ {
        self.chunks.iter().map(|chunk| chunk.stored)
    }

    /// Whether all bits of a range of the disk are set.
    pub(crate) fn covers(&mut self, disk: &Range<u64>, source: &mut Source<'_>) -> Result<bool> {
        Ok(self.find(self.bits_of(disk), false, source)?.is_none())
    }

    /// Sets the bits of a range of the disk.
    pub(crate) fn set(&mut self, disk: &Range<u64>, source: &mut Source<'_>) -> Result<()> {
        let range = self.bits_of(disk);
        let end = self.bits();
        let mut at = range.start;
        while at < range.end {
            let (index, chunk) = self.chunk_of(at)?;
            let stop = range.end.min(chunk.end);
            let is_whole = at == chunk.start && (stop == chunk.end || stop == end);
            self.set_in_chunk(index, local(&(at..stop), &chunk), is_whole, source)?;
            at = stop;
        }
        Ok(())
    }

    /// Resets every bit.
    pub(crate) fn clear(&mut self) {
        for chunk in &mut self.chunks {
            chunk.now = Now::Zeroes;
            chunk.is_changed = chunk.stored != TableEntry::Zeroes;
        }
    }

    /// The first run of set bits in a range of the disk, cut to that range.
    pub(crate) fn next_run(
        &mut self,
        disk: &Range<u64>,
        source: &mut Source<'_>,
    ) -> Result<Option<Range<u64>>> {
        let range = self.bits_of(disk);
        let Some(first) = self.find(range.clone(), true, source)? else { return Ok(None) };
        let last = self.find(first..range.end, false, source)?.unwrap_or(range.end);
        let start = (first << self.granularity_bits).max(disk.start);
        let end = last.saturating_mul(1 << self.granularity_bits).min(disk.end);
        Ok(Some(start..end))
    }

    /// Fits the bits to another size of the disk. Returns the clusters that are not needed any
    /// more. New bits are 0.
    pub(crate) fn resize(
        &mut self,
        disk_bytes: u64,
        source: &mut Source<'_>,
    ) -> Result<Vec<TableEntry>> {
        let clusters = clusters_for(disk_bytes, self.granularity_bits, self.cluster_bytes);
        let old_bits = self.bits();
        let new_bits = disk_bytes.div_ceil(1 << self.granularity_bits);
        // The bits behind the new end, or those behind the old one, are the same chunk's.
        let cut = old_bits.min(new_bits);
        if cut < old_bits.max(new_bits) && !cut.is_multiple_of(self.chunk_bits()) {
            self.cut(cut, source)?;
        }
        self.disk_bytes = disk_bytes;
        let wanted = num::to_usize(clusters)?;
        let more = clusters.saturating_sub(num::to_u64(self.chunks.len()));
        source.budget.reserve("bitmap", more.saturating_mul(Self::CHUNK_BYTES))?;
        let dropped = self.chunks.get(wanted..).unwrap_or_default();
        let dropped = dropped.iter().map(|chunk| chunk.stored).collect();
        self.chunks.resize_with(wanted, Chunk::default);
        Ok(dropped)
    }

    /// The chunks that the disk does not have as they are, with their indices.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (usize, Content<'_>)> {
        let end = self.bits();
        let changed = self.chunks.iter().enumerate().filter(|(_, chunk)| chunk.is_changed);
        changed.map(move |(index, chunk)| {
            let content = match &chunk.now {
                Now::Zeroes | Now::Unread => Content::Zeroes,
                Now::Ones => Content::Ones,
                Now::Bits(bytes) => {
                    let start = num::to_u64(index).saturating_mul(self.chunk_bits());
                    let bits = 0..self.chunk_bits().min(end.saturating_sub(start));
                    match (bits::find(bytes, bits.clone(), true), bits::find(bytes, bits, false)) {
                        (Ok(None), _) => Content::Zeroes,
                        (_, Ok(None)) => Content::Ones,
                        _ => Content::Bytes(bytes),
                    }
                }
            };
            (index, content)
        })
    }

    /// Whether the disk has something else than memory.
    pub(crate) fn has_changes(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.is_changed)
    }

    /// The bits of a chunk that did not change, which the disk has at `at`.
    pub(crate) fn read_stored(&self, file: &dyn Storage, index: usize, at: u64) -> Result<Vec<u8>> {
        read_bits(file, at, self.cluster_bytes, self.valid_bits(index))
    }

    /// Notes that the table on disk has `entry` for a changed chunk. Returns what it had before.
    pub(crate) fn settle(&mut self, index: usize, entry: TableEntry) -> TableEntry {
        let Some(chunk) = self.chunks.get_mut(index) else { return TableEntry::Zeroes };
        chunk.is_changed = false;
        core::mem::replace(&mut chunk.stored, entry)
    }

    /// How many bits there are.
    fn bits(&self) -> u64 {
        self.disk_bytes.div_ceil(1 << self.granularity_bits)
    }

    fn chunk_bits(&self) -> u64 {
        self.cluster_bytes.saturating_mul(8)
    }

    /// The bits that a range of the disk touches.
    fn bits_of(&self, disk: &Range<u64>) -> Range<u64> {
        let start = disk.start >> self.granularity_bits;
        let end = disk.end.div_ceil(1 << self.granularity_bits).min(self.bits());
        if disk.is_empty() { start..start } else { start..end }
    }

    /// The chunk of a bit: its index, and the bits that it has room for.
    fn chunk_of(&self, bit: u64) -> Result<(usize, Range<u64>)> {
        let start = num::align_down(bit, self.chunk_bits());
        let index = num::to_usize(start.checked_div(self.chunk_bits()).unwrap_or(0))?;
        Ok((index, start..start.saturating_add(self.chunk_bits())))
    }

    fn chunk(&mut self, index: usize) -> Result<&mut Chunk> {
        self.chunks.get_mut(index).ok_or(Error::Misuse("a bit behind the end of its bitmap"))
    }

    /// The first bit of `range` that is 1, or 0 if not `wanted`.
    fn find(
        &mut self,
        range: Range<u64>,
        wanted: bool,
        source: &mut Source<'_>,
    ) -> Result<Option<u64>> {
        let mut at = range.start;
        while at < range.end {
            let (index, place) = self.chunk_of(at)?;
            let stop = range.end.min(place.end);
            let local = local(&(at..stop), &place);
            let found = match self.view(index, source)? {
                View::All(value) => (value == wanted).then_some(local.start),
                View::Bits(bytes) => bits::find(&bytes, local, wanted)?,
            };
            if let Some(found) = found {
                return Ok(Some(place.start.saturating_add(found)));
            }
            at = stop;
        }
        Ok(None)
    }

    fn view(&mut self, index: usize, source: &mut Source<'_>) -> Result<View<'_>> {
        let valid = self.valid_bits(index);
        let cluster_bytes = self.cluster_bytes;
        let chunk = self.chunk(index)?;
        if let (Now::Unread, TableEntry::Cluster(at)) = (&chunk.now, chunk.stored) {
            let bytes = read_bits(source.file, at, cluster_bytes, valid)?;
            if source.budget.reserve("bitmap", cluster_bytes).is_err() {
                return Ok(View::Bits(Cow::Owned(bytes)));
            }
            chunk.now = Now::Bits(bytes.into_boxed_slice());
        }
        Ok(match &chunk.now {
            Now::Zeroes | Now::Unread => View::All(false),
            Now::Ones => View::All(true),
            Now::Bits(bytes) => View::Bits(Cow::Borrowed(bytes)),
        })
    }

    /// Sets bits of one chunk.
    fn set_in_chunk(
        &mut self,
        index: usize,
        local: Range<u64>,
        is_whole: bool,
        source: &mut Source<'_>,
    ) -> Result<()> {
        let valid = self.valid_bits(index);
        let cluster_bytes = self.cluster_bytes;
        let chunk = self.chunk(index)?;
        if is_whole {
            chunk.fill_up();
            return Ok(());
        }
        match (&mut chunk.now, chunk.stored) {
            (Now::Ones, _) => return Ok(()),
            (Now::Bits(bytes), _) => {
                if bits::find(bytes, local.clone(), false)?.is_some() {
                    bits::set(bytes, local)?;
                    chunk.is_changed = true;
                }
                return Ok(());
            }
            (Now::Zeroes | Now::Unread, _) => {}
        }
        if source.budget.reserve("bitmap", cluster_bytes).is_err() {
            chunk.fill_up();
            return Ok(());
        }
        let mut bytes = match (&chunk.now, chunk.stored) {
            (Now::Unread, TableEntry::Cluster(at)) => {
                read_bits(source.file, at, cluster_bytes, valid)?
            }
            _ => vec![0; num::to_usize(cluster_bytes)?],
        };
        if bits::find(&bytes, local.clone(), false)?.is_some() {
            bits::set(&mut bytes, local)?;
            chunk.is_changed = true;
        }
        chunk.now = Now::Bits(bytes.into_boxed_slice());
        Ok(())
    }

    /// Resets the bits from `bit` on to the end of its chunk.
    fn cut(&mut self, bit: u64, source: &mut Source<'_>) -> Result<()> {
        let (index, place) = self.chunk_of(bit)?;
        let valid = self.valid_bits(index);
        let first = bit.saturating_sub(place.start);
        let room = self.chunk_bits();
        let cluster_bytes = self.cluster_bytes;
        let chunk = self.chunk(index)?;
        let mut bytes = match (core::mem::take(&mut chunk.now), chunk.stored) {
            (Now::Zeroes, _) => return Ok(()),
            (Now::Unread, TableEntry::Cluster(at)) => {
                read_bits(source.file, at, cluster_bytes, valid)?
            }
            (Now::Unread, _) => return Ok(()),
            (Now::Ones, _) => vec![u8::MAX; num::to_usize(cluster_bytes)?],
            (Now::Bits(bytes), _) => bytes.into_vec(),
        };
        bits::reset(&mut bytes, first..room)?;
        chunk.now = Now::Bits(bytes.into_boxed_slice());
        chunk.is_changed = true;
        Ok(())
    }

    /// How many bits of a chunk lie before the end of the disk.
    fn valid_bits(&self, index: usize) -> u64 {
        let start = num::to_u64(index).saturating_mul(self.chunk_bits());
        self.bits().saturating_sub(start).min(self.chunk_bits())
    }
}

impl Chunk {
    fn fill_up(&mut self) {
        self.is_changed |= !matches!(self.now, Now::Ones);
        self.now = Now::Ones;
    }
}

/// The bits of a chunk, to look at.
enum View<'a> {
    All(bool),
    Bits(Cow<'a, [u8]>),
}

/// `bits` counted from the start of their chunk.
fn local(bits: &Range<u64>, chunk: &Range<u64>) -> Range<u64> {
    bits.start.saturating_sub(chunk.start)..bits.end.saturating_sub(chunk.start)
}

/// Reads a cluster of bits of which the first `valid` count.
fn read_bits(file: &dyn Storage, at: u64, cluster_bytes: u64, valid: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; num::to_usize(cluster_bytes)?];
    read_padded(file, &mut bytes, at).map_err(Error::io("read bitmap", at))?;
    bits::reset(&mut bytes, valid..cluster_bytes.saturating_mul(8))?;
    Ok(bytes)
}
