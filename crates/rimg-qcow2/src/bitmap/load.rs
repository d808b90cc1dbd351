//! From the disk to memory: the directory, the tables, and what must not be in them.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::address::Geometry;
use crate::allocate::Guard;
use crate::bitmap::chunks::{self, Chunks};
use crate::bitmap::directory::{Bitmap, directory, read_directory};
use crate::bitmap::table::TableEntry;
use crate::error::CorruptKind;
use crate::header::Header;
use crate::spec::bitmap_flag;
use core::ops::Range;
use rimg_core::{Error, MetadataBudget, Result, Storage, num};
use std::collections::BTreeSet;

/// All bitmaps of an open image.
#[derive(Debug)]
pub(crate) struct BitmapSet {
    /// In the order of the directory.
    pub(crate) bitmaps: Vec<Tracked>,
    /// The host bytes of the directory on disk; empty where there is none.
    pub(crate) directory: Range<u64>,
    /// What the bits may take.
    pub(crate) budget: MetadataBudget,
    /// Whether somebody edited the bitmaps since they were stored.
    pub(crate) is_edited: bool,
    /// Whether writes changed bits since the bitmaps were stored.
    pub(crate) is_marked: bool,
    /// Host bytes that only the directory on disk leads to.
    pub(crate) dropped: Vec<Range<u64>>,
}

/// One bitmap of an open image.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) entry: Bitmap,
    /// Nobody was changing it when the image was closed last.
    pub(crate) is_trusted: bool,
    /// The disk says that it is in use, since memory is ahead.
    pub(crate) is_in_use: bool,
    pub(crate) chunks: Chunks,
    /// The host bytes of its table on disk; empty where there is none.
    pub(crate) table: Range<u64>,
}

impl Tracked {
    /// Whether writes have to set bits.
    pub(crate) const fn follows_writes(&self) -> bool {
        self.is_trusted && self.entry.has(bitmap_flag::AUTO)
    }
}

impl BitmapSet {
    /// Reads all bitmaps but for their bits.
    pub(crate) fn read(
        file: &dyn Storage,
        header: &Header,
        budget: MetadataBudget,
    ) -> Result<Self> {
        let mut set = Self {
            bitmaps: Vec::new(),
            directory: 0..0,
            budget,
            is_edited: false,
            is_marked: false,
            dropped: Vec::new(),
        };
        let Some(place) = directory(header)? else { return Ok(set) };
        let g = header.geometry;
        let at = place.bitmap_directory_offset;
        if !g.is_aligned(at) {
            let kind = CorruptKind::Misaligned(at);
            return Err(kind.at("bitmaps extension", "bitmap_directory_offset", 0));
        }
        set.directory = at..at.saturating_add(place.bitmap_directory_size);
        let file_len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        for entry in read_directory(file, header, &mut set.budget)? {
            let tracked = read_bitmap(file, file_len, header, entry, &mut set.budget)?;
            set.bitmaps.push(tracked);
        }
        set.refuse_same_names()?;
        set.refuse_shared_clusters(header)?;
        Ok(set)
    }

    /// Keeps other writers off the directory and the tables, and refuses those that lie in other
    /// tables.
    pub(crate) fn guard_tables(&self, guard: &mut Guard, g: Geometry) -> Result<()> {
        let clusters = |range: Range<u64>| g.cluster_index(range.start)..g.clusters_for(range.end);
        let tables = self.table_clusters(g);
        let bits = self.bitmaps.iter().flat_map(|tracked| tracked.chunks.stored_table());
        let bits = bits.filter_map(|entry| cluster_of(entry, g)).map(clusters);
        for range in tables.iter().cloned().chain(bits) {
            if let Some(cluster) = guard.first_in(range) {
                let at = g.cluster_offset(cluster);
                return Err(CorruptKind::SharedCluster(at).at("bitmap table", "entry", at));
            }
        }
        for table in tables {
            guard.add(table);
        }
        Ok(())
    }

    /// Guards the tables again, after others were found anew.
    pub(crate) fn guard_again(&self, guard: &mut Guard, g: Geometry) {
        for table in self.table_clusters(g) {
            guard.add(table);
        }
    }

    /// Takes back what [`guard_tables`](Self::guard_tables) did.
    pub(crate) fn unguard_tables(&self, guard: &mut Guard, g: Geometry) {
        for table in self.table_clusters(g) {
            guard.remove(table);
        }
    }

    /// The clusters of the directory and of the tables.
    fn table_clusters(&self, g: Geometry) -> Vec<Range<u64>> {
        let tables = self.bitmaps.iter().map(|tracked| &tracked.table).chain([&self.directory]);
        tables.map(|range| g.cluster_index(range.start)..g.clusters_for(range.end)).collect()
    }

