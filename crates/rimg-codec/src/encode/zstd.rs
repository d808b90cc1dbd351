//! Zstandard (RFC 8878).

use core::fmt;

use structured_zstd::encoding::{CompressionLevel, FrameCompressor};

use super::Level;

pub(super) struct ZstdEncoder {
    inner: FrameCompressor,
    /// The library replaces what its output buffer held, so a frame is made here first.
    frame: Vec<u8>,
}

impl ZstdEncoder {
    pub(super) fn new(level: Level) -> Self {
        let level = match level {
            Level::Fast => 1,
            // As small as the reference's level 3 when that is not told the content size
            // beforehand, which is how qemu-img uses it.
            Level::Default => 2,
        };
        let mut inner = FrameCompressor::new(CompressionLevel::Level(level));
        inner.set_content_checksum(false);
        Self { inner, frame: Vec::new() }
    }

    pub(super) fn encode(&mut self, cluster: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        self.inner.compress_independent_frame_into(cluster, &mut self.frame);
        if self.frame.len() >= cluster.len() {
            return None;
        }
        out.extend_from_slice(&self.frame);
        Some(self.frame.len())
    }
}

impl fmt::Debug for ZstdEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZstdEncoder").finish_non_exhaustive()
    }
}
