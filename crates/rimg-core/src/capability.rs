//! What an image may offer beyond being read.

use crate::{Codec, Result};
use core::ops::Range;

/// Writing guest data.
///
/// Calls on disjoint ranges may run at the same time. What concurrent calls leave in a range that
/// they share is one of them or the other, piece by piece.
pub trait ImageWrite: Send + Sync {
    /// Writes `buf` at `at`.
    ///
    /// # Errors
    /// [`Error::Misuse`](crate::Error::Misuse) past the end; otherwise what the storage says, and
    /// the range is then unspecified.
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()>;

    /// Makes `range` read as zeroes with as little space and work as the format allows.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()>;

    /// Says that the guest does not need `range` any more. What it reads afterwards is up to the
    /// format: zeroes, or what was there before; never anything else.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    fn discard_at(&self, range: Range<u64>) -> Result<()>;

    /// Makes all completed writes durable, metadata included.
    ///
    /// # Errors
    /// What the storage says; the durability of earlier writes is then unknown.
    fn flush(&self) -> Result<()>;

    /// As [`flush`](Self::flush), and leaves nothing for the next one who opens the image to put
    /// right. What [`BlockImage::close`](crate::BlockImage::close) does, for an image that is not
    /// the caller's to close: one below another.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush).
    fn finish(&self) -> Result<()> {
        self.flush()
    }

    /// Whether where data lands depends on the order of the writes. Someone who wants the same
    /// file for the same contents writes to such an image in order.
    fn places_in_order(&self) -> bool;

    /// Whether every byte not written since the image was created reads as zeroes. Whoever asks
    /// has just created it: an image in use may say either.
    fn is_zero_initialised(&self) -> bool;

    /// Promises that the caller runs no risk in losing the whole image to a crash before the next
    /// [`flush`](Self::flush): a target that is being made. The image may then skip the ordering
    /// of its metadata writes, and one that is as it was created may lay itself out anew. The
    /// promise ends with that flush.
    fn relax_until_flush(&self) {}
}

/// Writing encoded clusters.
pub trait CompressedWrite: Send + Sync {
    /// What the image's encoded clusters are encoded with.
    fn codec(&self) -> Codec;

    /// The size of a cluster in bytes.
    fn cluster_bytes(&self) -> u32;

    /// Whether the format stores all clusters encoded, so that nobody has to ask for it.
    fn is_required(&self) -> bool {
        false
    }

    /// Encodes and stores `cluster` at `at`, or stores it plainly where encoding does not help.
    /// The cluster is whole, or ends where the disk ends.
    ///
    /// # Errors
    /// [`Error::Misuse`](crate::Error::Misuse) for a piece of a cluster; otherwise what the
    /// storage says.
    fn write_compressed_at(&self, cluster: &[u8], at: u64) -> Result<()>;

    /// Stores clusters that are encoded with [`codec`](Self::codec) already, in this order.
    ///
    /// # Errors
    /// [`Error::Misuse`](crate::Error::Misuse) for a position that is no cluster's or data not
    /// smaller than one; otherwise what the storage says.
    fn write_encoded(&self, clusters: &[EncodedCluster<'_>]) -> Result<()>;
}

/// A cluster in its encoded form.
#[derive(Debug, Clone, Copy)]
pub struct EncodedCluster<'a> {
    /// The guest offset of the cluster in bytes, a multiple of the cluster size.
    pub at: u64,
    /// The encoded bytes, exactly to the end of the stream.
    pub bytes: &'a [u8],
}

/// Changing the size of the disk.
pub trait Resize: Send + Sync {
    /// Makes the disk `size_bytes` long. New bytes read as zeroes, whatever a backing image holds,
    /// unless [`grows_by_zeroes`](Self::grows_by_zeroes) says otherwise.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) when the format or the image's state
    /// forbids it; otherwise what the storage says.
    fn resize(&self, size_bytes: u64, preallocation: Preallocation) -> Result<()>;

    /// Whether new bytes read as zeroes. Where they do not, they are anything: an encrypted disk
    /// would have to be written to from end to end for that.
    fn grows_by_zeroes(&self) -> bool {
        true
    }
}

/// How much space a new or grown image takes beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preallocation {
    /// None: space is taken when data comes.
    #[default]
    Off,
    /// Tables are written and point to space that the file may not occupy yet.
    Metadata,
    /// As `Metadata`, and the file system reserves the space.
    Falloc,
    /// As `Metadata`, and zeroes are written to all of it.
    Full,
}

impl Preallocation {
    /// The mode with this name in qemu-img's options.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "off" => Self::Off,
            "metadata" => Self::Metadata,
            "falloc" => Self::Falloc,
            "full" => Self::Full,
            _ => return None,
        })
    }

    /// The name in qemu-img's options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Metadata => "metadata",
            Self::Falloc => "falloc",
            Self::Full => "full",
        }
    }
}
