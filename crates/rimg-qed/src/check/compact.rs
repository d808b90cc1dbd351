//! Giving back what nobody uses: clusters from the end of the file move into the gaps, and the
//! file becomes shorter.
//!
//! A cluster is copied, and the copy is durable, before its entry leads there; the file becomes
//! shorter when no entry leads behind its new end. Until then the image says that it needs a
//! check, and whatever is lost are clusters that nobody uses.

use super::walk::{Used, Walk};
use super::{sync, write_tables, writer};
use crate::header::Header;
use crate::image::QedImage;
use crate::map::{L1, L2};
use crate::table::L2Entry;
use core::ops::Range;
use rimg_blocks::Table;
use rimg_core::{Error, Finding, Limits, Result, Storage, StorageWrite, num};
use std::sync::Arc;

/// Data is copied in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

impl QedImage {
    /// Leaves a file without clusters that nobody uses, as far as tables find room.
    pub(crate) fn compact(&self) -> Result<()> {
        let file = self.blocks.file();
        self.blocks.alone(|map| {
            compact(file, &map.header, self.limits)?;
            map.reload(&mut self.limits.metadata_budget())
        })
    }
}

fn compact(file: &Arc<dyn Storage>, header: &Header, limits: Limits) -> Result<()> {
    let mut unsaid = |_: &Finding| {};
    let mut walk = Walk::new(file, header, &mut limits.metadata_budget(), &mut unsaid)?;
    walk.go(false)?;
    if walk.summary.leaks == 0 || walk.summary.corruptions > 0 {
        return Ok(());
    }
    let mover = Mover { file, writer: writer(file)?, header, end: walk.used.count() };
    mover.move_tables(&mut walk)?;
    mover.move_data(&mut walk, &|from| from >= mover.end, &(0..0))?;
    let len = header.geometry.cluster_start(walk.used.end());
    mover.writer.set_len_bytes(len).map_err(Error::io("set file length", len))?;
    sync(mover.writer)
}

struct Mover<'a> {
    file: &'a Arc<dyn Storage>,
    writer: &'a dyn StorageWrite,
    header: &'a Header,
    /// The cluster that the file shall end with.
    end: u64,
}

impl Mover<'_> {
    fn move_tables(&self, walk: &mut Walk<'_>) -> Result<()> {
        let g = self.header.geometry;
        let count = g.table_clusters();
        let l1 = walk.l1();
        walk.each(&l1, &mut |walk, index, at| {
            let from = g.cluster_of(at);
            if from.saturating_add(count) <= self.end {
                return Ok(());
            }
            if let Some(to) = self.make_gap(walk, count)? {
                return self.move_table(walk, index, from, to);
            }
            // It stands in its own way: it goes behind the end of the file, and comes back.
            let behind = walk.used.clusters;
            self.move_table(walk, index, from, behind)?;
            let to = self.make_gap(walk, count)?.unwrap_or(from);
            self.move_table(walk, index, behind, to)
        })
    }

    fn move_table(&self, walk: &mut Walk<'_>, index: u64, from: u64, to: u64) -> Result<()> {
        let g = self.header.geometry;
        let count = g.table_clusters();
        self.copy(from, to, count)?;
        sync(self.writer)?;
        let l1 = walk.l1();
        walk.tables.set(&l1, index, g.cluster_start(to))?;
        write_tables(self.writer, &mut walk.tables, L1)?;
        walk.metadata.take(to, count);
        walk.used.take(to, count);
        walk.used.give_back(from, count);
        walk.metadata.give_back(from, count);
        Ok(())
    }

    /// Free clusters in a row before the end: those there are, or else without the data there is.
    fn make_gap(&self, walk: &mut Walk<'_>, count: u64) -> Result<Option<u64>> {
        if let Some(gap) = self.gap(&walk.used, count) {
            return Ok(Some(gap));
        }
        let Some(gap) = self.gap(&walk.metadata, count) else { return Ok(None) };
        let window = gap..gap.saturating_add(count);
        let is_empty = self.move_data(walk, &|from| window.contains(&from), &window)?;
        Ok(is_empty.then_some(gap))
    }

    /// The first clusters in a row before the end that are not among `taken`.
    fn gap(&self, taken: &Used, count: u64) -> Option<u64> {
        let mut free = 0_u64;
        for cluster in 0..self.end {
            free = if taken.is_free(cluster) { free.saturating_add(1) } else { 0 };
            if free == count {
                return cluster.checked_add(1)?.checked_sub(count);
            }
        }
        None
    }

    /// Moves the clusters with data that `moves` says to free ones before the end, but not to
    /// `kept`. Says whether there was room for all.
    fn move_data(
        &self,
        walk: &mut Walk<'_>,
        moves: &dyn Fn(u64) -> bool,
        kept: &Range<u64>,
    ) -> Result<bool> {
        let g = self.header.geometry;
        let l1 = walk.l1();
        let mut is_done = true;
        let mut next_free = 0;
        walk.each(&l1, &mut |walk, _, at| {
            let table = Table { at, entries: g.table_entries(), level: L2 };
            let mut moved = Vec::new();
            walk.each(&table, &mut |walk, index, raw| {
                let L2Entry::Data(host) = L2Entry::parse(raw) else { return Ok(()) };
                let from = g.cluster_of(host);
                if !moves(from) {
                    return Ok(());
                }
                let free = |cluster: &u64| walk.used.is_free(*cluster) && !kept.contains(cluster);
                let Some(to) = (next_free..self.end).find(free) else {
                    is_done = false;
                    return Ok(());
                };
                next_free = to.saturating_add(1);
                self.copy(from, to, 1)?;
                walk.used.take(to, 1);
                walk.tables.set(&table, index, L2Entry::Data(g.cluster_start(to)).encode())?;
                moved.push(from);
                Ok(())
            })?;
            if moved.is_empty() {
                return Ok(());
            }
            sync(self.writer)?;
            write_tables(self.writer, &mut walk.tables, L2)?;
            for from in moved {
                walk.used.give_back(from, 1);
            }
            Ok(())
        })?;
        Ok(is_done)
    }

    fn copy(&self, from: u64, to: u64, clusters: u64) -> Result<()> {
        let g = self.header.geometry;
        let len = g.cluster_start(clusters);
        let mut buffer = vec![0; num::to_usize(len.min(PIECE_BYTES))?];
        let mut done = 0;
        while done < len {
            let piece = num::to_usize(len.saturating_sub(done).min(PIECE_BYTES))?;
            let piece = buffer.get_mut(..piece).unwrap_or_default();
            let (from, to) = (
                g.cluster_start(from).saturating_add(done),
                g.cluster_start(to).saturating_add(done),
            );
            self.file.read_exact_at(piece, from).map_err(Error::io("read cluster", from))?;
            self.writer.write_all_at(piece, to).map_err(Error::io("move cluster", to))?;
            done = done.saturating_add(num::to_u64(piece.len()));
        }
        Ok(())
    }
}
