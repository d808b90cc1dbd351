//! Reads L2 tables, each once, neighbours together, and not without end.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::cache::read_padded;
use crate::map::entry_at;
use crate::spec;
use crate::table::L2Entry;
use core::ops::Range;
use rimg_core::{Error, MetadataBudget, Result, Storage, StorageWrite, num};

/// So much is read at once where tables lie side by side, in bytes.
const BATCH_BYTES: u64 = 1 << 20;

/// So many bytes of tables are looked at beyond what the file can hold of them.
const SPARE_BYTES: u64 = 1 << 30;

/// A file with holes may be so many times as long as the space that it takes.
const MOST_SPARSE: u64 = 16;

/// What a whole check may read of L1 and L2 tables, in bytes. Each table that is there is read two
/// or three times; tables that are referred to again and again would take for ever.
#[derive(Debug)]
pub(super) struct Work {
    left: u64,
}

impl Work {
    pub(super) fn for_file(file: &dyn Storage, file_len: u64) -> Result<Self> {
        let space = file.allocated_bytes().map_err(Error::io("read allocated size", 0))?;
        let real = space.unwrap_or(file_len).saturating_mul(MOST_SPARSE).min(file_len);
        Ok(Self { left: real.saturating_mul(4).saturating_add(SPARE_BYTES) })
    }

    /// Whether `bytes` more may be read.
    pub(super) const fn take(&mut self, bytes: u64) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Bytes of the file in memory, as much as was read together.
pub(super) struct Tables<'a> {
    file: &'a dyn Storage,
    file_len: u64,
    g: Geometry,
    batch: Vec<u8>,
    batch_at: u64,
}

impl<'a> Tables<'a> {
    pub(super) fn new(
        file: &'a dyn Storage,
        file_len: u64,
        g: Geometry,
        budget: &mut MetadataBudget,
    ) -> Result<Self> {
        budget.reserve("L2 tables", BATCH_BYTES.max(g.cluster_bytes()))?;
        Ok(Self { file, file_len, g, batch: Vec::new(), batch_at: 0 })
    }

    /// How many of the tables of `l1`, from entry `index` on, lie side by side and can be read at
    /// once; at least 1.
    pub(super) fn side_by_side(&self, l1: &[u64], index: usize) -> u64 {
        let cluster = self.g.cluster_bytes();
        let entries = l1.get(index..).unwrap_or_default();
        let most = num::to_usize(BATCH_BYTES.checked_div(cluster).unwrap_or(1)).unwrap_or(1).max(1);
        let offsets = entries.iter().take(most).map(|entry| entry & spec::OFFSET_MASK);
        let start = entries.first().map_or(0, |entry| entry & spec::OFFSET_MASK);
        let expected = (0_u64..).map(|n| start.saturating_add(n.saturating_mul(cluster)));
        let run = offsets.zip(expected).take_while(|(offset, expected)| offset == expected).count();
        num::to_u64(run).max(1)
    }

    /// The table at `at`, read together with those of the `together` clusters from there on.
    /// Behind the end of the file there is none, and no time is spent on it: a wrong L1 table can
    /// have millions of such entries.
    pub(super) fn load(&mut self, at: u64, together: u64) -> Result<&[u8]> {
        if at >= self.file_len {
            return Ok(&[]);
        }
        let cluster = self.g.cluster_bytes();
        let end = at.saturating_add(cluster);
        let batch_end = self.batch_at.saturating_add(num::to_u64(self.batch.len()));
        if at < self.batch_at || end > batch_end {
            let len = together.saturating_mul(cluster);
            let mut batch = core::mem::take(&mut self.batch);
            batch.resize(num::to_usize(len)?, 0);
            read_padded(self.file, &mut batch, at).map_err(Error::io("read L2 table", at))?;
            (self.batch, self.batch_at) = (batch, at);
        }
        let start = num::to_usize(at.saturating_sub(self.batch_at))?;
        let end = start.saturating_add(num::to_usize(cluster)?);
        Ok(self.batch.get(start..end).unwrap_or_default())
    }

