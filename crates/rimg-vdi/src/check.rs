//! Checking the block map, in QEMU's words, and repairing it.

use crate::image::{Access, VdiImage};
use crate::map::VdiMap;
use crate::table::Entry;
use rimg_core::{CheckSummary, Error, Finding, FindingKind, Repair, Result};
use std::collections::BTreeSet;

pub(crate) fn check(
    image: &VdiImage,
    repair: Repair,
    found: &mut dyn FnMut(&Finding),
) -> Result<CheckSummary> {
    let mut report = Report { summary: CheckSummary::default(), found };
    if repair == Repair::Nothing {
        image.blocks.look(|map| {
            map.read_left_out(image.limits)?;
            walk(map, &mut report)
        })?;
        return Ok(report.summary);
    }
    if !matches!(image.access, Access::Write | Access::Repair) {
        return Err(Error::ReadOnly("it was opened for reading"));
    }
    let wrong = image.blocks.look(|map| walk(map, &mut report))?;
    if wrong.any() && (repair == Repair::All || report.summary.corruptions == 0) {
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

    fn leak(&mut self, blocks: u64, message: String) {
        self.summary.leaks = self.summary.leaks.saturating_add(blocks);
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

/// Blocks of the disk whose entries are wrong.
#[derive(Debug, Default)]
struct Wrong {
    /// They name a block that the file has not.
    lost: Vec<u64>,
    /// They name a block that another one names as well.
    shared: Vec<u64>,
    /// The header's number of blocks in use is not theirs.
    count: bool,
}

impl Wrong {
    fn any(&self) -> bool {
        self.count || !self.lost.is_empty() || !self.shared.is_empty()
    }
}

fn walk(map: &mut VdiMap, report: &mut Report<'_>) -> Result<Wrong> {
    let mut wrong = Wrong::default();
    let twice = named_twice(map)?;
    let mut seen = BTreeSet::new();
    let mut in_use: u64 = 0;
    let mut end: u64 = 0;
    let len = map.file_len()?;
    for block in 0..map.blocks() {
        let Entry::Block(index) = map.entry(block) else { continue };
        // A disk that was made smaller by somebody who did not come to move its blocks together
        // has some further back than it has blocks.
        let is_there = index < map.header.allocated && map.end_of(index, block) <= len;
        if u64::from(index) >= map.blocks() && !is_there {
            report.error(format!("ERROR: block index {block} too large, is {index}"));
            wrong.lost.push(block);
            continue;
        }
        in_use = in_use.saturating_add(1);
        end = end.max(u64::from(index).saturating_add(1));
        if twice.binary_search(&index).is_ok() && !seen.insert(index) {
            report.error(format!("ERROR: block index {index} also used by {index}"));
            wrong.shared.push(block);
        } else if map.end_of(index, block) > len {
            report.error(format!("ERROR: block index {block} behind end of file, is {index}"));
            wrong.lost.push(block);
        }
    }
    let expected = u64::from(map.header.allocated);
    if in_use != expected {
        let message =
            format!("ERROR: allocated blocks mismatch, is {in_use}, should be {expected}");
        // With too large a number the next program leaves a gap. With one that is too small, it
        // writes over a block.
        if end > expected || wrong.any() {
            report.error(message);
        } else {
            report.leak(expected.saturating_sub(in_use), message);
        }
        wrong.count = true;
    }
    Ok(wrong)
}

/// The blocks of the file that more than one entry names, in order.
fn named_twice(map: &VdiMap) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    let needed = map.header.map_bytes();
    all.try_reserve_exact(map.entries.len()).map_err(|_| Error::Limit {
        what: "block map",
        needed,
        limit: 0,
    })?;
    for raw in &map.entries {
        if let Entry::Block(index) = Entry::parse(*raw) {
            all.push(index);
        }
    }
    all.sort_unstable();
    let mut twice: Vec<u32> = Vec::new();
    for pair in all.windows(2) {
        if let [one, other] = pair
            && one == other
            && twice.last() != Some(one)
        {
            twice.push(*one);
        }
    }
    Ok(twice)
}

/// Blocks whose data is nowhere read as zeroes from now on; those that shared theirs get a copy
/// each.
fn mend(map: &mut VdiMap, wrong: &Wrong) -> Result<()> {
    let len = map.file_len()?;
    let mut shared: Vec<(u64, u32)> = Vec::new();
    for &block in &wrong.lost {
        map.set_entry(block, Entry::Discarded)?;
    }
    for &block in &wrong.shared {
        if let Entry::Block(index) = map.entry(block) {
            let is_lost = map.end_of(index, block) > len;
            map.set_entry(block, Entry::Discarded)?;
            if !is_lost {
                shared.push((block, index));
            }
        }
    }
    map.prepare_for_writing()?;
    for (block, from) in shared {
        let to = map.slots.take()?;
        map.copy_block(from, to)?;
        map.set_entry(block, Entry::Block(to))?;
        map.slots.use_it(to);
    }
    map.close_gaps()?;
    Ok(())
}
