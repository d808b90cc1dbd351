//! Deflate (RFC 1951), bare or in its zlib wrapping (RFC 1950).
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use rimg_core::Codec;
use sirocco::Format;
use sirocco::inflate;

use crate::error::DecodeError;

/// Inflates streams of one format.
#[derive(Debug)]
pub(super) struct Inflater {
    /// Boxed because it holds its tables inline.
    inner: Box<inflate::Decoder>,
}

impl Inflater {
    pub(super) fn new(format: Format) -> Self {
        Self { inner: Box::new(inflate::Decoder::new(format)) }
    }

    pub(super) fn decode(
        &mut self,
        codec: Codec,
        encoded: &[u8],
        cluster: &mut [u8],
    ) -> Result<Option<usize>, DecodeError> {
        // A stream that was cut off at a full cluster is not to be carried on with.
        self.inner.reset();
        let progress = self.inner.decompress(encoded, cluster, true).map_err(|e| match e {
            inflate::Error::Truncated => DecodeError::Truncated(codec),
            inflate::Error::ChecksumMismatch => DecodeError::Checksum(codec),
            _ => DecodeError::Damaged(codec),
        })?;
        let decoded = progress.output.len();
        // Only where the stream ended does `consumed` stop at its end.
        let encoded_len = progress.done.then_some(progress.consumed);
        if decoded == cluster.len() {
            Ok(encoded_len)
        } else {
            Err(DecodeError::Short { codec, decoded, cluster: cluster.len() })
        }
    }
}
