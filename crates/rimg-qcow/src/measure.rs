//! How large an image would become.

use crate::header::Header;
use crate::options::new_header;
use core::ops::Range;
use rimg_core::{Measure, Measured, RawOptions, Result, UnitCount};

/// Counts clusters with data, as they are without compression, and the L2 tables that lead to
/// them.
#[derive(Debug)]
pub(crate) struct QcowMeasure {
    header: Header,
    clusters: UnitCount,
    l2_tables: UnitCount,
}

impl QcowMeasure {
    pub(crate) fn new(size_bytes: u64, options: &RawOptions) -> Result<Self> {
        let header = new_header(size_bytes, options)?;
        let g = header.geometry;
        let maps = g.cluster_start(g.first_cluster_of(1));
        let (clusters, l2_tables) = (UnitCount::new(g.cluster_bytes()), UnitCount::new(maps));
        Ok(Self { header, clusters, l2_tables })
    }

    fn bytes_with(&self, clusters: u64, l2_tables: u64) -> u64 {
        let g = self.header.geometry;
        let data = clusters.saturating_mul(g.cluster_bytes());
        let tables = l2_tables.saturating_mul(g.l2_bytes());
        let start = g.cluster_start(g.clusters_for(self.header.l1_end()));
        start.saturating_add(tables).saturating_add(data)
    }
}

impl Measure for QcowMeasure {
    fn add_data(&mut self, range: Range<u64>) {
        self.clusters.add(range.clone());
        self.l2_tables.add(range);
    }

    fn measured(&self) -> Measured {
        let all = self.header.geometry.clusters_for(self.header.size_bytes());
        Measured {
            required_bytes: self.bytes_with(self.clusters.count(), self.l2_tables.count()),
            fully_allocated_bytes: self.bytes_with(all, self.header.l1_entries()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clusters of 4 KiB, and tables that map 2 MiB.
    #[test]
    fn tables_count_as_well() {
        let mut measure = QcowMeasure::new(5 << 20, RawOptions::NONE).unwrap();
        measure.add_data(5..10);
        measure.add_data((2 << 20) - 1..(2 << 20) + 1);
        let measured = measure.measured();
        assert_eq!(measured.required_bytes, (1 + 2 + 3) * 4096);
        assert_eq!(measured.fully_allocated_bytes, (1 + 3 + 5 * 256) * 4096);
    }
}
