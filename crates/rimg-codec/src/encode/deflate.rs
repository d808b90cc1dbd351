//! Deflate (RFC 1951), bare or in its zlib wrapping (RFC 1950), with a window of 4 KiB.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::Level;

/// log2 of the farthest distance of a match.
const WINDOW_BITS: u8 = 12;

#[derive(Debug)]
pub(super) struct Deflater {
    inner: Compress,
}

impl Deflater {
    pub(super) fn new(zlib_wrapped: bool, level: Level) -> Self {
        let level = match level {
            Level::Fast => 3,
            Level::Default => 6,
            Level::Best => 9,
        };
        let level = Compression::new(level);
        Self { inner: Compress::new_with_window_bits(level, zlib_wrapped, WINDOW_BITS) }
    }

    pub(super) fn encode(&mut self, cluster: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let start = out.len();
        out.reserve(cluster.len());
        self.inner.reset();
        let status = self.inner.compress_vec(cluster, out, FlushCompress::Finish);
        let len = out.len() - start;
        if matches!(status, Ok(Status::StreamEnd)) && len < cluster.len() {
            return Some(len);
        }
        out.truncate(start);
        None
    }
}
