//! Zstandard (RFC 8878).
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use core::fmt;

use rimg_core::Codec;
use structured_zstd::decoding::{
    ContentChecksum, FrameDecoder, FrameSizeError, errors::FrameDecoderError,
};

use crate::error::DecodeError;

/// Decodes clusters of one or more frames.
pub(super) struct ZstdDecoder {
    inner: FrameDecoder,
}

impl ZstdDecoder {
    pub(super) fn new() -> Self {
        let mut inner = FrameDecoder::new();
        inner.set_content_checksum(ContentChecksum::Verify);
        Self { inner }
    }

    /// Returns how many bytes the frames take up.
    pub(super) fn decode(
        &mut self,
        encoded: &[u8],
        cluster: &mut [u8],
    ) -> Result<usize, DecodeError> {
        let cluster_len = cluster.len();
        let mut frames = encoded;
        let mut empty = cluster;
        while !empty.is_empty() {
            if frames.is_empty() {
                let decoded = cluster_len.saturating_sub(empty.len());
                return Err(DecodeError::Short {
                    codec: Codec::Zstd,
                    decoded,
                    cluster: cluster_len,
                });
            }
            // The library wants to see frames only, so the tail of other data is cut off first.
            let frame_len = structured_zstd::decoding::find_frame_compressed_size(frames)
                .map_err(|e| frame_size_error(&e))?;
            let (frame, rest) =
                frames.split_at_checked(frame_len).ok_or(DecodeError::Truncated(Codec::Zstd))?;
            let written =
                self.inner.decode_all(frame, empty).map_err(|e| frame_error(&e, cluster_len))?;
            frames = rest;
            empty = empty.get_mut(written..).unwrap_or_default();
        }
        Ok(encoded.len().saturating_sub(frames.len()))
    }
}

impl fmt::Debug for ZstdDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZstdDecoder").finish_non_exhaustive()
    }
}

fn frame_size_error(error: &FrameSizeError) -> DecodeError {
    match error {
        FrameSizeError::Truncated => DecodeError::Truncated(Codec::Zstd),
        _ => DecodeError::Damaged(Codec::Zstd),
    }
}

fn frame_error(error: &FrameDecoderError, cluster_len: usize) -> DecodeError {
    match error {
        FrameDecoderError::TargetTooSmall => {
            DecodeError::Long { codec: Codec::Zstd, cluster: cluster_len }
        }
        FrameDecoderError::ChecksumMismatch { .. } => DecodeError::Checksum(Codec::Zstd),
        _ => DecodeError::Damaged(Codec::Zstd),
    }
}
