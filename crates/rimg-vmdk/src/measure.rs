//! How large an image would become.

use crate::options::{CreateOptions, Subformat};
use crate::spec::{SECTOR_BYTES, descriptor};
use core::ops::Range;
use rimg_core::{Measure, Measured, RawOptions, Result, UnitCount, num};

const GRAIN_BYTES: u64 = 65_536;
/// Grains that one table is for.
const TABLE_GRAINS: u64 = 512;

/// Adds up grains. All files of an image count, but not the descriptor where it is one of its own.
#[derive(Debug)]
pub(crate) struct VmdkMeasure {
    subformat: Subformat,
    size_bytes: u64,
    grains: UnitCount,
}

pub(crate) fn measure(size_bytes: u64, raw: &RawOptions) -> Result<VmdkMeasure> {
    let options = CreateOptions::parse(raw)?;
    let size_bytes = num::align_up(size_bytes, SECTOR_BYTES).unwrap_or(u64::MAX);
    Ok(VmdkMeasure {
        subformat: options.subformat,
        size_bytes,
        grains: UnitCount::new(GRAIN_BYTES),
    })
}

impl Measure for VmdkMeasure {
    fn add_data(&mut self, range: Range<u64>) {
        self.grains.add(range);
    }

    /// Of streams these are bounds: how well grains compress is not known.
    fn measured(&self) -> Measured {
        let all = self.size_bytes.div_ceil(GRAIN_BYTES);
        let grains = self.grains.count();
        match self.subformat {
            Subformat::MonolithicFlat | Subformat::TwoGbMaxExtentFlat => {
                Measured { required_bytes: self.size_bytes, fully_allocated_bytes: self.size_bytes }
            }
            Subformat::MonolithicSparse => sparse(overhead(self.size_bytes), grains, all),
            Subformat::TwoGbMaxExtentSparse => {
                let whole = self.size_bytes / descriptor::SPLIT_BYTES;
                let rest = self.size_bytes % descriptor::SPLIT_BYTES;
                let rest = if rest > 0 || whole == 0 { overhead(rest) } else { 0 };
                let metadata = overhead(descriptor::SPLIT_BYTES).saturating_mul(whole);
                sparse(metadata.saturating_add(rest), grains, all)
            }
            Subformat::StreamOptimized => Measured {
                required_bytes: stream(grains, all),
                fully_allocated_bytes: stream(all, all),
            },
        }
    }
}

fn sparse(metadata: u64, grains: u64, all: u64) -> Measured {
    let of = |grains: u64| metadata.saturating_add(grains.saturating_mul(GRAIN_BYTES));
    Measured { required_bytes: of(grains), fully_allocated_bytes: of(all) }
}

/// Header, descriptor and both directories with all of their tables, in bytes.
fn overhead(size_bytes: u64) -> u64 {
    let tables = size_bytes.div_ceil(GRAIN_BYTES).div_ceil(TABLE_GRAINS);
    let directory = tables.saturating_mul(4).div_ceil(SECTOR_BYTES);
    let both = directory.saturating_add(tables.saturating_mul(4)).saturating_mul(2);
    let sectors = both.saturating_add(descriptor::EMBEDDED_SECTORS).saturating_add(1);
    num::align_up(sectors.saturating_mul(SECTOR_BYTES), GRAIN_BYTES).unwrap_or(u64::MAX)
}

/// A stream whose grains do not compress at all: a marker and 16 bytes around each.
fn stream(grains: u64, all: u64) -> u64 {
    let tables = all.div_ceil(TABLE_GRAINS);
    let directory = tables.saturating_mul(4).div_ceil(SECTOR_BYTES).saturating_mul(SECTOR_BYTES);
    // A table and its marker have five sectors; other markers, the footer and the end four.
    let metadata = tables.saturating_mul(5 * SECTOR_BYTES).saturating_add(4 * SECTOR_BYTES);
    let grains = grains.saturating_mul(GRAIN_BYTES.saturating_add(SECTOR_BYTES));
    GRAIN_BYTES.saturating_add(grains).saturating_add(metadata).saturating_add(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grains_count_once() {
        let mut measure = measure(10 << 20, RawOptions::NONE).unwrap();
        measure.add_data(0..1);
        measure.add_data(4096..65_537);
        let expected = Measured { required_bytes: 3 << 16, fully_allocated_bytes: 161 << 16 };
        assert_eq!(measure.measured(), expected);
    }
}
