//! Clusters out of encoded bytes.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod deflate;
#[cfg(feature = "zstd")]
mod zstd;

use rimg_core::Codec;

use crate::error::{CodecUnavailable, DecodeError};

/// A reusable decoder of clusters, for all codecs of the build.
///
/// It keeps its tables between clusters (about 30 KiB for deflate, more once a zstd cluster was
/// decoded); make one per thread.
#[derive(Debug)]
pub struct Decoder {
    deflate: deflate::Inflater,
    zlib: deflate::Inflater,
    #[cfg(feature = "zstd")]
    zstd: zstd::ZstdDecoder,
}

impl Decoder {
    /// A decoder for every codec of the build.
    #[must_use]
    pub fn new() -> Self {
        Self {
            deflate: deflate::Inflater::new(sirocco::Format::Deflate),
            zlib: deflate::Inflater::new(sirocco::Format::Zlib),
            #[cfg(feature = "zstd")]
            zstd: zstd::ZstdDecoder::new(),
        }
    }

    /// Fills the whole of `cluster` from the stream at the start of `encoded`.
    ///
    /// Bytes of `encoded` after the end of the stream are ignored: formats that count encoded
    /// lengths in sectors hand over a tail of other data. Nothing is written past `cluster`, and
    /// memory use does not depend on what the stream claims.
    ///
    /// Verdicts are those of qemu-img:
    /// - deflate and zlib streams that go on after `cluster` is full are cut off there;
    /// - zstd clusters may consist of several frames, skippable ones included, and the last one
    ///   must end where `cluster` does.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the stream is damaged, ends early, or does not fill `cluster`, and
    /// when the build lacks the codec. What `cluster` then holds is unspecified.
    pub fn decode(
        &mut self,
        codec: Codec,
        encoded: &[u8],
        cluster: &mut [u8],
    ) -> Result<(), DecodeError> {
        self.decode_measured(codec, encoded, cluster).map(|_len| ())
    }

    /// As [`decode`](Self::decode), and says how many bytes of `encoded` the stream takes up:
    /// `None` for one that goes on after `cluster` is full.
    ///
    /// # Errors
    ///
    /// As for [`decode`](Self::decode).
    pub fn decode_measured(
        &mut self,
        codec: Codec,
        encoded: &[u8],
        cluster: &mut [u8],
    ) -> Result<Option<usize>, DecodeError> {
        match codec {
            Codec::Deflate => self.deflate.decode(codec, encoded, cluster),
            Codec::Zlib => self.zlib.decode(codec, encoded, cluster),
            #[cfg(feature = "zstd")]
            Codec::Zstd => self.zstd.decode(encoded, cluster).map(Some),
            _ => Err(CodecUnavailable(codec).into()),
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}
