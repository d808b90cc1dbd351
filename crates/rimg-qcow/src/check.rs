//! Checking metadata: every place of the file belongs to one thing, and every entry leads into the
//! file. QEMU has no check of this format; the words are rimg's own.
//!
//! Nothing in the format says which places are free, and compressed clusters that are written over
//! leave gaps that nobody fills: gaps are no leaks. Entries that lead nowhere are forgotten by a
//! repair of everything.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::driver::read_header;
use crate::header::Header;
use crate::image::{Access, QcowImage};
use crate::map::{L1, L2};
use crate::spec::SECTOR_BYTES;
use crate::table::L2Entry;
use rimg_blocks::{Change, EntryOrder, Table, TableCache};
use rimg_core::{
    Check, CheckSummary, Error, Finding, FindingKind, Limits, Repair, Result, Storage, num,
};
use std::sync::Arc;

impl Check for QcowImage {
    fn check(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        let file = self.blocks.file();
        match (self.access, repair) {
            (Access::Write, Repair::All) => Err(Error::Unsupported {
                format: crate::error::FORMAT,
                feature: "repairing an image that is being written".to_owned(),
            }),
            (Access::Write, _) => self
                .blocks
                .alone(|map| check(file, &map.header, self.limits, Repair::Nothing, found)),
            (Access::Repair, _) | (_, Repair::Nothing) => {
                check(file, &read_header(file.as_ref())?, self.limits, repair, found)
            }
            _ => Err(Error::ReadOnly("it was opened for reading")),
        }
    }
}

fn check(
    file: &Arc<dyn Storage>,
    header: &Header,
    limits: Limits,
    repair: Repair,
    found: &mut dyn FnMut(&Finding),
) -> Result<CheckSummary> {
    let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let sectors = len.div_ceil(SECTOR_BYTES);
    let bytes = sectors.div_ceil(64).saturating_mul(8);
    limits.metadata_budget().reserve("sectors in use", bytes)?;
    let mut walk = Walk {
        header,
        len,
        tables: TableCache::new(Arc::clone(file), EntryOrder::BigEndian),
        used: vec![0; num::to_usize(bytes / 8)?],
        repairs: repair == Repair::All,
        found,
        summary: CheckSummary {
            total_clusters: header.geometry.clusters_for(header.size_bytes()),
            ..CheckSummary::default()
        },
    };
    walk.go()?;
    let Walk { summary, mut tables, .. } = walk;
    if summary.corruptions_fixed > 0 {
        let writer = file.writer().ok_or(Error::ReadOnly("its file was opened for reading"))?;
        for level in [L2, L1] {
            for change in tables.take(level) {
                if let Change::Write { at, bytes } = change {
                    writer.write_all_at(&bytes, at).map_err(Error::io("write table", at))?;
                }
            }
            writer.sync().map_err(Error::io("make writes durable", 0))?;
            tables.written();
        }
    }
    Ok(summary)
}

struct Walk<'a> {
    header: &'a Header,
    len: u64,
    tables: TableCache,
    /// One bit for each sector of the file.
    used: Vec<u64>,
    repairs: bool,
    found: &'a mut dyn FnMut(&Finding),
    summary: CheckSummary,
}

impl Walk<'_> {
    fn go(&mut self) -> Result<()> {
        let g = self.header.geometry;
        let l1_bytes = self.header.l1_entries().saturating_mul(8);
        self.take(self.header.l1_offset, l1_bytes);
        let entries = self.header.l1_entries();
        let l1 = Table { at: self.header.l1_offset, entries, level: L1 };
        self.each(&l1, &mut |walk, index, at| {
            let what = format!("L2 table {index}");
            if !walk.is_inside(at, g.l2_bytes()) {
                return walk.forget(&l1, index, &format!("{what} lies outside the file"));
            }
            if !walk.take(at, g.l2_bytes()) {
                // Looking at it again finds nothing else, and there may be many.
                walk.note(&format!("{what} lies where something else does"), false);
                return Ok(());
            }
            walk.check_table(index, at)
        })
    }

    fn check_table(&mut self, l1_index: u64, at: u64) -> Result<()> {
        let g = self.header.geometry;
        let table = Table { at, entries: g.l2_entries(), level: L2 };
        let mut expected = None;
        self.each(&table, &mut |walk, index, raw| {
            let cluster = g.first_cluster_of(l1_index).saturating_add(index);
            let (host, len) = match L2Entry::parse(raw, g) {
                L2Entry::Unallocated => return Ok(()),
                L2Entry::Data(host) => (host, g.cluster_bytes()),
                L2Entry::Compressed { host, len_bytes } => {
                    let compressed = &mut walk.summary.compressed_clusters;
                    *compressed = compressed.saturating_add(1);
                    (host, len_bytes)
                }
            };
            if len == 0 || !walk.is_inside(host, len) {
                let what = format!("cluster {cluster} lies outside the file");
                return walk.forget(&table, index, &what);
            }
            let summary = &mut walk.summary;
            summary.allocated_clusters = summary.allocated_clusters.saturating_add(1);
            let end = host.saturating_add(len);
            summary.image_end_offset = summary.image_end_offset.max(end);
            if expected.is_some_and(|expected| expected != host) {
                summary.fragmented_clusters = summary.fragmented_clusters.saturating_add(1);
            }
            expected = num::align_up(end, SECTOR_BYTES);
            if !walk.take(host, len) {
                walk.note(&format!("cluster {cluster} lies where something else does"), false);
            }
            Ok(())
        })
    }

    fn forget(&mut self, table: &Table, index: u64, what: &str) -> Result<()> {
        self.note(what, self.repairs);
        if self.repairs { self.tables.set(table, index, 0) } else { Ok(()) }
    }

    fn note(&mut self, what: &str, repaired: bool) {
        let summary = &mut self.summary;
        let sum = if repaired { &mut summary.corruptions_fixed } else { &mut summary.corruptions };
        *sum = sum.saturating_add(1);
        let verb = if repaired { "Repairing" } else { "ERROR" };
        let message = format!("{verb} {what}");
        (self.found)(&Finding {
            kind: FindingKind::Corruption,
            message,
            repaired,
            wordless_in_qemu: false,
        });
    }

    fn is_inside(&self, at: u64, len: u64) -> bool {
        let start = num::to_u64(Header::RAW_BYTES);
        at >= start && at.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Notes that bytes of the file are used. Says whether none of their sectors was before.
    fn take(&mut self, at: u64, len: u64) -> bool {
        let mut is_new = true;
        let end = at.saturating_add(len).div_ceil(SECTOR_BYTES);
        for sector in at / SECTOR_BYTES..end {
            let bit = 1_u64 << (sector % 64);
            let word = usize::try_from(sector / 64).ok();
            if let Some(word) = word.and_then(|index| self.used.get_mut(index)) {
                is_new &= *word & bit == 0;
                *word |= bit;
            }
        }
        is_new
    }

    /// Shows all entries of a table that are not 0.
    fn each(
        &mut self,
        table: &Table,
        show: &mut dyn FnMut(&mut Self, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut index = 0;
        let mut found = Vec::new();
        while index < table.entries {
            let mut at = index;
            let shown = self.tables.entries(table, index, |entry| {
                if entry != 0 {
                    found.push((at, entry));
                }
                at = at.saturating_add(1);
                true
            })?;
            for (index, entry) in found.drain(..) {
                show(self, index, entry)?;
            }
            index = index.saturating_add(shown);
        }
        Ok(())
    }
}
