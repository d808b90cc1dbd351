//! From memory to the disk. What changed goes to new clusters, and after an edit of the bitmaps
//! everything, which is where QEMU has it then; when those and their counts are durable, the
//! header's extension switches to a new directory, in one sector. Until then the disk has the old
//! bitmaps, marked as in use where writes went on since.

use crate::allocate::{Afterwards, FreeRun};
use crate::bitmap::chunks::Content;
use crate::bitmap::directory::{self, RawBitmap, RawBitmapsExtension};
use crate::bitmap::load::{BitmapSet, Tracked, cluster_of};
use crate::bitmap::table::TableEntry;
use crate::header::{Extension, Header, offset};
use crate::image::{Qcow2Image, State};
use crate::spec::{self, bitmap_flag};
use core::ops::Range;
use rimg_core::{Error, Result, num};

/// Where a set of bitmaps is to be, written but not referred to yet.
struct Placed {
    bitmaps: Vec<PlacedBitmap>,
    /// The host bytes of the directory; empty where there are no bitmaps.
    directory: Range<u64>,
}

struct PlacedBitmap {
    raw: RawBitmap,
    /// `None` where the table on disk stays.
    table: Option<Range<u64>>,
    /// What the table has for the chunks that changed.
    entries: Vec<(usize, TableEntry)>,
}

impl Qcow2Image {
    /// Stores the bitmaps where the disk does not have them as memory does. Changes are durable
    /// and what they replace is released when this returns.
    pub(crate) fn store_bitmaps(&self, state: &mut State) -> Result<()> {
        let is_corrupt = state.header.has(spec::incompatible::CORRUPT);
        if is_corrupt || !state.bitmaps.has_changes() {
            return Ok(());
        }
        let is_half_spent = self.with_bitmaps(state, |image, state, set| {
            image.store_set(state, set)?;
            // Budgets only shrink: what was taken for bits that are gone comes back by reading
            // anew what is on disk now.
            let mut left = set.budget;
            Ok(left.reserve("bitmap", image.limits.metadata_bytes / 2).is_err())
        })?;
        if is_half_spent {
            self.forget_bitmaps(state);
        }
        Ok(())
    }

    fn store_set(&self, state: &mut State, set: &mut BitmapSet) -> Result<()> {
        let mut taken = Vec::new();
        let placed = self.place_set(state, set, &mut taken).and_then(|placed| {
            self.catch_up(state)?;
            self.barrier(state)?;
            Ok(placed)
        });
        let placed = match placed {
            Ok(placed) => placed,
            Err(error) => {
                for run in taken {
                    state.allocator_mut()?.give_back(run)?;
                }
                return Err(error);
            }
        };
        self.switch_directory(state, set.bitmaps.len(), &placed.directory)?;
        self.adopt(state, set, placed)
    }

    /// Writes everything that changed to new clusters, which are noted in `taken`.
    fn place_set(
        &self,
        state: &mut State,
        set: &BitmapSet,
        taken: &mut Vec<FreeRun>,
    ) -> Result<Placed> {
        let mut bitmaps = Vec::with_capacity(set.bitmaps.len());
        for tracked in &set.bitmaps {
            bitmaps.push(self.place_bitmap(state, tracked, set.is_edited, taken)?);
        }
        let entries = set.bitmaps.iter().map(|tracked| &tracked.entry);
        let raws = bitmaps.iter().map(|placed: &PlacedBitmap| placed.raw);
        let bytes = directory::encode(entries.zip(raws));
        let directory = if bytes.is_empty() {
            0..0
        } else {
            self.write_new(state, &bytes, taken, "write bitmap directory")?
        };
        Ok(Placed { bitmaps, directory })
    }

