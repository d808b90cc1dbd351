//! Consistency of the table and of what there is twice, and repair.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use crate::image::{Damaged, VhdxImage};
use crate::map::VhdxMap;
use crate::spec;
use crate::table::{Payload, encode_bitmap};
use core::ops::Range;
use rimg_core::{Check, CheckSummary, Error, Finding, FindingKind, Repair, Result, num};

/// Blocks are copied in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

impl Check for VhdxImage {
    /// Space that nobody uses is no finding: the next one who writes uses it.
    fn check(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        let repairs = repair == Repair::All;
        if repair != Repair::Nothing && !self.blocks.is_writable() {
            return Err(Error::ReadOnly("it was opened for reading"));
        }
        let mut summary = CheckSummary::default();
        let Damaged { header, region_tables, behind_log } = self.damaged;
        let from_log = u64::from(behind_log && repair != Repair::Nothing);
        if from_log > 0 {
            // Mended when the image was opened.
            let (kind, message) = (FindingKind::Corruption, "The log was replayed".to_owned());
            found(&Finding { kind, message, repaired: true, wordless_in_qemu: true });
            summary.corruptions_fixed = from_log;
        }
        let mut report = |message: String| {
            let kind = FindingKind::Corruption;
            found(&Finding { kind, message, repaired: repairs, wordless_in_qemu: false });
            let count =
                if repairs { &mut summary.corruptions_fixed } else { &mut summary.corruptions };
            *count = count.saturating_add(1);
        };
        if header {
            report("ERROR one of the two headers is damaged".to_owned());
        }
        for (number, _) in ["first", "second"].iter().zip(region_tables).filter(|(_, bad)| *bad) {
            report(format!("ERROR the {number} region table is damaged"));
        }
        let damage = self.blocks.look(find_damage)?;
        for damage in &damage {
            report(damage.message());
        }
        if repairs && summary.corruptions_fixed > from_log {
            self.blocks.alone(|map| {
                // Whoever writes anything leaves two good headers; this is something.
                map.todo.region_tables = true;
                damage.iter().try_for_each(|damage| damage.repair(map))
            })?;
        }
        Ok(summary)
    }
}

/// An entry of the table that cannot be as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Damage {
    index: u64,
    /// Where the entry says that its block is, and how long that is.
    host: u64,
    len: u64,
    file_bytes: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The state is none.
    State(u8),
    /// The block starts behind the end of the file.
    Behind,
    /// The block ends there.
    Cut,
    /// It is where the file has something else.
    InMetadata,
    /// Another entry has the same place.
    Shared,
    /// There is no sector bitmap for a block that is there in part.
    NoBitmap,
}

impl Damage {
    /// In QEMU's words, where it has some.
    fn message(&self) -> String {
        let Self { index, host, file_bytes, .. } = self;
        let truncated = "Image has probably been truncated.";
        match self.what {
            What::State(state) => format!("ERROR VHDX BAT entry {index} has unknown state {state}"),
            What::Behind => format!(
                "VHDX BAT entry {index} start offset {host} points after end of file \
                 ({file_bytes}). {truncated}"
            ),
            What::Cut => {
                let last = host.saturating_add(self.len).saturating_sub(1);
                format!(
                    "VHDX BAT entry {index} end offset {last} points after end of file \
                     ({file_bytes}). {truncated}"
                )
            }
            What::InMetadata => {
                format!("ERROR VHDX BAT entry {index} offset {host} points into metadata")
            }
            What::Shared => {
                format!("ERROR VHDX BAT entry {index} offset {host} is used by another entry")
            }
            What::NoBitmap => format!("ERROR VHDX BAT entry {index} needs a sector bitmap"),
        }
    }

