//! How large an image would become.

use crate::address::Geometry;
use crate::create::Layout;
use crate::options::CreateOptions;
use core::ops::Range;
use rimg_core::{Measure, Measured, RawOptions, Result, UnitCount};

/// Counts the blocks that data lies in.
#[derive(Debug)]
pub(crate) struct VhdxMeasure {
    geometry: Geometry,
    without_blocks: u64,
    /// Blocks that lie in the gap before `without_blocks` ends, and so make no file longer.
    blocks_in_gap: u64,
    blocks: u64,
    is_fixed: bool,
    with_data: UnitCount,
}

pub(crate) fn measure(size_bytes: u64, options: &RawOptions) -> Result<VhdxMeasure> {
    let options = CreateOptions::parse(size_bytes, options)?;
    let geometry = Geometry::new(options.block, options.logical_sector);
    let layout = Layout::of(&options);
    let gap_bytes = layout.data_at.saturating_sub(layout.metadata.end());
    let in_gap = gap_bytes.checked_div(geometry.block_bytes()).unwrap_or(0);
    Ok(VhdxMeasure {
        geometry,
        without_blocks: layout.data_at,
        blocks_in_gap: if options.is_fixed { 0 } else { in_gap },
        blocks: geometry.blocks_for(options.size_bytes),
        is_fixed: options.is_fixed,
        with_data: UnitCount::new(geometry.block_bytes()),
    })
}

impl Measure for VhdxMeasure {
    fn add_data(&mut self, range: Range<u64>) {
        self.with_data.add(range);
    }

    fn measured(&self) -> Measured {
        let with = |blocks: u64| {
            let behind = blocks.saturating_sub(self.blocks_in_gap);
            let bytes = behind.saturating_mul(self.geometry.block_bytes());
            self.without_blocks.saturating_add(bytes)
        };
        let required = if self.is_fixed { self.blocks } else { self.with_data.count() };
        Measured { required_bytes: with(required), fully_allocated_bytes: with(self.blocks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header section, the log, the table, the metadata and a gap of 4 MiB are 8 MiB.
    #[test]
    fn a_block_counts_once_and_not_in_the_gap() {
        let cases = [("1048576", 8 + (1 + 4 - 4), 8 + (10 - 4)), ("8388608", 8 + 8, 8 + 16)];
        for (block_size, required, full) in cases {
            let options = RawOptions::new().with("block_size", block_size);
            let mut measure = measure(10 << 20, &options).unwrap();
            let data = [0..1, 1..512, 5..5, (1 << 20) - 1..1 << 20, (3 << 20) - 1..(5 << 20) + 1];
            for range in data {
                measure.add_data(range);
            }
            let measured = measure.measured();
            assert_eq!(measured.required_bytes, required << 20, "{block_size}");
            assert_eq!(measured.fully_allocated_bytes, full << 20, "{block_size}");
        }
    }

    /// All blocks of a fixed image are there from the start, behind the gap.
    #[test]
    fn no_block_of_a_fixed_image_is_in_the_gap() {
        let options = RawOptions::new().with("block_size", "1048576").with("subformat", "fixed");
        let measured = measure(10 << 20, &options).unwrap().measured();
        assert_eq!(measured.required_bytes, 18 << 20);
        assert_eq!(measured.fully_allocated_bytes, 18 << 20);
    }
}
