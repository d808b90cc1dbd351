//! Checking the block allocation table and the footer, and repairing them.

use crate::header::Footer;
use crate::image::{Access, DynamicImage};
use crate::map::{VhdMap, start_of};
use crate::spec;
use rimg_core::{CheckSummary, Error, Finding, FindingKind, Repair, Result};

pub(crate) fn check(
    image: &DynamicImage,
    repair: Repair,
    found: &mut dyn FnMut(&Finding),
) -> Result<CheckSummary> {
    let mut report = Report { summary: CheckSummary::default(), found };
    let wrong = image.blocks.look(|map| walk(map, &mut report))?;
    if repair == Repair::Nothing {
        return Ok(report.summary);
    }
    if !matches!(image.access, Access::Write | Access::Repair) {
        return Err(Error::ReadOnly("it was opened for reading"));
    }
    let is_harmless = report.summary.corruptions == 0;
    if wrong.any() && (repair == Repair::All || is_harmless) {
        image.blocks.alone(|map| mend(map, &wrong))?;
        report.all_repaired();
    }
    Ok(report.summary)
}

struct Report<'a> {
    summary: CheckSummary,
    found: &'a mut dyn FnMut(&Finding),
}

impl Report<'_> {
    fn error(&mut self, message: String) {
        self.summary.corruptions = self.summary.corruptions.saturating_add(1);
        (self.found)(&Finding {
            kind: FindingKind::Corruption,
            message,
            repaired: false,
            wordless_in_qemu: false,
        });
    }

    /// What costs space, or a safeguard, but no data.
    fn leak(&mut self, message: String) {
        self.summary.leaks = self.summary.leaks.saturating_add(1);
        (self.found)(&Finding {
            kind: FindingKind::Leak,
            message,
            repaired: false,
            wordless_in_qemu: false,
        });
    }

    fn all_repaired(&mut self) {
        let CheckSummary { corruptions, leaks, .. } = self.summary;
        self.summary.corruptions_fixed = corruptions;
        self.summary.leaks_fixed = leaks;
        (self.summary.corruptions, self.summary.leaks) = (0, 0);
    }
}

/// What is to be mended.
#[derive(Debug, Default)]
struct Wrong {
    /// Blocks whose place is behind the end of the file.
    lost: Vec<u64>,
    /// Blocks whose place is another's as well, or a table's.
    overlapping: Vec<u64>,
    /// One of the footers is missing, or they differ.
    footer: bool,
}

impl Wrong {
    fn any(&self) -> bool {
        self.footer || !self.lost.is_empty() || !self.overlapping.is_empty()
    }
}

fn walk(map: &mut VhdMap, report: &mut Report<'_>) -> Result<Wrong> {
    let mut wrong = Wrong::default();
    let len = map.file_len()?;
    let tables = map.metadata();
    let stride = map.header.stride();
    let mut by_place: Vec<(u32, u32)> = Vec::new();
    for (block, &entry) in (0_u32..).zip(&map.entries) {
        if entry == spec::UNUSED {
            continue;
        }
        let start = start_of(entry);
        let end = start.saturating_add(stride);
        if map.end_of(entry, block.into()) > len {
            report.error(format!(
                "ERROR block {block} at {start:#x} lies behind the end of the file"
            ));
            wrong.lost.push(block.into());
        } else if tables.iter().any(|table| table.start < end && start < table.end) {
            report.error(format!("ERROR block {block} at {start:#x} overlaps a table"));
            wrong.overlapping.push(block.into());
        } else {
            by_place.push((entry, block));
        }
    }
    by_place.sort_unstable();
    let mut end_of_others = 0;
    for &(entry, block) in &by_place {
        let start = start_of(entry);
        if start < end_of_others {
            report.error(format!("ERROR block {block} at {start:#x} overlaps another block"));
            wrong.overlapping.push(block.into());
        } else {
            end_of_others = start.saturating_add(stride);
        }
    }
    for (offset, name) in [(0, "start"), (len.saturating_sub(spec::FOOTER_BYTES), "end")] {
        let mut bytes = [0; 512];
        let read = map.file.read_exact_at(&mut bytes, offset);
        read.map_err(Error::io("read footer", offset))?;
        if Footer::parse(&bytes, offset).ok() != Some(map.footer) {
            report.leak(format!("Footer at the {name} of the file is missing or another"));
            wrong.footer = true;
        }
    }
    Ok(wrong)
}

/// Blocks whose data is nowhere read as what lies below from now on, or zeroes; those that
/// overlap others get a copy of what is there.
fn mend(map: &mut VhdMap, wrong: &Wrong) -> Result<()> {
    let mut copies: Vec<(u64, u32)> = Vec::new();
    for &block in &wrong.lost {
        map.set_entry(block, spec::UNUSED)?;
    }
    for &block in &wrong.overlapping {
        if let Some(entry) = map.entry(block) {
            copies.push((block, entry));
            map.set_entry(block, spec::UNUSED)?;
        }
    }
    map.prepare_for_writing()?;
    for (_, from) in &copies {
        map.keep(*from);
    }
    for (block, from) in copies {
        map.copy_block(block, from)?;
    }
    map.rewrite_footers();
    Ok(())
}
