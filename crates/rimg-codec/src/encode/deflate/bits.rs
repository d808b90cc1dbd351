//! Bits into bytes, least significant first (RFC 1951 section 3.1.1).

use super::num::{index, wide};

/// Room behind the longest stream, so that eight bytes can be stored at once.
const SLACK: usize = 16;

/// Writes into a buffer that it never outgrows.
pub(super) struct BitWriter<'b> {
    bytes: &'b mut [u8],
    /// Whole bytes written.
    len: usize,
    /// Bits not written yet, from the lowest up.
    pending: u64,
    pending_len: u32,
    max_len: usize,
}

impl<'b> BitWriter<'b> {
    /// Writes a stream of at most `max_len` bytes into `buffer`, from its start.
    pub(super) fn new(buffer: &'b mut Vec<u8>, max_len: usize) -> Self {
        if buffer.len() < max_len + SLACK {
            buffer.resize(max_len + SLACK, 0);
        }
        Self { bytes: buffer, len: 0, pending: 0, pending_len: 0, max_len }
    }

    /// Whether `bits` more end within the longest stream allowed.
    pub(super) fn has_room(&self, bits: u64) -> bool {
        let used = wide(self.len) * 8 + u64::from(self.pending_len);
        used + bits <= wide(self.max_len) * 8
    }

    /// Bits to the next byte boundary, after `ahead` more bits.
    pub(super) fn padding(&self, ahead: u32) -> u32 {
        (self.pending_len + ahead).wrapping_neg() & 7
    }

    /// Adds the `len` lowest bits of `bits`, which has no others.
    ///
    /// At most 56 bits may be added between two calls of [`flush`](Self::flush).
    #[inline(always)]
    pub(super) fn add(&mut self, bits: u64, len: u32) {
        self.pending |= bits << (self.pending_len & 63);
        self.pending_len = self.pending_len.wrapping_add(len);
    }

    /// Writes what is whole bytes; fewer than eight bits stay behind.
    #[inline(always)]
    pub(super) fn flush(&mut self) {
        if let Some(room) = self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            *room = self.pending.to_le_bytes();
            let whole = self.pending_len & !7;
            self.len = self.len.wrapping_add(index(whole >> 3));
            self.pending = self.pending.checked_shr(whole).unwrap_or(0);
            self.pending_len &= 7;
        } else {
            debug_assert!(false, "blocks are written where they have room");
        }
    }

    /// Adds whole bytes at a byte boundary.
    pub(super) fn add_bytes(&mut self, bytes: &[u8]) {
        self.flush();
        debug_assert_eq!(self.pending_len, 0);
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Pads the last byte and returns the stream's length, if that is allowed.
    pub(super) fn finish(mut self) -> Option<usize> {
        let padding = self.padding(0);
        self.add(0, padding);
        self.flush();
        (self.len <= self.max_len).then_some(self.len)
    }
}
