//! Persistent dirty bitmaps.

use crate::Result;
use core::ops::Range;

/// The persistent bitmaps of an image: each says which parts of the disk were written since it was
/// started or cleared.
pub trait Bitmaps: Send + Sync {
    /// All of them, in the order in which the image lists them.
    ///
    /// # Errors
    /// What the image or its storage says.
    fn list(&self) -> Result<Vec<BitmapInfo>>;

    /// The first run of set bits of the bitmap `name` in `range`, in bytes of the disk; `None`
    /// where no bit is set.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) where there is no such bitmap, or it
    /// is in use and so cannot be trusted; otherwise what the image or its storage says.
    fn dirty_run(&self, name: &str, range: Range<u64>) -> Result<Option<Range<u64>>>;

    /// Changing them, when the image was opened for writing.
    fn editor(&self) -> Option<&dyn BitmapEdit> {
        None
    }
}

/// Changing the persistent bitmaps of an image. Changes are durable with the image's next flush.
pub trait BitmapEdit: Send + Sync {
    /// Adds an empty, enabled bitmap.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) where the name or the granularity is
    /// not possible or the name is taken; otherwise what the image or its storage says.
    fn add(&self, name: &str, granularity_bytes: Option<u64>) -> Result<()>;

    /// Drops a bitmap, one that is in use and cannot be trusted included.
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    fn remove(&self, name: &str) -> Result<()>;

    /// Resets every bit.
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    fn clear(&self, name: &str) -> Result<()>;

    /// Says whether writes set bits from now on.
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    fn set_enabled(&self, name: &str, enabled: bool) -> Result<()>;

    /// Sets the bits of `range`.
    ///
    /// # Errors
    /// As for [`add`](Self::add); [`Error::Misuse`](crate::Error::Misuse) past the end of the
    /// disk.
    fn mark(&self, name: &str, range: Range<u64>) -> Result<()>;
}

/// What an image knows of one of its bitmaps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BitmapInfo {
    /// Unique within the image.
    pub name: String,
    /// How many bytes of the disk a bit stands for.
    pub granularity_bytes: u64,
    /// Whether writes set bits.
    pub enabled: bool,
    /// It was being changed when the image was last closed, and is not to be trusted.
    pub in_use: bool,
}
