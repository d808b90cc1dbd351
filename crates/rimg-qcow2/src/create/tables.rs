//! Writing the tables of a new image, and reserving the space that they map.

use super::layout::{Layout, Mapping};
use crate::address::Geometry;
use crate::options::CreateOptions;
use crate::refcount;
use crate::table::{L1Entry, L2Entry};
use rimg_core::{Error, Preallocation, Result, StorageWrite, Zeroing, num, op};
use std::collections::BTreeMap;

/// `full` writes zeroes in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes everything but the header to an empty file, and gives it its length.
pub(super) fn write(
    file: &dyn StorageWrite,
    layout: &Layout,
    options: &CreateOptions,
) -> Result<()> {
    let g = options.geometry;
    let mut len = layout.file_bytes();
    if let Some(mapping) = &layout.mapping {
        // Where a disk cannot grow, this fails before anything is written.
        len = len.max(g.cluster_offset(mapping.data.end));
        file.set_len_bytes(len).map_err(Error::io(op::EXTEND_FILE, 0))?;
    }
    clear_l1(file, layout)?;
    if let Some(mapping) = &layout.mapping {
        reserve(file, g, mapping, options.preallocation)?;
        write_mapping(file, g, layout, mapping)?;
    }
    take_table_clusters(file, g, layout)?;
    write_refcount_blocks(file, g, layout)?;
    if let Some((cluster, blocks)) = &layout.stale_table {
        write_refcount_table(file, g, *cluster, blocks)?;
    }
    write_refcount_table(file, g, layout.table.start, &layout.blocks)?;
    file.set_len_bytes(len).map_err(Error::io(op::EXTEND_FILE, 0))
}

/// Clears the L1 table where something else was: a device keeps what it held, and a table that is
/// empty is not written.
fn clear_l1(file: &dyn StorageWrite, layout: &Layout) -> Result<()> {
    let at = layout.l1_offset;
    if file.len_bytes().map_err(Error::io("read file length", 0))? <= at {
        return Ok(());
    }
    let end = at.saturating_add(layout.l1_entries.saturating_mul(8));
    file.write_zeroes_at(at..end, Zeroing::MayPunch).map_err(Error::io("clear L1 table", at))
}

/// Takes the space of the header and of the refcount structures, in whole clusters.
///
/// They are the clusters that every image has. An image that has them as holes looks as if its
/// data had been preallocated as well, to programs that ask the file system about it, as QEMU does.
fn take_table_clusters(file: &dyn StorageWrite, g: Geometry, layout: &Layout) -> Result<()> {
    let mut clusters: Vec<u64> =
        layout.blocks.values().copied().chain(layout.table.clone()).collect();
    clusters.push(0);
    clusters.sort_unstable();
    for run in clusters.chunk_by(|one, next| one.saturating_add(1) == *next) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let (start, end) = (g.cluster_offset(*first), g.cluster_offset(last.saturating_add(1)));
        file.write_zeroes_at(start..end, Zeroing::KeepAllocated)
            .map_err(Error::io(op::RESERVE_SPACE, start))?;
    }
    Ok(())
}

fn write_refcount_blocks(file: &dyn StorageWrite, g: Geometry, layout: &Layout) -> Result<()> {
    let used = layout.used();
    for (index, cluster) in &layout.blocks {
        let first = index << g.refcounts_per_block_bits();
        let end = first.saturating_add(g.refcounts_per_block());
        let within = |at: u64| at.clamp(first, end).saturating_sub(first);
        let Some(last) = used.iter().map(|range| within(range.end)).max() else { continue };
        // What follows the last count is left to be zeroes.
        let bytes = (last << g.refcount.order()).div_ceil(8);
        let mut block = vec![0; num::to_usize(bytes)?];
        for range in &used {
            for cluster in within(range.start)..within(range.end) {
                refcount::set(&mut block, g.refcount, num::to_usize(cluster)?, 1);
            }
        }
        let at = g.cluster_offset(*cluster);
        file.write_all_at(&block, at).map_err(Error::io(op::WRITE_REFCOUNT_BLOCK, at))?;
    }
    Ok(())
}

fn write_refcount_table(
    file: &dyn StorageWrite,
    g: Geometry,
    cluster: u64,
    blocks: &BTreeMap<u64, u64>,
) -> Result<()> {
    let entries = blocks.last_key_value().map_or(0, |(index, _)| index.saturating_add(1));
    let block = |index| blocks.get(&index).map_or(0, |block| g.cluster_offset(*block));
    let table: Vec<u8> = (0..entries).flat_map(|index| block(index).to_be_bytes()).collect();
    let at = g.cluster_offset(cluster);
    file.write_all_at(&table, at).map_err(Error::io(op::WRITE_REFCOUNT_TABLE, at))
}

/// Takes the space for guest data.
fn reserve(
    file: &dyn StorageWrite,
    g: Geometry,
    mapping: &Mapping,
    how: Preallocation,
) -> Result<()> {
    let (start, end) = (g.cluster_offset(mapping.data.start), g.cluster_offset(mapping.data.end));
    if how == Preallocation::Falloc {
        return file
            .write_zeroes_at(start..end, Zeroing::KeepAllocated)
            .map_err(Error::io(op::RESERVE_SPACE, start));
    }
    let zeroes = vec![0; BUFFER_BYTES];
    let mut at = start;
    while at < end {
        let len = end.saturating_sub(at).min(num::to_u64(zeroes.len()));
        let piece = zeroes.get(..num::to_usize(len)?).unwrap_or_default();
        file.write_all_at(piece, at).map_err(Error::io(op::WRITE_RESERVED_ZEROES, at))?;
        at = at.saturating_add(len);
    }
    Ok(())
}

fn write_mapping(
    file: &dyn StorageWrite,
    g: Geometry,
    layout: &Layout,
    mapping: &Mapping,
) -> Result<()> {
    let mut clusters = mapping.data.clone();
    for table in &mapping.l2_tables {
        let count = clusters.end.saturating_sub(clusters.start).min(g.l2_entries());
        let mut bytes = Vec::with_capacity(num::to_usize(g.cluster_bytes())?);
        for cluster in clusters.by_ref().take(num::to_usize(count)?) {
            let entry = L2Entry::standard(g.cluster_offset(cluster), g);
            bytes.extend_from_slice(&entry.descriptor.to_be_bytes());
            if g.extended_l2 {
                // The space is there, but nothing is in it.
                bytes.extend_from_slice(&[0; 8]);
            }
        }
        // Whole clusters have no holes: see `take_table_clusters`.
        bytes.resize(num::to_usize(g.cluster_bytes())?, 0);
        let at = g.cluster_offset(*table);
        file.write_all_at(&bytes, at).map_err(Error::io("write L2 table", at))?;
    }
    let entry = |table: &u64| L1Entry::new(g.cluster_offset(*table)).0;
    let l1: Vec<u8> =
        mapping.l2_tables.iter().flat_map(|table| entry(table).to_be_bytes()).collect();
    file.write_all_at(&l1, layout.l1_offset).map_err(Error::io("write L1 table", layout.l1_offset))
}