    fn refuse_same_names(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        for tracked in &self.bitmaps {
            if !names.insert(tracked.entry.name.as_str()) {
                let at = tracked.entry.at;
                return Err(CorruptKind::BitmapNameTwice.at("bitmap directory", "name", at));
            }
        }
        Ok(())
    }

    /// Two bitmaps in one cluster, or one in the header, would be changed together.
    fn refuse_shared_clusters(&mut self, header: &Header) -> Result<()> {
        let g = header.geometry;
        let l1_bytes = u64::from(header.l1_entries).saturating_mul(8);
        let refcount_bytes =
            u64::from(header.refcount_table_clusters).saturating_mul(g.cluster_bytes());
        let others = [
            0..g.cluster_bytes(),
            header.l1_offset..header.l1_offset.saturating_add(l1_bytes),
            header.refcount_table_offset
                ..header.refcount_table_offset.saturating_add(refcount_bytes),
        ];
        let entries = self.bitmaps.iter().map(|tracked| tracked.chunks.stored_table().count());
        let entries = num::to_u64(entries.fold(0, usize::saturating_add));
        let range_bytes = num::to_u64(size_of::<Range<u64>>());
        let mut budget = self.budget;
        budget.reserve("bitmap tables", entries.saturating_mul(range_bytes))?;
        let mut used: Vec<Range<u64>> = others.into();
        used.push(self.directory.clone());
        for tracked in &self.bitmaps {
            used.push(tracked.table.clone());
            used.extend(tracked.chunks.stored_table().filter_map(|entry| cluster_of(entry, g)));
        }
        used.retain(|range| !range.is_empty());
        used.sort_unstable_by_key(|range| range.start);
        let next = used.iter().skip(1);
        match used.iter().zip(next).find(|(range, next)| {
            g.cluster_index(next.start) <= g.cluster_index(range.end.saturating_sub(1))
        }) {
            Some((_, shared)) => {
                let kind = CorruptKind::SharedCluster(shared.start);
                Err(kind.at("bitmap table", "entry", shared.start))
            }
            None => Ok(()),
        }
    }
}

/// The host bytes of a cluster that a table entry leads to.
pub(crate) fn cluster_of(entry: TableEntry, g: Geometry) -> Option<Range<u64>> {
    match entry {
        TableEntry::Cluster(at) => Some(at..at.saturating_add(g.cluster_bytes())),
        TableEntry::Zeroes | TableEntry::Ones => None,
    }
}

fn read_bitmap(
    file: &dyn Storage,
    file_len: u64,
    header: &Header,
    entry: Bitmap,
    budget: &mut MetadataBudget,
) -> Result<Tracked> {
    let g = header.geometry;
    entry.validate(g)?;
    let is_trusted = !entry.has(bitmap_flag::IN_USE);
    let granularity_bits = u32::from(entry.raw.granularity_bits);
    let entries = u64::from(entry.raw.bitmap_table_size);
    let needed = chunks::clusters_for(header.size_bytes, granularity_bits, g.cluster_bytes());
    // What was being changed may be of another size still.
    if is_trusted && entries != needed {
        let kind = CorruptKind::BitmapTableSize { entries, needed };
        return Err(kind.at("bitmap directory", "bitmap_table_size", entry.at));
    }
    let at = entry.raw.bitmap_table_offset;
    let table = at..at.saturating_add(entries.saturating_mul(8));
    if table.end > file_len {
        return Err(CorruptKind::TableTruncated.at("bitmap table", "entries", at));
    }
    let bytes = table.end.saturating_sub(table.start);
    budget.reserve("bitmap table", entries.saturating_mul(Chunks::CHUNK_BYTES))?;
    let mut raw = budget.buffer("bitmap table", bytes)?;
    file.read_exact_at(&mut raw, at).map_err(Error::io("read bitmap table", at))?;
    let mut parsed = Vec::new();
    let (words, _) = raw.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let entry_at = at.saturating_add(num::to_u64(index).saturating_mul(8));
        let wrong = |kind: CorruptKind| kind.at("bitmap table", "entry", entry_at);
        let entry = TableEntry::parse(u64::from_be_bytes(*word), g).map_err(wrong)?;
        if let TableEntry::Cluster(cluster) = entry
            && cluster >= file_len
        {
            return Err(wrong(CorruptKind::BehindEnd(cluster)));
        }
        parsed.push(entry);
    }
    let chunks =
        Chunks::stored(granularity_bits, g.cluster_bytes(), header.size_bytes, parsed.into_iter());
    Ok(Tracked { entry, is_trusted, is_in_use: false, chunks, table })
}
