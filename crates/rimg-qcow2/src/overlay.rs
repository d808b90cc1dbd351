//! What lies below the image, and dropping what lies in it.
#![warn(clippy::indexing_slicing)]

use crate::allocate::Allocator;
use crate::cache::TableCache;
use crate::header::{Extension, Header};
use crate::image::{L2_CACHE_BYTES, Qcow2Image, State};
use crate::map::Place;
use crate::{refcount, spec};
use rimg_core::{BlockImage as _, Error, Overlay, Result, num, op};

impl Overlay for Qcow2Image {
    fn change_backing(&self, name: Option<&str>, format: Option<&str>) -> Result<()> {
        let name = name.filter(|name| !name.is_empty());
        let format = format.filter(|_| name.is_some());
        // The data that makes up for the other image comes first.
        self.flush_all()?;
        let mut state = self.lock()?;
        check_name(&state.header, name)?;
        let named = self.rewrite_header(&mut state, |header| {
            header.backing_name = name.map(str::to_owned);
            let format = format.map(|format| Extension::BackingFormat(format.to_owned()));
            let is_format =
                |extension: &Extension| matches!(extension, Extension::BackingFormat(_));
            header.extensions.retain(|extension| !is_format(extension));
            header.extensions.splice(0..0, format);
        });
        match named {
            Err(Error::InvalidOption { .. }) => refuse("No space left in the file header")?,
            other => other?,
        }
        drop(state);
        self.flush_all()
    }

    fn make_empty(&self) -> Result<()> {
        let size = self.size_bytes();
        if size == 0 {
            return Ok(());
        }
        // Who empties a layer has the data below: for bitmaps, nothing changes.
        let (_claim, _) = self.claim_unchanged(&(0..size))?;
        {
            let mut state = self.lock()?;
            self.catch_up(&mut state)?;
            if self.can_start_anew(&state) {
                return self.start_anew(&mut state);
            }
        }
        self.drop_clusters(size)
    }
}

/// The words are qemu-img's.
fn check_name(header: &Header, name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    let is_raw = header.autoclear & spec::autoclear::DATA_FILE_RAW != 0;
    if is_raw || num::to_u64(name.len()) > u64::from(spec::MAX_BACKING_NAME_BYTES) {
        return refuse("Invalid argument");
    }
    Ok(())
}

fn refuse(reason: &str) -> Result<()> {
    Err(Error::InvalidOption { option: "backing_file", reason: reason.to_owned() })
}

/// The cluster of the refcount table in a small image.
const TABLE: u64 = 1;
/// The cluster of its only refcount block.
const BLOCK: u64 = 2;
/// The first cluster of its L1 table.
const L1: u64 = 3;

impl Qcow2Image {
    /// How many clusters an image without any data has.
    fn empty_clusters(&self, state: &State) -> u64 {
        L1.saturating_add(self.geometry.clusters_for(num::to_u64(state.l1.len()).saturating_mul(8)))
    }

    /// Whether nothing but the active L1 table refers to data, and the tables of an empty image
    /// find the places of a new one free. (Version 2 is left as qemu-img leaves it.)
    fn can_start_anew(&self, state: &State) -> bool {
        let g = self.geometry;
        let header = &state.header;
        let holds_more = header.snapshot_count > 0
            || header.crypt_method != spec::crypt::NONE
            || header.extensions.iter().any(|extension| {
                matches!(extension, Extension::Bitmaps(_) | Extension::Encryption(_))
            });
        let Some(allocator) = &state.allocator else { return false };
        let block = |entry: &u64| g.cluster_index(entry & spec::REFCOUNT_TABLE_OFFSET_MASK);
        let first_block = allocator.table.first().map_or(0, block);
        // What is in force until the last moment must not be written over.
        let table_first = g.cluster_index(allocator.table_at);
        let table_is_free = table_first == TABLE && header.refcount_table_clusters == 1
            || table_first > BLOCK && !allocator.table.iter().any(|entry| block(entry) == TABLE);
        let end = self.empty_clusters(state);
        let l1_is_free = !(L1..end).contains(&table_first)
            && !allocator.table.iter().skip(1).any(|entry| (L1..end).contains(&block(entry)));
        header.version >= 3
            && !holds_more
            && l1_is_free
            && !self.has_data_file()
            && first_block == BLOCK
            && table_is_free
            && g.cluster_index(header.l1_offset) >= L1
            && end <= g.refcounts_per_block()
    }

