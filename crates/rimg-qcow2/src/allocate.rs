//! Host clusters: who uses them, and finding free ones.
//!
//! Clusters are found as QEMU finds them, first fit from a hint, so that the same writes lead to
//! the same file. Giving clusters back is put off until nothing on disk refers to them any more
//! ([`Allocator::release`]); the search sees them as free all the same, and whoever is about to
//! get one makes the image catch up first.
#![warn(clippy::indexing_slicing)]

mod batch;
mod claim;
mod guard;

pub(crate) use guard::Guard;

pub(crate) use batch::Block;

use crate::address::Geometry;
use crate::cache::{READ_REFCOUNT_BLOCK, TableCache};
use crate::error::CorruptKind;
use crate::flush::DirtyEntries;
use crate::header::Header;
use crate::options::OverlapCheck;
use crate::refcount::{self, Place};
use crate::{snapshot, spec};
use core::ops::Range;
use rimg_core::{Error, MetadataBudget, Result, Storage, num, op};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How much memory cached refcount blocks take: 1 MiB describes 32 GiB of file with clusters of
/// 64 KiB and refcounts of 16 bits.
const CACHE_BYTES: u64 = 1 << 20;

/// The refcounts of an image that is open for writing.
#[derive(Debug)]
pub(crate) struct Allocator {
    file: Arc<dyn Storage>,
    geometry: Geometry,
    /// The refcount table as on disk, in the machine's byte order.
    pub(crate) table: Vec<u64>,
    pub(crate) table_at: u64,
    /// Entries of the table that are newer than on disk.
    pub(crate) dirty_entries: DirtyEntries,
    pub(crate) blocks: TableCache,
    /// Where the search for single clusters begins, as in QEMU.
    free_hint: u64,
    /// References that are gone but still counted, by cluster.
    released: HashMap<u64, u64>,
    /// Released clusters that the file need not keep once they are free.
    to_discard: BTreeSet<u64>,
    /// No cluster from here on was ever used: the file is shorter.
    virgin_from: u64,
    /// Clusters with tables. A wrong refcount must not hand them out, a wrong entry not lead
    /// guest data there.
    pub(crate) guard: Guard,
    overlap_check: OverlapCheck,
    /// Where the next compressed cluster goes if it fits.
    pub(crate) compressed_tail: Option<u64>,
}

/// What becomes of the bytes of a cluster that nobody uses any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// They stay, for the next user to overwrite.
    Keep,
    /// The guest asked for its space back: so does the image.
    Discard,
}

/// Clusters that the search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FreeRun {
    /// The first cluster.
    pub(crate) first: u64,
    /// How many.
    pub(crate) clusters: u64,
}

impl FreeRun {
    pub(crate) const fn end(self) -> u64 {
        self.first.saturating_add(self.clusters)
    }
}

impl Allocator {
    /// Reads the refcount table of an image.
    pub(crate) fn open(
        file: &Arc<dyn Storage>,
        header: &Header,
        l1: &[u64],
        overlap_check: OverlapCheck,
        budget: &mut MetadataBudget,
    ) -> Result<Self> {
        let g = header.geometry;
        let bytes = u64::from(header.refcount_table_clusters).saturating_mul(g.cluster_bytes());
        let at = header.refcount_table_offset;
        // Once as bytes, once as numbers.
        budget.reserve("refcount table", bytes)?;
        let mut raw = budget.buffer("refcount table", bytes)?;
        file.note("reftable_load");
        crate::cache::read_padded(file.as_ref(), &mut raw, at)
            .map_err(Error::io(op::READ_REFCOUNT_TABLE, at))?;
        let (words, _) = raw.as_chunks::<8>();
        let table: Vec<u64> = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        let mut allocator = Self {
            file: Arc::clone(file),
            geometry: g,
            table,
            table_at: at,
            dirty_entries: DirtyEntries::default(),
            blocks: TableCache::new(g.cluster_bytes(), CACHE_BYTES),
            free_hint: 0,
            released: HashMap::new(),
            to_discard: BTreeSet::new(),
            virgin_from: g.clusters_for(len),
            guard: Guard::default(),
            overlap_check,
            compressed_tail: None,
        };
        allocator.refuse_shared_blocks()?;
        allocator.guard_tables(header, l1, budget)?;
        Ok(allocator)
    }

