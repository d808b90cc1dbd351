//! What no grain may lie in: a guest's write there would change the tables.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::GrainMap;
use crate::spec::SECTOR_BYTES;
use core::ops::Range;
use rimg_core::{MetadataBudget, Result};

/// The parts of an extent's file that hold metadata: sorted, and none touches the next.
#[derive(Debug, Default)]
pub(crate) struct Metadata(Vec<Range<u64>>);

impl Metadata {
    /// Whether any of these bytes is metadata.
    pub(crate) fn overlaps(&self, range: &Range<u64>) -> bool {
        let next = self.0.partition_point(|known| known.end <= range.start);
        self.0.get(next).is_some_and(|known| known.start < range.end)
    }

    /// Adds parts, which may overlap.
    pub(crate) fn add(&mut self, ranges: impl IntoIterator<Item = Range<u64>>) {
        self.0.extend(ranges);
        self.0.sort_unstable_by_key(|range| range.start);
        self.0.dedup_by(|later, first| {
            let touches = later.start <= first.end;
            if touches {
                first.end = first.end.max(later.end);
            }
            touches
        });
    }
}

impl GrainMap {
    /// Notes where header, descriptor, directories and tables lie.
    pub(super) fn guard_metadata(&mut self, budget: &mut MetadataBudget) -> Result<()> {
        let Some(header) = self.header else { return Ok(()) };
        let directory = self.geometry.tables().saturating_mul(4);
        let of = |at: u64, len: u64| at..at.saturating_add(len);
        let directories = [header.gd, header.rgd].into_iter().flatten();
        let mut ranges: Vec<_> = directories.map(|at| of(at, directory)).collect();
        ranges.push(0..SECTOR_BYTES);
        ranges.extend(header.descriptor());
        let table = self.table_bytes();
        for place in self.directory.iter().chain(&self.redundant).flatten() {
            // Mostly tables follow each other, and there may be millions.
            match ranges.last_mut() {
                Some(last) if last.end == *place => last.end = place.saturating_add(table),
                _ => {
                    budget.reserve("places of tables", 16)?;
                    ranges.push(of(*place, table));
                }
            }
        }
        self.metadata.add(ranges);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_is_one() {
        let mut metadata = Metadata::default();
        metadata.add([10..20, 0..5, 20..30, 25..28]);
        assert_eq!(metadata.0, [0..5, 10..30]);
        metadata.add(std::iter::once(4..11));
        assert_eq!(metadata.0, [0..30; 1]);
        metadata.add(std::iter::once(40..50));
        for (range, expected) in [(30..40, false), (29..31, true), (39..41, true), (50..60, false)]
        {
            assert_eq!(metadata.overlaps(&range), expected, "{range:?}");
        }
    }
}
