//! Storing compressed clusters, each from the start of a sector.
#![warn(clippy::indexing_slicing)]

use crate::error::FORMAT;
use crate::image::QcowImage;
use rimg_codec::{Encoder, Level};
use rimg_core::{
    BlockImage as _, Codec, CompressedWrite, EncodedCluster, Error, ImageWrite as _, Result, num,
};

impl CompressedWrite for QcowImage {
    fn codec(&self) -> Codec {
        Codec::Deflate
    }

    fn cluster_bytes(&self) -> u32 {
        // At most 64 KiB.
        u32::try_from(self.blocks.block_bytes()).unwrap_or(u32::MAX)
    }

    fn write_compressed_at(&self, cluster: &[u8], at: u64) -> Result<()> {
        let whole = num::to_usize(self.blocks.block_bytes())?;
        let end = at.saturating_add(num::to_u64(cluster.len()));
        let is_last = end == self.size_bytes() && !cluster.is_empty() && cluster.len() < whole;
        let is_there = at.is_multiple_of(self.blocks.block_bytes()) && end <= self.size_bytes();
        if !is_there || !(cluster.len() == whole || is_last) {
            return Err(Error::Misuse("a piece of a cluster cannot be compressed"));
        }
        // Encoders cannot be shared between threads; who compresses much has one per thread and
        // calls `write_encoded`.
        let mut encoder = Encoder::new(Codec::Deflate, Level::default())
            .map_err(|error| Error::Unsupported { format: FORMAT, feature: error.to_string() })?;
        let mut encoded = Vec::new();
        let result = if is_last {
            let mut padded = cluster.to_vec();
            padded.resize(whole, 0);
            encoder.encode(&padded, &mut encoded)
        } else {
            encoder.encode(cluster, &mut encoded)
        };
        match result {
            Some(_) => self.write_encoded(&[EncodedCluster { at, bytes: &encoded }]),
            None => self.write_at(cluster, at),
        }
    }

    fn write_encoded(&self, clusters: &[EncodedCluster<'_>]) -> Result<()> {
        let cluster_bytes = self.blocks.block_bytes();
        for cluster in clusters {
            if !cluster.at.is_multiple_of(cluster_bytes) || cluster.at >= self.size_bytes() {
                return Err(Error::Misuse("no position of a cluster"));
            }
            let len = num::to_u64(cluster.bytes.len());
            if len == 0 || len >= cluster_bytes {
                return Err(Error::Misuse("encoded cluster is not smaller than a cluster"));
            }
        }
        for cluster in clusters {
            let block = cluster.at.checked_div(cluster_bytes).unwrap_or(0);
            let len = num::to_u64(cluster.bytes.len());
            self.blocks.write_encoded(
                block,
                cluster.bytes,
                |map| map.place_encoded(block, len),
                |map, host| map.set_encoded(block, host, len),
            )?;
        }
        Ok(())
    }
}