    /// `moves`: what did not change goes to new clusters as well.
    fn place_bitmap(
        &self,
        state: &mut State,
        tracked: &Tracked,
        moves: bool,
        taken: &mut Vec<FreeRun>,
    ) -> Result<PlacedBitmap> {
        let mut raw = tracked.entry.raw;
        let mut table: Vec<TableEntry> = tracked.chunks.stored_table().collect();
        let has_table = num::to_u64(table.len()).saturating_mul(8)
            == tracked.table.end.saturating_sub(tracked.table.start)
            && (raw.bitmap_table_offset != 0 || table.is_empty());
        if !tracked.is_trusted || (has_table && !moves && !tracked.chunks.has_changes()) {
            return Ok(PlacedBitmap { raw, table: None, entries: Vec::new() });
        }
        let mut entries = Vec::new();
        let mut changed = tracked.chunks.changed().peekable();
        for (index, place) in table.iter_mut().enumerate() {
            let entry = match (changed.next_if(|(changed, _)| *changed == index), &*place) {
                (Some((_, Content::Zeroes)), _) => TableEntry::Zeroes,
                (Some((_, Content::Ones)), _) => TableEntry::Ones,
                (Some((_, Content::Bytes(bytes))), _) => {
                    let new = self.write_new(state, bytes, taken, "write bitmap")?;
                    TableEntry::Cluster(new.start)
                }
                (None, TableEntry::Cluster(old)) if moves => {
                    let bytes = tracked.chunks.read_stored(self.file.as_ref(), index, *old)?;
                    let new = self.write_new(state, &bytes, taken, "write bitmap")?;
                    TableEntry::Cluster(new.start)
                }
                (None, _) => continue,
            };
            entries.push((index, entry));
            *place = entry;
        }
        if table.is_empty() {
            // A disk of no bytes.
            (raw.bitmap_table_offset, raw.bitmap_table_size) = (0, 0);
            return Ok(PlacedBitmap { raw, table: Some(0..0), entries });
        }
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.encode().to_be_bytes()).collect();
        let place = self.write_new(state, &bytes, taken, "write bitmap table")?;
        raw.bitmap_table_offset = place.start;
        raw.bitmap_table_size = u32::try_from(table.len()).unwrap_or(u32::MAX);
        Ok(PlacedBitmap { raw, table: Some(place), entries })
    }

    /// Writes `bytes` to new clusters. Returns the host bytes.
    fn write_new(
        &self,
        state: &mut State,
        bytes: &[u8],
        taken: &mut Vec<FreeRun>,
        op: &'static str,
    ) -> Result<Range<u64>> {
        let g = self.geometry;
        let len = num::to_u64(bytes.len());
        let (run, _) = self.allocate(state, g.clusters_for(len))?;
        taken.push(run);
        let at = g.cluster_offset(run.first);
        self.file_writer()?.write_all_at(bytes, at).map_err(Error::io(op, at))?;
        Ok(at..at.saturating_add(len))
    }

    /// Makes the header lead to another directory, which is durable. The autoclear bit is set only
    /// while the extension is whole.
    fn switch_directory(
        &self,
        state: &mut State,
        count: usize,
        directory: &Range<u64>,
    ) -> Result<()> {
        let with = state.header.autoclear | spec::autoclear::BITMAPS;
        let without = with & !spec::autoclear::BITMAPS;
        if directory.is_empty() {
            self.write_autoclear(state, without)?;
            return self.rewrite_header(state, |header| {
                header.extensions.retain(|known| !matches!(known, Extension::Bitmaps(_)));
            });
        }
        let raw = RawBitmapsExtension {
            nb_bitmaps: u32::try_from(count).unwrap_or(u32::MAX),
            bitmap_directory_size: directory.end.saturating_sub(directory.start),
            bitmap_directory_offset: directory.start,
        };
        let mut header = state.header.clone();
        set_extension(&mut header, &raw);
        if state.header.autoclear == with
            && let Some((at, bytes)) = change_in_one_sector(&state.header, &header)?
        {
            self.file_writer()?
                .write_all_at(&bytes, at)
                .map_err(Error::io("write bitmaps extension", at))?;
            self.barrier(state)?;
            state.header = header;
            return Ok(());
        }
        self.write_autoclear(state, without)?;
        self.rewrite_header(state, |header| set_extension(header, &raw))?;
        self.write_autoclear(state, with)
    }

    fn write_autoclear(&self, state: &mut State, autoclear: u64) -> Result<()> {
        if state.header.autoclear == autoclear {
            return Ok(());
        }
        self.file_writer()?
            .write_all_at(&autoclear.to_be_bytes(), offset::AUTOCLEAR)
            .map_err(Error::io("write header", offset::AUTOCLEAR))?;
        self.barrier(state)?;
        state.header.autoclear = autoclear;
        Ok(())
    }

    /// Enters in memory what the disk has now, and releases what it had before.
    fn adopt(&self, state: &mut State, set: &mut BitmapSet, placed: Placed) -> Result<()> {
        let g = self.geometry;
        let guard = &mut state.allocator_mut()?.guard;
        guard.add(g.cluster_index(placed.directory.start)..g.clusters_for(placed.directory.end));
        let tables = placed.bitmaps.iter().filter_map(|placed| placed.table.as_ref());
        for table in tables {
            guard.add(g.cluster_index(table.start)..g.clusters_for(table.end));
        }
        let mut old = core::mem::take(&mut set.dropped);
        old.push(core::mem::replace(&mut set.directory, placed.directory));
        let mut at = set.directory.start;
        for (tracked, placed) in set.bitmaps.iter_mut().zip(placed.bitmaps) {
            tracked.entry.raw = placed.raw;
            tracked.entry.at = at;
            at = at.saturating_add(tracked.entry.len_bytes());
            tracked.is_in_use = false;
            if let Some(table) = placed.table {
                old.push(core::mem::replace(&mut tracked.table, table));
            }
            for (index, entry) in placed.entries {
                old.extend(cluster_of(tracked.chunks.settle(index, entry), g));
            }
        }
        set.is_edited = false;
        set.is_marked = false;
        let allocator = state.allocator_mut()?;
        for range in old.into_iter().filter(|range| !range.is_empty()) {
            let clusters = g.cluster_index(range.start)..g.clusters_for(range.end);
            allocator.guard.remove(clusters.clone());
            for cluster in clusters {
                // In a damaged image it may not be counted: there is nothing to give back then.
                if allocator.live_refcount(cluster)? > 0 {
                    allocator.release(cluster..cluster.saturating_add(1), Afterwards::Keep);
                }
            }
        }
        Ok(())
    }

    /// Says on disk that bitmaps are in use, before memory gets ahead of it.
    pub(crate) fn mark_in_use(
        &self,
        state: &State,
        set: &mut BitmapSet,
        which: &[usize],
    ) -> Result<()> {
        if which.is_empty() {
            return Ok(());
        }
        for index in which {
            let Some(tracked) = set.bitmaps.get(*index) else { continue };
            let flags = tracked.entry.raw.flags | bitmap_flag::IN_USE;
            let at = tracked.entry.at.saturating_add(RawBitmap::offset_of("flags"));
            self.file_writer()?
                .write_all_at(&flags.to_be_bytes(), at)
                .map_err(Error::io("mark bitmap", at))?;
        }
        self.barrier(state)?;
        for index in which {
            if let Some(tracked) = set.bitmaps.get_mut(*index) {
                tracked.is_in_use = true;
            }
        }
        Ok(())
    }
}

fn set_extension(header: &mut Header, raw: &RawBitmapsExtension) {
    let new = Extension::Bitmaps(raw.encode().to_vec());
    let known = header.extensions.iter_mut().rfind(|known| matches!(known, Extension::Bitmaps(_)));
    match known {
        Some(known) => *known = new,
        None => header.extensions.push(new),
    }
}

/// The bytes by which two headers differ and where they lie, if they lie in one sector, which is
/// written whole or not at all.
fn change_in_one_sector(old: &Header, new: &Header) -> Result<Option<(u64, Vec<u8>)>> {
    let (old, new) = (old.encode()?, new.encode()?);
    let differs = |(old, new): (&u8, &u8)| old != new;
    let first = old.iter().zip(&new).position(differs);
    let last = old.iter().zip(&new).rposition(differs);
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    let sector_of = |at: usize| num::to_u64(at) / spec::SECTOR_BYTES;
    let is_one = old.len() == new.len() && sector_of(first) == sector_of(last);
    let bytes = new.get(first..=last).filter(|_| is_one);
    Ok(bytes.map(|bytes| (num::to_u64(first), bytes.to_vec())))
}
