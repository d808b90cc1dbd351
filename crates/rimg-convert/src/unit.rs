//! A unit of work: what is planned, what was read, and what is to be done to the target.

use crate::progress::Warning;
use crate::runs::{Encoded, RunKind};
use core::ops::Range;
use rimg_core::num::to_u64;
use rimg_core::{BlockImage, FileOffset};

/// About how much data a unit holds that is only copied, in bytes. What the threads spend on handing
/// units over shrinks with it; what is in a core's own cache does not matter, since the thread that
/// writes is mostly another one than that which read.
pub(crate) const UNIT_BYTES: usize = 1 << 20;

/// About how much data a unit holds that is encoded, in bytes.
pub(crate) const ENCODED_UNIT_BYTES: usize = 512 << 10;

/// More pieces than this end a unit: it bounds the memory for a scattered source.
pub(crate) const UNIT_PIECES: usize = 512;

/// A unit travels from the planner through a worker to the target, and back to be used again: its
/// buffers are allocated, and their pages touched, once.
#[derive(Default)]
pub(crate) struct Unit<'a> {
    /// The position in the order of the work, from 0.
    pub(crate) seq: u64,
    /// The guest bytes that are done with this unit.
    pub(crate) range: Range<u64>,
    /// What to look at, in the order of the guest's bytes.
    pub(crate) pieces: Vec<Piece<'a>>,
    /// What to do, in this order.
    pub(crate) ops: Vec<Op>,
    /// What the operations write.
    pub(crate) data: Vec<u8>,
    /// How many encoded clusters are passed on as they were.
    pub(crate) passed: u64,
    /// What was lost.
    pub(crate) warnings: Vec<Warning>,
}

impl Unit<'_> {
    /// How many bytes are to be looked at.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| to_u64(piece.len)).fold(0, u64::saturating_add)
    }

    /// Forgets the work but keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.ops.clear();
        self.passed = 0;
        self.warnings.clear();
    }
}

/// A run of guest bytes and how to come by them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) at: u64,
    pub(crate) len: usize,
    pub(crate) origin: Origin<'a>,
}

impl<'a> Piece<'a> {
    pub(crate) fn end(&self) -> u64 {
        self.at.saturating_add(to_u64(self.len))
    }

    pub(crate) fn encoded(&self) -> Option<Encoded<'a>> {
        match self.origin {
            Origin::Encoded(encoded) => Some(encoded),
            _ => None,
        }
    }

    /// Whether `next` can be read together with this one.
    pub(crate) fn continues_in(&self, next: &Self) -> bool {
        if self.end() != next.at {
            return false;
        }
        match (self.origin, next.origin) {
            (Origin::Fill, Origin::Fill) | (Origin::Source, Origin::Source) => true,
            (Origin::File { image, at }, Origin::File { image: next_image, at: next_at }) => {
                std::ptr::addr_eq(image, next_image)
                    && at.file == next_at.file
                    && at.host.0.checked_add(to_u64(self.len)) == Some(next_at.host.0)
            }
            _ => false,
        }
    }
}

/// How to come by the bytes of a piece.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// They are zeroes.
    Fill,
    /// Read them from a file of `image`.
    File { image: &'a dyn BlockImage, at: FileOffset },
    /// Read and decode them.
    Encoded(Encoded<'a>),
    /// Read the source.
    Source,
}

impl<'a> From<RunKind<'a>> for Origin<'a> {
    fn from(kind: RunKind<'a>) -> Self {
        match kind {
            RunKind::Zero { .. } => Self::Fill,
            RunKind::Data { image, at } => Self::File { image, at },
            RunKind::Encoded(encoded) => Self::Encoded(encoded),
            RunKind::Shared | RunKind::Opaque => Self::Source,
        }
    }
}

/// Something to be done to the target.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Write these bytes of the unit's data.
    Write { at: u64, data: Range<usize> },
    /// Store this encoded cluster from the unit's data.
    Encoded { at: u64, data: Range<usize> },
    /// Make it read as zeroes.
    Zeroes { range: Range<u64> },
}
