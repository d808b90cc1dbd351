//! Grains as zlib streams, and writing such.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::image::{Body, VmdkImage, unsupported};
use crate::stream::Stream;
use rimg_codec::{Encoder, Level};
use rimg_core::{BlockImage as _, Codec, CompressedWrite, EncodedCluster, Error, Result, num};

impl CompressedWrite for VmdkImage {
    fn codec(&self) -> Codec {
        Codec::Zlib
    }

    fn cluster_bytes(&self) -> u32 {
        // At most 64 MiB.
        self.grain_bytes().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(u32::MAX)
    }

    fn is_required(&self) -> bool {
        true
    }

    fn write_compressed_at(&self, cluster: &[u8], at: u64) -> Result<()> {
        let end = at.saturating_add(num::to_u64(cluster.len()));
        self.check_range(&(at..end))?;
        self.note_change(at, cluster)?;
        self.with_stream(|stream| {
            let grain = stream.blocks.block_bytes();
            let is_whole = num::to_u64(cluster.len()) == grain || end == self.size_bytes();
            if !at.is_multiple_of(grain) || cluster.is_empty() || !is_whole {
                return Err(Error::Misuse("a piece of a grain cannot be compressed"));
            }
            stream.write(cluster, at)
        })
    }

    fn write_encoded(&self, clusters: &[EncodedCluster<'_>]) -> Result<()> {
        let size = self.size_bytes();
        let Some(first) = clusters.first() else { return Ok(()) };
        self.with_stream(|stream| {
            let grain = stream.blocks.block_bytes();
            for cluster in clusters {
                let len = num::to_u64(cluster.bytes.len());
                if !cluster.at.is_multiple_of(grain) || cluster.at >= size {
                    return Err(Error::Misuse("no position of a grain"));
                }
                if len == 0 || len >= grain {
                    return Err(Error::Misuse("encoded grain is not smaller than a grain"));
                }
            }
            self.note_change(first.at, first.bytes)?;
            stream.write_encoded(clusters)
        })
    }
}

impl VmdkImage {
    /// Whether all of the disk is one stream that can be written.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.parts.as_slice(), [part] if part.writable && matches!(part.body, Body::Stream(_)))
    }

    fn with_stream<R>(&self, work: impl FnOnce(&Stream) -> Result<R>) -> Result<R> {
        match self.parts.as_slice() {
            [part] => match &part.body {
                Body::Stream(stream) => work(stream),
                _ => Err(Error::Misuse("grains are not compressed")),
            },
            _ => Err(Error::Misuse("grains are not compressed")),
        }
    }
}

/// Turns grains into zlib streams, whether that makes them smaller or not.
#[derive(Debug)]
pub(crate) struct GrainEncoder(Encoder);

impl GrainEncoder {
    pub(crate) fn new() -> Result<Self> {
        let encoder = Encoder::new(Codec::Zlib, Level::default());
        encoder.map(Self).map_err(|error| unsupported(error.to_string()))
    }

    /// Appends the stream of a whole grain.
    pub(crate) fn encode(&mut self, grain: &[u8], out: &mut Vec<u8>) {
        if self.0.encode(grain, out).is_none() {
            store(grain, out);
        }
    }
}

/// Appends a zlib stream that holds `bytes` as they are: RFC 1951, 3.2.4, in RFC 1950.
fn store(bytes: &[u8], out: &mut Vec<u8>) {
    const MAX_BLOCK: usize = 65_535;
    out.extend([0x78, 0x01]);
    let mut blocks = bytes.chunks(MAX_BLOCK).peekable();
    while let Some(block) = blocks.next() {
        out.push(u8::from(blocks.peek().is_none()));
        let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend(adler32(bytes).to_be_bytes());
}

fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (mut low, mut high) = (1_u32, 0_u32);
    // So many bytes cannot overflow 32 bits.
    for piece in bytes.chunks(5552) {
        for byte in piece {
            low = low.wrapping_add(u32::from(*byte));
            high = high.wrapping_add(low);
        }
        low %= MODULUS;
        high %= MODULUS;
    }
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimg_codec::Decoder;

    #[test]
    fn noise_is_stored_and_read() {
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(65_536)
        .collect();
        let mut encoded = Vec::new();
        GrainEncoder::new().unwrap().encode(&noise, &mut encoded);
        assert_eq!(encoded.len(), 65_536 + 2 + 2 * 5 + 4);
        let mut decoded = vec![0; noise.len()];
        // The checksum is verified, too.
        Decoder::new().decode(Codec::Zlib, &encoded, &mut decoded).unwrap();
        assert_eq!(decoded, noise);
    }
}