    fn repair(&self, map: &mut VhdxMap) -> Result<()> {
        let entry = map.bat.entry(self.index);
        let block = map.geometry.block_of_entry(self.index);
        match self.what {
            // What was there is lost.
            What::State(_) | What::Behind | What::InMetadata => {
                let nothing = if block.is_some() { Payload::Zero.encode() } else { 0 };
                map.set_entry(self.index, nothing);
            }
            What::Cut => {
                map.used_end = map.used_end.max(self.host.saturating_add(self.len));
                map.todo.grow = true;
            }
            What::NoBitmap => {
                map.set_entry(self.index, Payload::FullyPresent(self.host).encode());
            }
            What::Shared => {
                let place = map.space.take(self.len)?;
                copy(map, self.host, place.host, self.len)?;
                map.used_end = map.used_end.max(place.host.saturating_add(self.len));
                let moved = match Payload::parse(entry) {
                    _ if block.is_none() => encode_bitmap(place.host),
                    Ok(Payload::PartiallyPresent(_)) => {
                        Payload::PartiallyPresent(place.host).encode()
                    }
                    _ => Payload::FullyPresent(place.host).encode(),
                };
                map.set_entry(self.index, moved);
            }
        }
        Ok(())
    }
}

fn copy(map: &VhdxMap, from: u64, to: u64, len: u64) -> Result<()> {
    let file = map.file.as_ref();
    let writer = file.writer().ok_or(Error::ReadOnly("its file cannot be written"))?;
    let file_bytes = file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut buf = vec![0; num::to_usize(PIECE_BYTES)?];
    let mut done = 0;
    while done < len {
        let (at, target) = (from.saturating_add(done), to.saturating_add(done));
        let there = file_bytes.saturating_sub(at).min(PIECE_BYTES);
        let (inside, behind) = buf.split_at_mut(num::to_usize(there)?);
        behind.fill(0);
        file.read_exact_at(inside, at).map_err(Error::io("copy block", at))?;
        writer.write_all_at(&buf, target).map_err(Error::io("copy block", target))?;
        done = done.saturating_add(PIECE_BYTES);
    }
    Ok(())
}

fn find_damage(map: &mut VhdxMap) -> Result<Vec<Damage>> {
    let file_bytes = map.file.len_bytes().map_err(Error::io("read file length", 0))?;
    let mut budget = map.limits.metadata_budget();
    let header = &map.headers.current;
    let log = header.log_offset..header.log_offset.saturating_add(header.log_length);
    let regions = map.regions.all().map(|region| region.offset..region.end());
    let metadata: Vec<Range<u64>> = regions.chain([log]).collect();
    let mut damage = Vec::new();
    let mut places = Vec::new();
    for (index, entry) in (0..).zip(&map.bat.entries) {
        let place = map.place_of(index, *entry);
        let (host, len) = place.unwrap_or_default();
        let range = host..host.saturating_add(len);
        let what = match map.check_entry(index, *entry, file_bytes) {
            Err(CorruptKind::PayloadState(state) | CorruptKind::BitmapState(state)) => {
                Some(What::State(state))
            }
            Err(CorruptKind::BehindEnd { .. }) if host >= file_bytes => Some(What::Behind),
            Err(CorruptKind::BehindEnd { .. }) => Some(What::Cut),
            Err(CorruptKind::NoBitmap) => Some(What::NoBitmap),
            Err(_) => Some(What::InMetadata),
            Ok(()) => {
                let overlaps =
                    |other: &Range<u64>| other.start < range.end && range.start < other.end;
                let is_here = place.is_some() && metadata.iter().any(overlaps);
                is_here.then_some(What::InMetadata)
            }
        };
        if what.is_some() || place.is_some() {
            budget.reserve("list of blocks", num::to_u64(size_of::<Damage>()))?;
        }
        match what {
            Some(what) => damage.push(Damage { index, host, len, file_bytes, what }),
            None if place.is_some() => places.push((host, len, index)),
            None => {}
        }
    }
    places.sort_unstable();
    let mut end = spec::HEADER_SECTION_BYTES;
    for (host, len, index) in places {
        if host < end {
            damage.push(Damage { index, host, len, file_bytes, what: What::Shared });
        }
        end = end.max(host.saturating_add(len));
    }
    damage.sort_unstable_by_key(|damage| damage.index);
    Ok(damage)
}
