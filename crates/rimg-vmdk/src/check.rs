//! Whether tables hold together, and repairing them from their copies.

use crate::error::CorruptKind;
use crate::image::{Body, VmdkImage};
use crate::map::{Encoding, GrainMap};
use crate::spec::SECTOR_BYTES;
use crate::table::{self, GrainEntry};
use rimg_core::{
    Check, CheckSummary, Error, Finding, FindingKind, MetadataBudget, Repair, Result, num,
};

impl Check for VmdkImage {
    /// Grains that nobody refers to are not looked for: the format does not count references, and
    /// QEMU leaves such behind.
    fn check(&self, repair: Repair, found: &mut dyn FnMut(&Finding)) -> Result<CheckSummary> {
        let mut summary = CheckSummary::default();
        let mut budget = self.limits.metadata_budget();
        for part in &self.parts {
            let (blocks, can_repair) = match &part.body {
                Body::Grains(blocks) => (&**blocks, blocks.is_writable()),
                Body::Stream(stream) => (&stream.blocks, false),
                Body::Flat { .. } | Body::Zero | Body::Absent => continue,
            };
            let repairs = repair == Repair::All;
            if repairs && !can_repair && matches!(part.body, Body::Grains(_)) {
                return Err(Error::ReadOnly("it was opened for reading"));
            }
            let mut pass = Pass {
                first_sector: part.start / SECTOR_BYTES,
                repairs: repairs && can_repair,
                summary: &mut summary,
                found,
            };
            blocks.alone(|map| pass.check(map, &mut budget))?;
        }
        Ok(summary)
    }
}

/// The check of one extent.
struct Pass<'a> {
    /// Where the extent starts on the disk.
    first_sector: u64,
    repairs: bool,
    summary: &'a mut CheckSummary,
    found: &'a mut dyn FnMut(&Finding),
}

impl Pass<'_> {
    fn check(&mut self, map: &mut GrainMap, budget: &mut MetadataBudget) -> Result<()> {
        if !map.has_directory() {
            self.report("ERROR: the grain directory cannot be read; its copy can", self.repairs);
            if self.repairs {
                map.take_directory_from_copy();
            }
        }
        // A bit for every sector of the file that a grain may begin at.
        let grain = match map.encoding {
            Encoding::Plain => map.geometry.grain_bytes(),
            Encoding::Compressed { .. } => SECTOR_BYTES,
        };
        let bits = map.file_len.div_ceil(grain).div_ceil(8);
        let mut used = budget.buffer("map of used grains", bits)?;
        for number in 0..map.geometry.tables() {
            self.check_table(map, number, grain, &mut used)?;
        }
        Ok(())
    }

    fn check_table(
        &mut self,
        map: &mut GrainMap,
        number: u64,
        grain_bytes: u64,
        used: &mut [u8],
    ) -> Result<()> {
        let (first, second) = map.places(number);
        if let Some(place) = first.filter(|place| !map.is_within(*place)) {
            let copy = second.filter(|copy| map.is_within(*copy));
            let message = format!("ERROR: grain table {number} is behind the end, at {place:#x}");
            self.report(&message, self.repairs);
            if self.repairs {
                map.set_table_place(number, copy);
            }
            if copy.is_none() {
                return Ok(());
            }
        }
        // A hole has no entries; whether its copy has matters to repairs alone.
        if (!self.repairs && map.is_empty_table(number)?) || !map.load(number)? {
            return Ok(());
        }
        if self.repairs && map.differs_from_copy(number)? {
            map.cache.change(number, |_| {});
        }
        let first_grain = number.saturating_mul(map.geometry.gtes());
        for index in 0..num::to_usize(map.geometry.gtes())? {
            let grain = first_grain.saturating_add(num::to_u64(index));
            if grain >= map.geometry.grains() {
                break;
            }
            let raw = map.raw_entry(number, index);
            let kind = match map.checked(grain, raw) {
                Ok(GrainEntry::At(host)) => match use_once(used, host / grain_bytes) {
                    true => self.check_marker(map, grain, host)?,
                    false => Some(CorruptKind::Shared(raw)),
                },
                Ok(GrainEntry::Unallocated | GrainEntry::Zero) => None,
                Err(kind) => Some(kind),
            };
            let Some(kind) = kind else { continue };
            let sector =
                self.first_sector.saturating_add(map.geometry.grain_start(grain) / SECTOR_BYTES);
            let message = match kind {
                CorruptKind::BehindEnd(_) => {
                    format!("ERROR: cluster offset for sector {sector} points after EOF")
                }
                kind => format!("ERROR: sector {sector}: {kind}"),
            };
            self.report(&message, self.repairs);
            if self.repairs {
                let copy = map.valid_copy(grain, number, index);
                map.put_raw(number, index, copy.unwrap_or(0));
            }
        }
        Ok(())
    }

    fn check_marker(
        &mut self,
        map: &GrainMap,
        grain: u64,
        host: u64,
    ) -> Result<Option<CorruptKind>> {
        if map.encoding != (Encoding::Compressed { markers: true }) {
            return Ok(None);
        }
        let marker = map.marker(host)?;
        let expected = map.geometry.grain_start(grain) / SECTOR_BYTES;
        let end = host.saturating_add(12).saturating_add(marker.size.into());
        Ok(if marker.sector != expected {
            Some(CorruptKind::MarkerSector { found: marker.sector, expected })
        } else if marker.size == 0 || end > map.file_len {
            Some(CorruptKind::EncodedLength(marker.size))
        } else {
            None
        })
    }

    fn report(&mut self, message: &str, repaired: bool) {
        let message = message.to_owned();
        (self.found)(&Finding {
            kind: FindingKind::Corruption,
            message,
            repaired,
            wordless_in_qemu: false,
        });
        let count = if repaired {
            &mut self.summary.corruptions_fixed
        } else {
            &mut self.summary.corruptions
        };
        *count = count.saturating_add(1);
    }
}

/// Marks a place as used; `false` when it was already.
fn use_once(used: &mut [u8], place: u64) -> bool {
    let index = usize::try_from(place / 8).unwrap_or(usize::MAX);
    let Some(byte) = used.get_mut(index) else { return true };
    let bit = 1 << (place % 8);
    let is_new = *byte & bit == 0;
    *byte |= bit;
    is_new
}

impl GrainMap {
    fn copy_of_table(&self, number: u64) -> Result<Option<Vec<u8>>> {
        let (first, second) = self.places(number);
        let Some(copy) = second.filter(|copy| first != Some(*copy) && self.is_within(*copy)) else {
            return Ok(None);
        };
        let mut bytes = vec![0; num::to_usize(self.table_bytes())?];
        self.file.read_exact_at(&mut bytes, copy).map_err(Error::io("read grain table", copy))?;
        Ok(Some(bytes))
    }

    fn differs_from_copy(&self, number: u64) -> Result<bool> {
        let copy = self.copy_of_table(number)?;
        Ok(copy.is_some_and(|copy| self.cache.get(number) != Some(copy.as_slice())))
    }

    /// What the table's copy says of a grain, if that can be.
    fn valid_copy(&self, grain: u64, number: u64, index: usize) -> Option<u64> {
        let copy = self.copy_of_table(number).ok()??;
        let raw = table::entry(&copy, index, self.kind.entry_bytes());
        self.checked(grain, raw).is_ok().then_some(raw)
    }
}
