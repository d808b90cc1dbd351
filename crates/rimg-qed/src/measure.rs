//! How large an image would become.

use crate::header::Header;
use crate::options::CreateOptions;
use core::ops::Range;
use rimg_core::{Measure, Measured, RawOptions, Result, UnitCount};

/// Counts clusters with data, and the L2 tables that lead to them.
#[derive(Debug)]
pub(crate) struct QedMeasure {
    header: Header,
    clusters: UnitCount,
    l2_tables: UnitCount,
}

impl QedMeasure {
    pub(crate) fn new(size_bytes: u64, options: &RawOptions) -> Result<Self> {
        let options = CreateOptions::parse(size_bytes, options)?;
        let header = Header::new(options.geometry, options.size_bytes);
        let clusters = UnitCount::new(options.geometry.cluster_bytes());
        let l2_tables = UnitCount::new(options.geometry.l2_table_maps_bytes());
        Ok(Self { header, clusters, l2_tables })
    }

    fn bytes_with(&self, clusters: u64, l2_tables: u64) -> u64 {
        let g = self.header.geometry;
        let data = clusters.saturating_mul(g.cluster_bytes());
        let tables = l2_tables.saturating_mul(g.table_bytes());
        self.header.l1_end().saturating_add(tables).saturating_add(data)
    }
}

impl Measure for QedMeasure {
    fn add_data(&mut self, range: Range<u64>) {
        self.clusters.add(range.clone());
        self.l2_tables.add(range);
    }

    fn measured(&self) -> Measured {
        let g = self.header.geometry;
        let size = self.header.size_bytes;
        let all_tables = size.div_ceil(g.l2_table_maps_bytes());
        Measured {
            required_bytes: self.bytes_with(self.clusters.count(), self.l2_tables.count()),
            fully_allocated_bytes: self.bytes_with(g.clusters_for(size), all_tables),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clusters of 4 KiB and tables of one: a table maps 2 MiB.
    #[test]
    fn tables_count_as_well() {
        let options = RawOptions::new().with("cluster_size", "4096").with("table_size", "1");
        let mut measure = QedMeasure::new(5 << 20, &options).unwrap();
        measure.add_data(5..10);
        measure.add_data((2 << 20) - 1..(2 << 20) + 1);
        let measured = measure.measured();
        assert_eq!(measured.required_bytes, (2 + 2 + 3) * 4096);
        assert_eq!(measured.fully_allocated_bytes, (2 + 3 + 5 * 256) * 4096);
    }
}
