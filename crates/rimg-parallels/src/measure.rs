//! How large an image would become.

use crate::header::Header;
use crate::options::new_header;
use core::ops::Range;
use rimg_core::{Measure, Measured, RawOptions, Result, UnitCount};

/// Counts clusters with data.
#[derive(Debug)]
pub(crate) struct ParallelsMeasure {
    header: Header,
    clusters: UnitCount,
}

impl ParallelsMeasure {
    pub(crate) fn new(size_bytes: u64, options: &RawOptions) -> Result<Self> {
        let header = new_header(size_bytes, options)?;
        let clusters = UnitCount::new(header.cluster_bytes());
        Ok(Self { header, clusters })
    }

    fn bytes_with(&self, clusters: u64) -> u64 {
        let data = clusters.saturating_mul(self.header.cluster_bytes());
        self.header.data_start().saturating_add(data)
    }
}

impl Measure for ParallelsMeasure {
    fn add_data(&mut self, range: Range<u64>) {
        self.clusters.add(range);
    }

    fn measured(&self) -> Measured {
        let all = self.header.size_bytes().div_ceil(self.header.cluster_bytes().max(1));
        Measured {
            required_bytes: self.bytes_with(self.clusters.count()),
            fully_allocated_bytes: self.bytes_with(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_counts_once() {
        let mut measure = ParallelsMeasure::new(10 << 20, RawOptions::NONE).unwrap();
        measure.add_data(5..10);
        measure.add_data(100..200);
        measure.add_data((3 << 20) - 1..(4 << 20) + 1);
        let measured = measure.measured();
        assert_eq!(measured.required_bytes, (1 + 4) << 20);
        assert_eq!(measured.fully_allocated_bytes, (1 + 10) << 20);
    }
}