    /// One full block for every entry of the table would make a small file look like one of
    /// terabytes without a free cluster, and the search for one last for ever.
    fn refuse_shared_blocks(&self) -> Result<()> {
        let mut blocks: Vec<u64> = self
            .table
            .iter()
            .map(|entry| entry & spec::REFCOUNT_TABLE_OFFSET_MASK)
            .filter(|block| *block != 0)
            .collect();
        blocks.sort_unstable();
        let next = blocks.iter().skip(1);
        match blocks.iter().zip(next).find(|(block, next)| block == next) {
            Some((block, _)) => {
                let kind = CorruptKind::SharedRefcountBlock(*block);
                Err(kind.at("refcount table", "entry", self.table_at))
            }
            None => Ok(()),
        }
    }

    /// Notes where the tables are that the header, the active L1 table and the snapshots lead to.
    pub(crate) fn guard_tables(
        &mut self,
        header: &Header,
        l1: &[u64],
        budget: &mut MetadataBudget,
    ) -> Result<()> {
        let g = self.geometry;
        let span = |offset: u64, clusters: u64| {
            let first = g.cluster_index(offset);
            first..first.saturating_add(clusters)
        };
        let l1_clusters = g.clusters_for(u64::from(header.l1_entries).saturating_mul(8));
        let table_clusters = u64::from(header.refcount_table_clusters);
        let (luks_at, luks_bytes) = header.encryption_header().unwrap_or_default();
        let luks_clusters = g.clusters_for(luks_bytes.min(spec::MAX_GUARDED_LUKS_BYTES));
        let entries = l1.iter().chain(&self.table).map(|entry| entry & spec::OFFSET_MASK);
        let tables = entries.filter(|offset| *offset != 0);
        let count = num::to_u64(tables.clone().count())
            .saturating_add(l1_clusters)
            .saturating_add(table_clusters)
            .saturating_add(luks_clusters);
        budget.reserve("guarded clusters", count.saturating_mul(Guard::BYTES_EACH))?;
        let clusters = core::iter::once(0)
            .chain(span(header.l1_offset, l1_clusters))
            .chain(span(self.table_at, table_clusters))
            .chain(span(luks_at, luks_clusters))
            .chain(tables.map(|offset| g.cluster_index(offset)));
        self.guard = Guard::new(clusters.collect());
        for clusters in snapshot::table_clusters(self.file.as_ref(), header, budget)? {
            let bytes = clusters.end.saturating_sub(clusters.start).saturating_mul(64);
            // These are guarded for good measure, as far as there is room.
            if budget.reserve("guarded clusters", bytes).is_ok() {
                self.guard.add(clusters);
            }
        }
        self.guard_snapshots(header, budget)
    }

    pub(crate) fn set_overlap_check(
        &mut self,
        overlap_check: OverlapCheck,
        header: &Header,
        budget: &mut MetadataBudget,
    ) -> Result<()> {
        self.overlap_check = overlap_check;
        self.guard_snapshots(header, budget)
    }

    /// Notes where the L2 tables of snapshots are, if that is wanted.
    fn guard_snapshots(&mut self, header: &Header, budget: &mut MetadataBudget) -> Result<()> {
        if self.overlap_check.inactive_l2 {
            let tables = snapshot::l2_clusters(self.file.as_ref(), header, budget)?;
            self.guard.keep(tables);
        }
        Ok(())
    }

    /// How many clusters the refcount table can describe.
    pub(crate) fn capacity_clusters(&self) -> u64 {
        num::to_u64(self.table.len()) << self.geometry.refcounts_per_block_bits()
    }

    /// How many references `cluster` has, not counting released ones.
    pub(crate) fn live_refcount(&mut self, cluster: u64) -> Result<u64> {
        let counted = self.refcount(cluster)?;
        let released = self.released.get(&cluster).copied().unwrap_or(0);
        Ok(counted.saturating_sub(released))
    }

    /// The refcount of `cluster` as it will be written.
    fn refcount(&mut self, cluster: u64) -> Result<u64> {
        let Some((slice_at, index)) = self.place_of(cluster)? else { return Ok(0) };
        let slice = self.blocks.slice(self.file.as_ref(), slice_at, READ_REFCOUNT_BLOCK)?;
        Ok(refcount::get(slice, self.geometry.refcount, index))
    }

