//! How large an image would become.

use crate::create::Layout;
use crate::options::CreateOptions;
use crate::spec;
use core::ops::Range;
use rimg_core::{Measure, Measured, RawOptions, Result, UnitCount};

/// Counts the blocks that hold data.
#[derive(Debug)]
pub(crate) struct VhdMeasure {
    layout: Layout,
    blocks: UnitCount,
}

impl VhdMeasure {
    pub(crate) fn new(size_bytes: u64, options: &RawOptions) -> Result<Self> {
        let layout = Layout::new(size_bytes, &CreateOptions::parse(options)?)?;
        let block_bytes = layout.header.as_ref().map_or(0, |header| header.block_bytes.into());
        Ok(Self { layout, blocks: UnitCount::new(block_bytes) })
    }
}

impl Measure for VhdMeasure {
    fn add_data(&mut self, range: Range<u64>) {
        self.blocks.add(range);
    }

    fn measured(&self) -> Measured {
        let Some(header) = &self.layout.header else {
            let bytes = self.layout.size_bytes.saturating_add(spec::FOOTER_BYTES);
            return Measured { required_bytes: bytes, fully_allocated_bytes: bytes };
        };
        let tables = header.table_offset.saturating_add(header.table_bytes());
        let bytes_with = |blocks: u64| {
            let data = blocks.saturating_mul(header.stride());
            tables.saturating_add(data).saturating_add(spec::FOOTER_BYTES)
        };
        Measured {
            required_bytes: bytes_with(self.blocks.count()),
            fully_allocated_bytes: bytes_with(header.entries.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_counts_once() {
        let mut measure = VhdMeasure::new(10 << 20, RawOptions::NONE).unwrap();
        measure.add_data(5..10);
        measure.add_data(100..200);
        measure.add_data((6 << 20) - 1..(6 << 20) + 1);
        let measured = measure.measured();
        assert_eq!(measured.required_bytes, 2560 + 3 * (512 + (2 << 20)));
        assert_eq!(measured.fully_allocated_bytes, 2560 + 6 * (512 + (2 << 20)));
        let fixed = RawOptions::new().with("subformat", "fixed").with("force_size", "on");
        let measured = VhdMeasure::new(1 << 20, &fixed).unwrap().measured();
        assert_eq!(measured.required_bytes, (1 << 20) + 512);
    }
}