    /// Writes the descriptors of entries of the table at `table_at`, by index.
    pub(super) fn write(&mut self, table_at: u64, changes: &[(usize, u64)]) -> Result<()> {
        // What is in memory is old now.
        self.batch.clear();
        for (index, descriptor) in changes {
            let at = entry_offset(self.g, table_at, *index);
            write_word(self.file, at, *descriptor, "write L2 table")?;
        }
        Ok(())
    }
}

/// The writing half of an image's file.
pub(super) fn writer(file: &dyn Storage) -> Result<&dyn StorageWrite> {
    file.writer().ok_or(Error::ReadOnly("its file was opened for reading"))
}

/// Makes everything durable that was written before.
pub(super) fn sync(file: &dyn Storage) -> Result<()> {
    writer(file)?.sync().map_err(Error::io("flush", 0))
}

/// Writes a word of a table: whole, or after a crash not at all.
pub(super) fn write_word(file: &dyn Storage, at: u64, word: u64, op: &'static str) -> Result<()> {
    writer(file)?.write_all_at(&word.to_be_bytes(), at).map_err(Error::io(op, at))
}

/// Calls `each` for the entries of a table that are not blank, with their indices.
pub(super) fn for_each_entry(
    table: &[u8],
    g: Geometry,
    each: impl FnMut(usize, L2Entry) -> Result<()>,
) -> Result<()> {
    if g.extended_l2 {
        for_each_of::<16>(table, |bytes| entry_at(bytes, 0, g), each)
    } else {
        let entry = |bytes: &[u8; 8]| L2Entry { descriptor: u64::from_be_bytes(*bytes), bitmap: 0 };
        for_each_of::<8>(table, entry, each)
    }
}

/// Most of a table is blank in a scattered image: blocks of several entries are looked at first.
fn for_each_of<const ENTRY_BYTES: usize>(
    table: &[u8],
    parse: impl Fn(&[u8; ENTRY_BYTES]) -> L2Entry,
    mut each: impl FnMut(usize, L2Entry) -> Result<()>,
) -> Result<()> {
    const BLOCK_BYTES: usize = 64;
    let per_block = BLOCK_BYTES.checked_div(ENTRY_BYTES).unwrap_or(1);
    let (blocks, _) = table.as_chunks::<BLOCK_BYTES>();
    for (number, block) in blocks.iter().enumerate() {
        if block.iter().fold(0, |seen, byte| seen | byte) == 0 {
            continue;
        }
        let first = number.saturating_mul(per_block);
        let (entries, _) = block.as_chunks::<ENTRY_BYTES>();
        for (index, bytes) in entries.iter().enumerate() {
            let entry = parse(bytes);
            if entry != L2Entry::default() {
                each(first.saturating_add(index), entry)?;
            }
        }
    }
    Ok(())
}

/// Where entry `index` of the table at `table_at` is.
const fn entry_offset(g: Geometry, table_at: u64, index: usize) -> u64 {
    table_at.saturating_add(num::to_u64(index).saturating_mul(g.l2_entry_bytes()))
}

/// Reads `entries` words of a table; what lies behind the end of the file is 0.
pub(super) fn read_words(
    file: &dyn Storage,
    what: &'static str,
    op: &'static str,
    place: Range<u64>,
    budget: &mut MetadataBudget,
) -> Result<Vec<u64>> {
    let bytes = place.end.saturating_sub(place.start);
    // Once as bytes, once as numbers.
    budget.reserve(what, bytes)?;
    let mut raw = budget.buffer(what, bytes)?;
    read_padded(file, &mut raw, place.start).map_err(Error::io(op, place.start))?;
    let (words, _) = raw.as_chunks::<8>();
    Ok(words.iter().map(|word| u64::from_be_bytes(*word)).collect())
}