    fn set_refcount(&mut self, cluster: u64, count: u64) -> Result<()> {
        let missing = || Error::Misuse("a refcount without a block was changed");
        let (slice_at, index) = self.place_of(cluster)?.ok_or_else(missing)?;
        let slice = self.blocks.slice_mut(self.file.as_ref(), slice_at, READ_REFCOUNT_BLOCK)?;
        refcount::set(slice, self.geometry.refcount, index, count);
        Ok(())
    }

    /// The slice with the refcount of `cluster`, and its index in there; `None` where there is no
    /// refcount block.
    fn place_of(&self, cluster: u64) -> Result<Option<(u64, usize)>> {
        let (g, slice_bytes) = (self.geometry, self.blocks.slice_bytes());
        match refcount::place_of(&self.table, g, slice_bytes, cluster) {
            Place::NoBlock => Ok(None),
            Place::Wrong { entry, block } => {
                let at = self.table_at.saturating_add(entry.saturating_mul(8));
                Err(CorruptKind::Misaligned(block).at("refcount table", "entry", at))
            }
            Place::In { slice_at, .. } if self.guard.is_contested(g, slice_at) => {
                let entry = cluster >> g.refcounts_per_block_bits();
                let at = self.table_at.saturating_add(entry.saturating_mul(8));
                Err(CorruptKind::Overlap(slice_at).at("refcount table", "entry", at))
            }
            Place::In { slice_at, index } => Ok(Some((slice_at, num::to_usize(index)?))),
        }
    }

    /// The first `clusters` free clusters in a row. Nothing is taken yet.
    pub(crate) fn find(&mut self, clusters: u64) -> Result<FreeRun> {
        self.find_from(self.free_hint, clusters)
    }

    fn find_from(&mut self, from: u64, clusters: u64) -> Result<FreeRun> {
        let mut first = from;
        let mut at = first;
        while at.saturating_sub(first) < clusters {
            if at >= self.virgin_from && at >= self.capacity_clusters() {
                break;
            }
            let wanted = clusters.saturating_sub(at.saturating_sub(first));
            let free = self.uncounted(at, wanted)?;
            at = at.saturating_add(free);
            if free == 0 {
                if self.live_refcount(at)? != 0 {
                    first = at.saturating_add(1);
                }
                at = at.saturating_add(1);
            }
        }
        let run = FreeRun { first, clusters };
        if i64::try_from(self.geometry.cluster_offset(run.end())).is_err() {
            return Err(Error::Limit {
                what: "host offset",
                needed: run.end(),
                limit: self.geometry.cluster_index(i64::MAX.unsigned_abs()),
            });
        }
        match self.guard.first_in(first..run.end()) {
            Some(cluster) => {
                let at = self.geometry.cluster_offset(cluster);
                Err(CorruptKind::Overlap(at).at("refcount block", "entry", self.entry_at(cluster)))
            }
            None => Ok(run),
        }
    }

    /// Where the refcount of `cluster` lies in the file, for messages; its byte, where several
    /// share one.
    fn entry_at(&self, cluster: u64) -> u64 {
        let g = self.geometry;
        let number = usize::try_from(cluster >> g.refcounts_per_block_bits());
        let entry = number.ok().and_then(|number| self.table.get(number)).copied().unwrap_or(0);
        let in_block = cluster & g.refcounts_per_block().saturating_sub(1);
        let bytes = (in_block << g.refcount.order()) >> 3;
        (entry & spec::REFCOUNT_TABLE_OFFSET_MASK).saturating_add(bytes)
    }

    /// How many of at most `wanted` clusters from `first` on have a refcount of 0 on disk, as far
    /// as one slice of a refcount block, or none, tells.
    fn uncounted(&mut self, first: u64, wanted: u64) -> Result<u64> {
        let g = self.geometry;
        let Some((slice_at, index)) = self.place_of(first)? else {
            let block_end = (first | g.refcounts_per_block().saturating_sub(1)).saturating_add(1);
            return Ok(wanted.min(block_end.saturating_sub(first)));
        };
        let slice = self.blocks.slice(self.file.as_ref(), slice_at, READ_REFCOUNT_BLOCK)?;
        let in_slice = num::to_usize((num::to_u64(slice.len()) << 3) >> g.refcount.order())?;
        let end = index.saturating_add(num::to_usize(wanted)?).min(in_slice);
        Ok(num::to_u64(refcount::zero_prefix(slice, g.refcount, index..end)))
    }

