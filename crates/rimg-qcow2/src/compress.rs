//! Storing compressed clusters, packed byte by byte one behind the other.
#![warn(clippy::indexing_slicing)]

use crate::allocate::FreeRun;
use crate::image::{Qcow2Image, State};
use crate::table::L2Entry;
use core::ops::Range;
use rimg_codec::{Encoder, Level};
use rimg_core::{
    BlockImage as _, Codec, CompressedWrite, EncodedCluster, Error, ImageWrite as _, Result, num,
};

impl CompressedWrite for Qcow2Image {
    fn codec(&self) -> Codec {
        self.codec
    }

    fn cluster_bytes(&self) -> u32 {
        // At most 2 MiB.
        u32::try_from(self.geometry.cluster_bytes()).unwrap_or(u32::MAX)
    }

    fn write_compressed_at(&self, cluster: &[u8], at: u64) -> Result<()> {
        self.check_whole_cluster(at, num::to_u64(cluster.len()))?;
        // Encoders cannot be shared between threads; who compresses much has one per thread and
        // calls `write_encoded`.
        let mut encoder = Encoder::new(self.codec, Level::default()).map_err(|error| {
            Error::Unsupported { format: crate::error::FORMAT, feature: error.to_string() }
        })?;
        let mut encoded = Vec::new();
        let whole = num::to_usize(self.geometry.cluster_bytes())?;
        let result = if cluster.len() == whole {
            encoder.encode(cluster, &mut encoded)
        } else {
            let mut padded = cluster.to_vec();
            padded.resize(whole, 0);
            encoder.encode(&padded, &mut encoded)
        };
        match result {
            Some(_) => self.write_encoded(&[EncodedCluster { at, bytes: &encoded }]),
            None => self.write_at(cluster, at),
        }
    }

