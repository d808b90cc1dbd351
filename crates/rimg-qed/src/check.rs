//! Checking metadata: every cluster of the file belongs to one thing, and every entry leads into
//! the file.
//!
//! What is counted is what QEMU counts, which has no words for single findings. Repairing forgets
//! entries that lead nowhere, whether leaks only or everything is to be repaired, as QEMU does;
//! clusters that nobody uses stay, and clusters that are used twice as well, since nothing says
//! whose they are.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod compact;
mod walk;

use crate::driver::read_header;
use crate::header::Header;
use crate::image::{Access, QedImage};
use crate::map::{L1, L2};
use crate::spec::feature;
use rimg_blocks::{Change, TableCache};
use rimg_core::{
    Check, CheckSummary, Error, Finding, Limits, Repair, Result, Storage, StorageWrite,
};
use std::sync::Arc;
use walk::Walk;

impl Check for QedImage {
    fn check(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        let file = self.blocks.file();
        match self.access {
            Access::Write => self.blocks.alone(|map| {
                let summary = check(file, &map.header, self.limits, repair, found)?;
                if repair != Repair::Nothing {
                    map.reload(&mut self.limits.metadata_budget())?;
                }
                Ok(summary)
            }),
            Access::Repair if repair != Repair::Nothing => {
                let mut header = read_header(file.as_ref())?;
                repair_unclean(file, &mut header, self.limits, repair, found)
            }
            _ if repair == Repair::Nothing => {
                check(file, &read_header(file.as_ref())?, self.limits, repair, found)
            }
            _ => Err(Error::ReadOnly("it was opened for reading")),
        }
    }
}

/// Checks and repairs an image that nobody has open, and takes note of it in the header when
/// nothing is wrong any more.
pub(crate) fn repair_unclean(
    file: &Arc<dyn Storage>,
    header: &mut Header,
    limits: Limits,
    repair: Repair,
    found: &mut dyn FnMut(&Finding),
) -> Result<CheckSummary> {
    let summary = check(file, header, limits, repair, found)?;
    if summary.corruptions == 0 && summary.check_errors == 0 && header.has(feature::NEED_CHECK) {
        header.features &= !feature::NEED_CHECK;
        let writer = writer(file)?;
        writer.write_all_at(&header.encode(), 0).map_err(Error::io("write header", 0))?;
        sync(writer)?;
    }
    Ok(summary)
}

fn check(
    file: &Arc<dyn Storage>,
    header: &Header,
    limits: Limits,
    repair: Repair,
    found: &mut dyn FnMut(&Finding),
) -> Result<CheckSummary> {
    let mut walk = Walk::new(file, header, &mut limits.metadata_budget(), found)?;
    walk.go(repair != Repair::Nothing)?;
    if walk.summary.corruptions_fixed > 0 {
        let writer = writer(file)?;
        write_tables(writer, &mut walk.tables, L2)?;
        write_tables(writer, &mut walk.tables, L1)?;
    }
    Ok(walk.summary)
}

/// Writes what was changed of the tables of a level, durably.
fn write_tables(writer: &dyn StorageWrite, tables: &mut TableCache, level: u8) -> Result<()> {
    for change in tables.take(level) {
        if let Change::Write { at, bytes } = change {
            writer.write_all_at(&bytes, at).map_err(Error::io("write table", at))?;
        }
    }
    sync(writer)?;
    tables.written();
    Ok(())
}

fn writer(file: &Arc<dyn Storage>) -> Result<&dyn StorageWrite> {
    file.writer().ok_or(Error::ReadOnly("its file was opened for reading"))
}

fn sync(writer: &dyn StorageWrite) -> Result<()> {
    writer.sync().map_err(Error::io("make writes durable", 0))
}