    /// Leaves the file as that of a new image: header, refcount table, refcount block and L1 table
    /// in this order, and nothing behind them.
    ///
    /// Each step is durable before the next: at first nothing refers to data any more, then the
    /// tables move, and only then the clusters stop being counted.
    fn start_anew(&self, state: &mut State) -> Result<()> {
        let g = self.geometry;
        let file = self.file_writer()?;
        // A flush under way has nothing to bring any more.
        state.passes = state.passes.wrapping_add(1);
        let entries = state.l1.len();
        let end = self.empty_clusters(state);
        let l1_bytes = vec![0; num::to_usize(num::to_u64(entries).saturating_mul(8))?];
        let old_l1 = state.header.l1_offset;
        file.note("l1_update");
        file.write_all_at(&l1_bytes, old_l1).map_err(Error::io("write L1 table", old_l1))?;
        self.barrier(state)?;
        state.l1.fill(0);
        state.dirty_l1.clear();
        state.l2 = TableCache::new(g.cluster_bytes(), L2_CACHE_BYTES);
        // Whoever resolved a place before is done reading before it goes.
        self.readers.wait_for(self.readers.next_generation());

        self.count_at_least_once(state, end)?;
        let table_at = g.cluster_offset(TABLE);
        let moves_table = state.header.refcount_table_offset != table_at;
        let new_l1 = g.cluster_offset(L1);
        if moves_table {
            self.write_small_table(table_at)?;
        }
        if new_l1 != old_l1 {
            file.note("empty_image_prepare");
            file.write_all_at(&l1_bytes, new_l1).map_err(Error::io("write L1 table", new_l1))?;
        }
        // From here on memory is behind the disk: a failure must not let anybody go on with it.
        state.is_outdated = true;
        if moves_table || new_l1 != old_l1 {
            self.barrier(state)?;
            self.rewrite_header(state, |header| {
                header.refcount_table_offset = table_at;
                header.refcount_table_clusters = 1;
                header.l1_offset = new_l1;
            })?;
        }
        if !moves_table {
            // Only now nothing needs the other blocks.
            self.write_small_table(table_at)?;
            self.barrier(state)?;
        }

        let block_at = g.cluster_offset(BLOCK);
        let mut block = vec![0; num::to_usize(g.cluster_bytes())?];
        refcount::fill(&mut block, g.refcount, 0..num::to_usize(end)?, 1);
        file.write_all_at(&block, block_at)
            .map_err(Error::io(op::WRITE_REFCOUNT_BLOCK, block_at))?;
        self.barrier(state)?;
        let len = g.cluster_offset(end);
        file.set_len_bytes(len).map_err(Error::io("shorten file", len))?;
        let mut budget = self.limits.metadata_budget();
        state.allocator = Some(Allocator::open(
            &self.file,
            &state.header,
            &state.l1,
            self.overlap_check,
            &mut budget,
        )?);
        state.data_end = 0;
        state.is_outdated = false;
        self.barrier(state)
    }

    /// Writes a refcount table that knows the first block only.
    fn write_small_table(&self, at: u64) -> Result<()> {
        let g = self.geometry;
        let mut table = vec![0; num::to_usize(g.cluster_bytes())?];
        if let Some(entry) = table.first_chunk_mut() {
            *entry = g.cluster_offset(BLOCK).to_be_bytes();
        }
        let file = self.file_writer()?;
        file.write_all_at(&table, at).map_err(Error::io(op::WRITE_REFCOUNT_TABLE, at))
    }

    /// Counts the clusters before `end` on disk, so that tables can move there. The first refcount
    /// block, which describes them, stays where it is.
    fn count_at_least_once(&self, state: &State, end: u64) -> Result<()> {
        let g = self.geometry;
        let at = g.cluster_offset(BLOCK);
        let mut block = vec![0; num::to_usize(g.cluster_bytes())?];
        crate::cache::read_padded(self.file.as_ref(), &mut block, at)
            .map_err(Error::io("read refcount block", at))?;
        for cluster in 0..num::to_usize(end)? {
            if refcount::get(&block, g.refcount, cluster) == 0 {
                refcount::set(&mut block, g.refcount, cluster, 1);
            }
        }
        let file = self.file_writer()?;
        file.write_all_at(&block, at).map_err(Error::io(op::WRITE_REFCOUNT_BLOCK, at))?;
        self.barrier(state)
    }

    /// Drops every cluster on its own, where others than the active L1 table refer to some.
    fn drop_clusters(&self, size: u64) -> Result<()> {
        let mut at = 0;
        while at < size {
            let run = self.run_at(&mut *self.lock()?, at..size)?;
            let end = at.saturating_add(run.len);
            if run.place != (Place::Backing { host: None }) {
                self.forget_claimed(at..end)?;
            }
            at = end;
        }
        // Only when no entry on disk leads there any more may the data go.
        self.flush_all()?;
        let Some(data) = self.data_file.as_ref().and_then(|file| file.writer()) else {
            return Ok(());
        };
        data.discard_at(0..size).map_err(Error::io("discard data file", 0))
    }
}
