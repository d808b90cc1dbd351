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
    blocks: u64,
    is_fixed: bool,
    with_data: UnitCount,
}

pub(crate) fn measure(size_bytes: u64, options: &RawOptions) -> Result<VhdxMeasure> {
    let options = CreateOptions::parse(size_bytes, options)?;
    let geometry = Geometry::new(options.block, options.logical_sector);
    Ok(VhdxMeasure {
        geometry,
        without_blocks: Layout::of(&options).data_at,
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
            let bytes = blocks.saturating_mul(self.geometry.block_bytes());
            self.without_blocks.saturating_add(bytes)
        };
        let required = if self.is_fixed { self.blocks } else { self.with_data.count() };
        Measured { required_bytes: with(required), fully_allocated_bytes: with(self.blocks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_counts_once() {
        let options = RawOptions::new().with("block_size", "1048576");
        let mut measure = measure(10 << 20, &options).unwrap();
        for range in [0..1, 1..512, 5..5, (1 << 20) - 1..1 << 20, (3 << 20) - 1..(5 << 20) + 1] {
            measure.add_data(range);
        }
        let measured = measure.measured();
        assert_eq!(measured.required_bytes, (8 + 1 + 4) << 20);
        assert_eq!(measured.fully_allocated_bytes, 18 << 20);
    }
}
