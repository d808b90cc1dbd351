//! Images that lie over others.

use crate::Result;

/// Changing what lies below an image.
pub trait Overlay: Send + Sync {
    /// Names another backing file, or none, and its format. Only the names change: what the guest
    /// sees is the caller's business, and the image that is open below stays.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) when the names do not fit or the
    /// image's features forbid a backing file; otherwise what the storage says.
    fn change_backing(&self, name: Option<&str>, format: Option<&str>) -> Result<()>;

    /// Whether the names can be changed at all: some formats note more of what lies below than
    /// its name.
    fn can_change_backing(&self) -> bool {
        true
    }

    /// Drops all data of this layer, so that everything comes from below again; what `commit`
    /// does to an image whose contents went into the one below.
    ///
    /// # Errors
    /// What the image or its storage says; part of the data may be dropped then.
    fn make_empty(&self) -> Result<()>;
}
