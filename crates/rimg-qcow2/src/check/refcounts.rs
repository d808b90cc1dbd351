//! The refcounts on disk, and what they should be.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::counts::Counts;
use super::{Report, image_end};
use crate::address::Geometry;
use crate::cache::{TableCache, read_padded};
use crate::header::Header;
use crate::refcount::{self, Place};
use crate::spec;
use rimg_core::{Error, FindingKind, MetadataBudget, Result, Storage, num};

/// How much memory refcount blocks take while they are compared.
const CACHE_BYTES: u64 = 4 << 20;

/// The refcount table, and its blocks as they are needed.
pub(super) struct Refcounts<'a> {
    file: &'a dyn Storage,
    g: Geometry,
    table: Vec<u64>,
    table_at: u64,
    table_bytes: u64,
    blocks: TableCache,
}

/// What the disk says of a cluster.
enum OnDisk {
    Count(u64),
    /// The refcount table leads nowhere, or where nothing can be read.
    Unknown,
}

impl<'a> Refcounts<'a> {
    pub(super) fn read(
        file: &'a dyn Storage,
        header: &Header,
        budget: &mut MetadataBudget,
    ) -> Result<Self> {
        let g = header.geometry;
        let table_at = header.refcount_table_offset;
        let table_bytes =
            u64::from(header.refcount_table_clusters).saturating_mul(g.cluster_bytes());
        budget.reserve("refcount table", table_bytes)?;
        let mut raw = budget.buffer("refcount table", table_bytes)?;
        read_padded(file, &mut raw, table_at)
            .map_err(Error::io("read refcount table", table_at))?;
        let (words, _) = raw.as_chunks::<8>();
        let table = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
        let blocks = TableCache::new(g.cluster_bytes(), CACHE_BYTES);
        Ok(Self { file, g, table, table_at, table_bytes, blocks })
    }

    /// Counts the references that the refcount structures are themselves.
    pub(super) fn count(&self, counts: &mut Counts, report: &mut Report<'_>) {
        counts.add(self.table_at, self.table_bytes, report);
        for (number, entry) in self.table.iter().enumerate() {
            let block = entry & spec::REFCOUNT_TABLE_OFFSET_MASK;
            if entry & spec::REFCOUNT_TABLE_RESERVED != 0 {
                let what = "has reserved bits set";
                report.add(
                    FindingKind::Corruption,
                    format!("ERROR refcount table entry {number} {what}"),
                );
                continue;
            }
            if !self.g.is_aligned(block) {
                let what = "is not cluster aligned; refcount table entry corrupted";
                report
                    .add(FindingKind::Corruption, format!("ERROR refcount block {number} {what}"));
                continue;
            }
            if block == 0 {
                continue;
            }
            let cluster = self.g.cluster_index(block);
            if cluster >= counts.clusters() {
                report.add(
                    FindingKind::Corruption,
                    format!("ERROR refcount block {number} is outside image"),
                );
                continue;
            }
            counts.add(block, self.g.cluster_bytes(), report);
            let references = counts.of(cluster);
            if references != 1 {
                report.add(
                    FindingKind::Corruption,
                    format!("ERROR refcount block {number} refcount={references}"),
                );
            }
        }
    }

    /// Compares every refcount with the references that were counted.
    pub(super) fn compare(&mut self, counts: &Counts, report: &mut Report<'_>) -> Result<()> {
        let mut highest = 0;
        for cluster in 0..counts.clusters() {
            let references = counts.of(cluster);
            let OnDisk::Count(refcount) = self.of(cluster)? else {
                let message =
                    format!("Can't get refcount for cluster {cluster}: Input/output error");
                report.add(FindingKind::CheckError, message);
                continue;
            };
            if refcount > 0 || references > 0 {
                highest = cluster;
            }
            if refcount == references {
                continue;
            }
            let (kind, word) = if refcount > references {
                (FindingKind::Leak, "Leaked")
            } else {
                (FindingKind::Corruption, "ERROR")
            };
            report.add(
                kind,
                format!("{word} cluster {cluster} refcount={refcount} reference={references}"),
            );
        }
        report.summary.image_end_offset = image_end(self.g, highest);
        Ok(())
    }

    /// The refcount of the cluster at host offset `at`; `None` where it cannot be known.
    pub(super) fn at(&mut self, at: u64) -> Result<Option<u64>> {
        Ok(match self.of(self.g.cluster_index(at))? {
            OnDisk::Count(count) => Some(count),
            OnDisk::Unknown => None,
        })
    }

    fn of(&mut self, cluster: u64) -> Result<OnDisk> {
        let slice_bytes = self.blocks.slice_bytes();
        let place = refcount::place_of(&self.table, self.g, slice_bytes, cluster);
        let (slice_at, index) = match place {
            Place::NoBlock => return Ok(OnDisk::Count(0)),
            Place::Wrong { .. } => return Ok(OnDisk::Unknown),
            // No file reaches past what is an offset to the operating system.
            Place::In { slice_at, .. } if i64::try_from(slice_at).is_err() => {
                return Ok(OnDisk::Unknown);
            }
            Place::In { slice_at, index } => (slice_at, index),
        };
        let Ok(bytes) = self.blocks.slice(self.file, slice_at, "read refcount block") else {
            return Ok(OnDisk::Unknown);
        };
        Ok(OnDisk::Count(refcount::get(bytes, self.g.refcount, num::to_usize(index)?)))
    }
}
