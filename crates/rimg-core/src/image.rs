//! An open disk image.

use crate::{
    Amend, Bitmaps, Check, CompressedWrite, Extent, ImageInfo, ImageWrite, Overlay, Resize, Result,
    Snapshots, Storage,
};
use core::fmt::Debug;
use core::ops::Range;
use std::sync::Arc;

/// An open disk image of any format, shared between threads.
///
/// Dropping an image that was written may lose metadata: call [`BlockImage::close`], or
/// [`ImageWrite::flush`] before.
pub trait BlockImage: Send + Sync + Debug {
    /// The size of the guest's disk in bytes.
    fn size_bytes(&self) -> u64;

    /// Fills `buf` with guest data from `at`, backing images included.
    ///
    /// # Errors
    /// [`Error::Misuse`](crate::Error::Misuse) when the range reaches past the end; otherwise what
    /// the image or its storage says. `buf` is then unspecified.
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()>;

    /// The first run of `range`, starting at `range.start`, as this layer alone sees it; at most
    /// as long as `range`. Neighbouring runs may be of the same kind.
    ///
    /// Host offsets are good for as long as nobody writes to the image.
    ///
    /// # Errors
    /// [`Error::Misuse`](crate::Error::Misuse) for an empty range or one past the end; otherwise
    /// what the image or its storage says.
    fn extent_at(&self, range: Range<u64>) -> Result<Extent>;

    /// What the image says of itself.
    ///
    /// # Errors
    /// What the storage says.
    fn info(&self) -> Result<ImageInfo>;

    /// The files that [`FileOffset::file`](crate::FileOffset::file) counts: 0 is the image's own.
    fn file(&self, index: u16) -> Option<&Arc<dyn Storage>>;

    /// How many clusters of its own file are in use, or `most` when there are more. Nothing where
    /// the format does not count them: then all that the file has are.
    ///
    /// # Errors
    /// What the storage says.
    fn clusters_in_use(&self, most: u64) -> Result<Option<u64>> {
        let _ = most;
        Ok(None)
    }

    /// The image below, where this one has one and it was opened.
    fn backing(&self) -> Option<&Arc<dyn BlockImage>> {
        None
    }

    /// Writing, when the image was opened for it.
    fn writer(&self) -> Option<&dyn ImageWrite> {
        None
    }

    /// Writing encoded clusters, when the image was opened for writing and its format has them.
    fn compressor(&self) -> Option<&dyn CompressedWrite> {
        None
    }

    /// Changing the size of the disk.
    fn resizer(&self) -> Option<&dyn Resize> {
        None
    }

    /// Internal snapshots, when the format has them.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// Persistent dirty bitmaps, when the format has them.
    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        None
    }

    /// Changing what lies below, when the format has backing files and the image was opened for
    /// writing.
    fn overlay(&self) -> Option<&dyn Overlay> {
        None
    }

    /// Changing the image's options, when it was opened for writing and the format can.
    fn amender(&self) -> Option<&dyn Amend> {
        None
    }

    /// Checking the image's metadata, when the format has any.
    fn checker(&self) -> Option<&dyn Check> {
        None
    }

    /// Writes back what is in memory and reports what went wrong; `Drop` cannot.
    ///
    /// # Errors
    /// What the storage says; the image may then have leaked clusters, never lost ones.
    fn close(self: Box<Self>) -> Result<()>;
}