    /// Whether all `clusters` from `first` on are free.
    pub(crate) fn is_free(&mut self, first: u64, clusters: u64) -> Result<bool> {
        Ok(self.find_from(first, clusters)?.first == first)
    }

    /// Whether some of `run` is referred to on disk still.
    pub(crate) fn is_released(&self, run: FreeRun) -> bool {
        !self.released.is_empty()
            && (run.first..run.end()).any(|cluster| self.released.contains_key(&cluster))
    }

    /// Whether the next run of `clusters` to be found is referred to on disk still.
    pub(crate) fn would_reuse(&mut self, clusters: u64) -> Result<bool> {
        if self.released.is_empty() {
            return Ok(false);
        }
        let run = self.find(clusters)?;
        Ok(self.is_released(run))
    }

    /// The first table index whose refcount block is missing for `run`.
    pub(crate) fn missing_block(&self, run: FreeRun) -> Option<u64> {
        let bits = self.geometry.refcounts_per_block_bits();
        let last = run.end().saturating_sub(1) >> bits;
        (run.first >> bits..=last).find(|index| !self.has_block(*index))
    }

    fn has_block(&self, table_index: u64) -> bool {
        let entry = usize::try_from(table_index).ok().and_then(|index| self.table.get(index));
        entry.is_some_and(|entry| entry & spec::REFCOUNT_TABLE_OFFSET_MASK != 0)
    }

    /// Gives table entry `table_index` a refcount block, on the first free cluster behind `run`
    /// (which is not taken yet, but will be). `false` when the refcount table has no entry for the
    /// cluster of the new block; nothing was changed then.
    pub(crate) fn add_block(&mut self, table_index: u64, run: FreeRun) -> Result<bool> {
        let bits = self.geometry.refcounts_per_block_bits();
        let place = self.find_from(run.end(), 1)?;
        if self.is_released(place) {
            return Err(Error::Misuse("a released cluster was about to be used again"));
        }
        let described_by = place.first >> bits;
        if described_by >= num::to_u64(self.table.len()) {
            return Ok(false);
        }
        if described_by != table_index && !self.has_block(described_by) {
            // The new block's own cluster needs a block, which describes itself.
            if !self.add_block(described_by, place)? {
                return Ok(false);
            }
        }
        let index = num::to_usize(table_index)?;
        let offset = self.geometry.cluster_offset(place.first);
        let entry =
            self.table.get_mut(index).ok_or(Error::Misuse("refcount table is too small"))?;
        *entry = offset;
        self.dirty_entries.insert(index);
        let slices = self.geometry.cluster_bytes() / self.blocks.slice_bytes();
        for slice in 0..slices {
            self.blocks.new_slice(offset.saturating_add(slice * self.blocks.slice_bytes()))?;
        }
        self.take(place)?;
        self.guard.add(place.first..place.end());
        Ok(true)
    }

    /// Counts one reference to each cluster of a run that is free and has its refcount blocks.
    /// Returns whether the clusters were never used, and so hold zeroes.
    pub(crate) fn take_run(&mut self, run: FreeRun) -> Result<bool> {
        let virgin = run.first >= self.virgin_from;
        self.take(run)?;
        if run.first >= self.free_hint {
            self.free_hint = run.end();
        }
        Ok(virgin)
    }

    fn take(&mut self, run: FreeRun) -> Result<()> {
        let g = self.geometry;
        let mut cluster = run.first;
        while cluster < run.end() {
            let missing = || Error::Misuse("a refcount without a block was changed");
            let (slice_at, index) = self.place_of(cluster)?.ok_or_else(missing)?;
            let slice = self.blocks.slice_mut(self.file.as_ref(), slice_at, READ_REFCOUNT_BLOCK)?;
            let in_slice = num::to_usize((num::to_u64(slice.len()) << 3) >> g.refcount.order())?;
            let left = num::to_usize(run.end().saturating_sub(cluster))?;
            let end = index.saturating_add(left).min(in_slice);
            refcount::fill(slice, g.refcount, index..end, 1);
            cluster = cluster.saturating_add(num::to_u64(end.saturating_sub(index)));
        }
        self.virgin_from = self.virgin_from.max(run.end());
        Ok(())
    }

