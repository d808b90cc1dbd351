//! Deflate (RFC 1951), bare or in its zlib wrapping (RFC 1950).
//!
//! The whole cluster is at hand, so nothing slides: the parser finds matches in it and fills a
//! block with literals and matches ([`parse`]), the block is coded in the cheapest of the three
//! ways of the RFC ([`block`], [`huffman`]) and written out ([`bits`]).

mod bits;
mod block;
mod huffman;
mod matches;
mod num;
mod parse;
mod symbols;

use self::bits::BitWriter;
use self::block::Block;
use self::parse::Parser;
use super::Level;

/// The farthest match of a qcow2 cluster, which is what its readers keep.
pub(super) const QCOW2_WINDOW: usize = 1 << 12;

/// The farthest match that the zlib wrapping can declare.
pub(super) const ZLIB_WINDOW: usize = 1 << 15;

/// CMF and FLG (RFC 1950 section 2.2): deflate, window of 32 KiB, default level.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x9c];

/// Appends a raw stream in the zlib wrapping; `cluster` is what it decodes to.
pub(super) fn wrap(stream: &[u8], cluster: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&ZLIB_HEADER);
    out.extend_from_slice(stream);
    out.extend_from_slice(&adler2::adler32_slice(cluster).to_be_bytes());
}

/// Encodes clusters with matches at most `WINDOW` bytes away, a power of two.
#[derive(Debug)]
pub(super) struct Deflater<const WINDOW: usize, const BUCKETS: usize> {
    parser: Parser<WINDOW, BUCKETS>,
    block: Block,
    stream: Vec<u8>,
}

impl<const WINDOW: usize, const BUCKETS: usize> Deflater<WINDOW, BUCKETS> {
    pub(super) fn new(level: Level) -> Self {
        Self { parser: Parser::new(level), block: Block::new(), stream: Vec::new() }
    }

    /// Appends a raw stream (RFC 1951).
    pub(super) fn encode_raw(&mut self, cluster: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let stream = self.deflate(cluster, cluster.len().checked_sub(1)?)?;
        out.extend_from_slice(stream);
        Some(stream.len())
    }

    /// Appends a wrapped stream (RFC 1950).
    pub(super) fn encode_zlib(&mut self, cluster: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let wrapping = ZLIB_HEADER.len() + size_of::<u32>();
        let stream = self.deflate(cluster, cluster.len().checked_sub(1 + wrapping)?)?;
        wrap(stream, cluster, out);
        Some(stream.len() + wrapping)
    }

    /// The stream, unless it is longer than `max_len` bytes.
    fn deflate(&mut self, cluster: &[u8], max_len: usize) -> Option<&[u8]> {
        let Self { parser, block, stream } = self;
        parser.restart();
        let mut writer = BitWriter::new(stream, max_len);
        let mut start = 0;
        while start < cluster.len() {
            let end = parser.parse(cluster, start, block);
            let last = end == cluster.len();
            block.write(&cluster[start..end], last, &mut writer)?;
            start = end;
        }
        let len = writer.finish()?;
        stream.get(..len)
    }
}
