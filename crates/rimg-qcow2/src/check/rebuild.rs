//! New refcount structures from scratch.
//!
//! Nothing that is in use is touched: blocks and table are written to clusters that nothing refers
//! to and made durable, and only then the header, in one sector, leads to them. The old ones are
//! still counted by the new ones; they are given back when the new ones are in force.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::Subject;
use super::counts::Counts;
use super::tables::{sync, writer};
use crate::address::Geometry;
use crate::header::offset;
use crate::{refcount, spec};
use rimg_core::{Error, Result, num, op};
use std::collections::BTreeMap;

/// Builds refcount structures that say what was counted, and puts them into force. New clusters
/// are looked for from cluster `from` on.
pub(super) fn rebuild(subject: &mut Subject<'_>, counts: &mut Counts, from: u64) -> Result<()> {
    let g = subject.header.geometry;
    let plan = Plan::make(g, counts, from)?;
    let file = writer(subject.file)?;
    let mut bytes = vec![0; num::to_usize(g.cluster_bytes())?];
    for (number, cluster) in &plan.blocks {
        fill_block(&mut bytes, g, *number, counts)?;
        let at = g.cluster_offset(*cluster);
        file.write_all_at(&bytes, at).map_err(Error::io(op::WRITE_REFCOUNT_BLOCK, at))?;
    }
    let table_at = g.cluster_offset(plan.table);
    let table_bytes = plan.table_clusters.saturating_mul(g.cluster_bytes());
    let mut table = vec![0; num::to_usize(table_bytes)?];
    for (number, cluster) in &plan.blocks {
        let start = num::to_usize(number.saturating_mul(8))?;
        if let Some(entry) = table.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
            *entry = g.cluster_offset(*cluster).to_be_bytes();
        }
    }
    file.write_all_at(&table, table_at).map_err(Error::io(op::WRITE_REFCOUNT_TABLE, table_at))?;
    sync(subject.file)?;
    // Offset and length are next to each other in one sector: both change or none does.
    let clusters = u32::try_from(plan.table_clusters).unwrap_or(u32::MAX);
    let mut field = [0; 12];
    let (offset_bytes, clusters_bytes) = field.split_at_mut(8);
    offset_bytes.copy_from_slice(&table_at.to_be_bytes());
    clusters_bytes.copy_from_slice(&clusters.to_be_bytes());
    file.write_all_at(&field, offset::REFCOUNT_TABLE)
        .map_err(Error::io("write header", offset::REFCOUNT_TABLE))?;
    sync(subject.file)?;
    subject.header.refcount_table_offset = table_at;
    subject.header.refcount_table_clusters = clusters;
    Ok(())
}

/// Where the new structures go.
#[derive(Debug)]
struct Plan {
    /// The clusters of refcount blocks, by their number in the table.
    blocks: BTreeMap<u64, u64>,
    /// The first cluster of the table.
    table: u64,
    table_clusters: u64,
}

impl Plan {
    /// Takes clusters until everything that is in use, these included, has a block.
    fn make(g: Geometry, counts: &mut Counts, from: u64) -> Result<Self> {
        let mut plan = Self { blocks: BTreeMap::new(), table: 0, table_clusters: 0 };
        let mut next = from;
        // Blocks before this one are there, or not needed.
        let mut done = 0;
        loop {
            while let Some(number) = plan.missing_block(g, counts, done) {
                // A block lies in or behind the part of the file that it is for, as QEMU has it:
                // holes near the start are left to the table.
                let covered = number << g.refcounts_per_block_bits();
                let cluster = counts.first_free(next.max(covered), 1);
                check_end(g, cluster, 1)?;
                counts.take(cluster, 1)?;
                plan.blocks.insert(number, cluster);
                next = cluster.saturating_add(1);
                done = number;
            }
            let last = plan.blocks.keys().next_back().copied().unwrap_or(0);
            let entries = last.saturating_add(1);
            let clusters = g.clusters_for(entries.saturating_mul(8));
            if clusters == plan.table_clusters {
                return Ok(plan);
            }
            let bytes = clusters.saturating_mul(g.cluster_bytes());
            if bytes > spec::MAX_REFCOUNT_TABLE_BYTES {
                let limit = spec::MAX_REFCOUNT_TABLE_BYTES;
                let what = "refcount table in bytes";
                return Err(Error::Limit { what, needed: bytes, limit });
            }
            counts.give_back(plan.table, plan.table_clusters)?;
            plan.table = counts.first_free(from, clusters);
            check_end(g, plan.table, clusters)?;
            counts.take(plan.table, clusters)?;
            plan.table_clusters = clusters;
            done = plan.table >> g.refcounts_per_block_bits();
        }
    }

    /// The first block from number `done` on that is needed and not there yet.
    fn missing_block(&self, g: Geometry, counts: &Counts, done: u64) -> Option<u64> {
        let bits = g.refcounts_per_block_bits();
        let end = counts.clusters();
        let mut from = done << bits;
        while let Some(cluster) = counts.pages().next_used(from, end) {
            let number = cluster >> bits;
            if !self.blocks.contains_key(&number) {
                return Some(number);
            }
            from = number.saturating_add(1) << bits;
        }
        None
    }
}

fn check_end(g: Geometry, first: u64, clusters: u64) -> Result<()> {
    let end = first.saturating_add(clusters);
    let limit = g.cluster_index(i64::MAX.unsigned_abs());
    if end <= limit {
        return Ok(());
    }
    Err(Error::Limit { what: "host offset in clusters", needed: end, limit })
}

fn fill_block(bytes: &mut [u8], g: Geometry, number: u64, counts: &Counts) -> Result<()> {
    bytes.fill(0);
    let first = number << g.refcounts_per_block_bits();
    let end = first.saturating_add(g.refcounts_per_block());
    let mut from = first;
    while let Some(cluster) = counts.pages().next_used(from, end) {
        let index = num::to_usize(cluster.saturating_sub(first))?;
        refcount::set(bytes, g.refcount, index, counts.of(cluster));
        from = cluster.saturating_add(1);
    }
    Ok(())
}
