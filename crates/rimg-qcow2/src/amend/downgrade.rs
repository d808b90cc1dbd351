//! Making an image one of version 2.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::options;
use crate::cache::read_padded;
use crate::header::Extension;
use crate::image::Qcow2Image;
use crate::spec;
use rimg_core::{AmendProgress, Error, Result, num};
use std::collections::BTreeSet;

impl Qcow2Image {
    pub(super) fn downgrade(&self, progress: &mut AmendProgress<'_>) -> Result<()> {
        let header = self.lock()?.header.clone();
        options::check_snapshots(&self.read_snapshots(&header)?, header.size_bytes)?;
        if header.compression_type != spec::compression::ZLIB && self.has_compressed_clusters()? {
            let reason = "Cannot downgrade an image with zstd compression type and existing \
                          compressed clusters";
            return Err(Error::InvalidOption { option: "compat", reason: reason.to_owned() });
        }
        options::check_features(&header)?;
        self.expand_zeroes(progress)?;
        self.rewrite_header(&mut *self.lock()?, |header| {
            header.version = 2;
            header.header_bytes = spec::HEADER_V2_BYTES;
            header.geometry.zero_flag = false;
            header.incompatible = 0;
            header.compression_type = spec::compression::ZLIB;
            header.compatible = 0;
            header.autoclear = 0;
            header.extensions.retain(|known| !matches!(known, Extension::FeatureNames(_)));
        })
    }

    /// Whether any cluster of the disk or of a snapshot is compressed.
    fn has_compressed_clusters(&self) -> Result<bool> {
        let g = self.geometry;
        let trees = self.trees(&*self.lock()?)?;
        let branches = trees.iter().flat_map(|(_, branches)| branches);
        let tables: BTreeSet<u64> = branches.map(|branch| branch.table).collect();
        let mut table = vec![0; num::to_usize(g.cluster_bytes())?];
        for at in tables {
            let file = self.file.as_ref();
            read_padded(file, &mut table, at).map_err(Error::io("read L2 table", at))?;
            let width = num::to_usize(g.l2_entry_bytes())?;
            let mut descriptors = table.chunks_exact(width).filter_map(|entry| entry.first_chunk());
            if descriptors.any(|word| u64::from_be_bytes(*word) & spec::COMPRESSED != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