    fn write_encoded(&self, clusters: &[EncodedCluster<'_>]) -> Result<()> {
        let g = self.geometry;
        let (Some(first), Some(last)) = (clusters.first(), clusters.last()) else { return Ok(()) };
        let size = self.size_bytes();
        for (index, cluster) in clusters.iter().enumerate() {
            let is_after = index
                .checked_sub(1)
                .and_then(|before| clusters.get(before))
                .is_none_or(|before| before.at < cluster.at);
            let len = num::to_u64(cluster.bytes.len());
            if !g.is_aligned(cluster.at) || cluster.at >= size || !is_after {
                return Err(Error::Misuse("no position of a cluster, or out of order"));
            }
            if len == 0 || len >= g.cluster_bytes() {
                return Err(Error::Misuse("encoded cluster is not smaller than a cluster"));
            }
        }
        let end = last.at.saturating_add(g.cluster_bytes()).min(size);
        self.noting_damage(|| self.store_encoded(clusters, &(first.at..end)))
    }
}

impl Qcow2Image {
    fn store_encoded(&self, clusters: &[EncodedCluster<'_>], range: &Range<u64>) -> Result<()> {
        let g = self.geometry;
        let (_claim, _) = self.claim_unchanged(range)?;
        self.note_clusters(clusters)?;
        let mut places = Vec::with_capacity(clusters.len());
        let placed = self.place_encoded(clusters, &mut places);
        let done = placed.and_then(|()| self.write_packed(clusters, &places));
        let mut state = self.lock()?;
        let mut linked = 0;
        let done = done.and_then(|()| {
            for (cluster, (host, len)) in clusters.iter().zip(&places) {
                let old = self.entry(&mut state, cluster.at)?;
                let new = L2Entry::compressed(*host, *len, g);
                self.link(&mut state, cluster.at, &[old], &[new])?;
                linked += 1;
            }
            Ok(())
        });
        if done.is_err() {
            self.give_back_bytes(&mut state, places.get(linked..).unwrap_or_default())?;
        }
        done
    }

    fn check_whole_cluster(&self, at: u64, len: u64) -> Result<()> {
        let end = at.saturating_add(len);
        self.check_range(&(at..end))?;
        let whole = len == self.geometry.cluster_bytes()
            || (len > 0 && len < self.geometry.cluster_bytes() && end == self.size_bytes());
        if whole && self.geometry.is_aligned(at) {
            Ok(())
        } else {
            Err(Error::Misuse("a piece of a cluster cannot be compressed"))
        }
    }

    /// Says that each of `clusters` changes, and not what lies between them.
    fn note_clusters(&self, clusters: &[EncodedCluster<'_>]) -> Result<()> {
        let mut state = self.lock()?;
        let size = state.header.size_bytes;
        for cluster in clusters {
            let end = cluster.at.saturating_add(self.geometry.cluster_bytes()).min(size);
            self.note_change(&mut state, &(cluster.at..end))?;
        }
        Ok(())
    }

    /// Finds a place for each cluster: host offset and length.
    fn place_encoded(
        &self,
        clusters: &[EncodedCluster<'_>],
        places: &mut Vec<(u64, u64)>,
    ) -> Result<()> {
        let mut state = self.lock()?;
        for cluster in clusters {
            // As QEMU does: the L2 table comes before what it will refer to.
            self.own_l2_table(&mut state, self.geometry.l1_index(cluster.at))?;
            let len = num::to_u64(cluster.bytes.len());
            places.push((self.allocate_bytes(&mut state, len)?, len));
        }
        Ok(())
    }

    /// Drops the references to places that nothing was entered for.
    fn give_back_bytes(&self, state: &mut State, places: &[(u64, u64)]) -> Result<()> {
        let g = self.geometry;
        let allocator = state.allocator_mut()?;
        // What comes next goes to a cluster of its own: the tail may be among those given back.
        allocator.compressed_tail = None;
        for (host, len) in places {
            let first = g.cluster_index(*host);
            let end = g.clusters_for(host.saturating_add(*len));
            allocator.give_back(FreeRun { first, clusters: end.saturating_sub(first) })?;
        }
        Ok(())
    }

    /// Takes `len` bytes, less than a cluster: behind the last ones where they fit there or the
    /// next cluster is free, else in a new cluster.
    fn allocate_bytes(&self, state: &mut State, len: u64) -> Result<u64> {
        self.file.note("cluster_alloc_bytes");
        let g = self.geometry;
        if let Some(tail) = state.allocator_mut()?.compressed_tail {
            let cluster = g.cluster_index(tail);
            let room = g.cluster_bytes().saturating_sub(g.in_cluster(tail));
            let next = FreeRun { first: cluster.saturating_add(1), clusters: 1 };
            if len <= room {
                if state.allocator_mut()?.add_reference(cluster)? {
                    return self.advance_tail(state, tail, len);
                }
            } else if self.allocate_exactly(state, next)? {
                if state.allocator_mut()?.add_reference(cluster)? {
                    return self.advance_tail(state, tail, len);
                }
                state.allocator_mut()?.give_back(next)?;
            }
        }
        let (run, _) = self.allocate(state, 1)?;
        self.advance_tail(state, g.cluster_offset(run.first), len)
    }

    fn advance_tail(&self, state: &mut State, at: u64, len: u64) -> Result<u64> {
        let end = at.saturating_add(len);
        let is_full = self.geometry.is_aligned(end);
        state.allocator_mut()?.compressed_tail = (!is_full).then_some(end);
        Ok(at)
    }

    /// Writes clusters to their places, those next to each other in one go.
    fn write_packed(&self, clusters: &[EncodedCluster<'_>], places: &[(u64, u64)]) -> Result<()> {
        let file = self.file_writer()?;
        let mut packed: Vec<u8> = Vec::new();
        let mut packed_at = 0_u64;
        let write = |packed: &mut Vec<u8>, at: u64| {
            if packed.is_empty() {
                return Ok(());
            }
            file.note("write_compressed");
            let done = file.write_all_at(packed, at);
            packed.clear();
            done.map_err(Error::io("write compressed cluster", at))
        };
        for (cluster, (host, _)) in clusters.iter().zip(places) {
            if packed_at.saturating_add(num::to_u64(packed.len())) != *host {
                write(&mut packed, packed_at)?;
                packed_at = *host;
            }
            packed.extend_from_slice(cluster.bytes);
        }
        write(&mut packed, packed_at)
    }
}