    /// Counts one more reference to a cluster in use; `false` when no more fit.
    pub(crate) fn add_reference(&mut self, cluster: u64) -> Result<bool> {
        let count = self.refcount(cluster)?;
        if self.released.contains_key(&cluster) || count >= self.geometry.refcount.max() {
            return Ok(false);
        }
        self.set_refcount(cluster, count.saturating_add(1))?;
        Ok(true)
    }

    /// Notes that a reference to each of `clusters` is gone from memory; it is counted until
    /// [`settle`](Self::settle).
    pub(crate) fn release(&mut self, clusters: Range<u64>, afterwards: Afterwards) {
        self.free_hint = self.free_hint.min(clusters.start);
        for cluster in clusters {
            if afterwards == Afterwards::Discard {
                self.to_discard.insert(cluster);
            }
            let released = self.released.entry(cluster).or_insert(0);
            *released = released.saturating_add(1);
        }
    }

    pub(crate) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// The references that are gone but still counted, by cluster.
    pub(crate) fn released(&self) -> Vec<(u64, u64)> {
        let mut released: Vec<(u64, u64)> = self.released.iter().map(|(c, n)| (*c, *n)).collect();
        released.sort_unstable();
        released
    }

    /// Stops counting the references of `released`, once nothing on disk holds them. Returns the
    /// free clusters whose bytes the file need not keep.
    pub(crate) fn settle(&mut self, released: &[(u64, u64)]) -> Result<Vec<u64>> {
        let mut free = Vec::new();
        let mut wrong = None;
        for (cluster, references) in released {
            match self.released.get_mut(cluster) {
                // Released once more since the pass began.
                Some(count) if *count > *references => *count = count.saturating_sub(*references),
                _ => drop(self.released.remove(cluster)),
            }
            let Some(left) = self.refcount(*cluster)?.checked_sub(*references) else {
                // Nothing is gained by coming back to it: the rest is settled all the same.
                wrong = Some(*cluster);
                continue;
            };
            self.set_refcount(*cluster, left)?;
            if left > 0 {
                self.to_discard.remove(cluster);
                continue;
            }
            if self.to_discard.remove(cluster) {
                free.push(*cluster);
            }
            let tail = self.compressed_tail.map(|tail| tail.saturating_sub(1));
            if tail.is_some_and(|tail| self.geometry.cluster_index(tail) == *cluster) {
                self.compressed_tail = None;
            }
        }
        if let Some(cluster) = wrong {
            let kind = CorruptKind::RefcountZero(self.geometry.cluster_offset(cluster));
            return Err(kind.at("refcount block", "entry", self.entry_at(cluster)));
        }
        Ok(free)
    }

    /// Gives back clusters that were taken but never referred to.
    pub(crate) fn give_back(&mut self, run: FreeRun) -> Result<()> {
        self.free_hint = self.free_hint.min(run.first);
        for cluster in run.first..run.end() {
            let count = self.refcount(cluster)?;
            self.set_refcount(cluster, count.saturating_sub(1))?;
        }
        Ok(())
    }

    /// Moves to a larger refcount table that lies, with the refcount blocks that describe it, in
    /// `area`; see `claim.rs` for the order in which that reaches the disk. Returns where the old
    /// table was.
    pub(crate) fn adopt_table(
        &mut self,
        table: Vec<u64>,
        table_at: u64,
        area: FreeRun,
    ) -> Range<u64> {
        let g = self.geometry;
        let old_first = g.cluster_index(self.table_at);
        let old =
            old_first..old_first.saturating_add(g.clusters_for(num::to_u64(self.table.len()) << 3));
        self.table = table;
        self.table_at = table_at;
        self.dirty_entries.clear();
        self.virgin_from = self.virgin_from.max(area.end());
        self.guard.remove(old.clone());
        self.guard.add(area.first..area.end());
        old
    }
}
