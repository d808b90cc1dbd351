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

    /// Takes the image below for what this one lies on, after what is in this one was written to
    /// it: some formats know what they lie on by an identifier that changes with its contents.
    ///
    /// # Errors
    /// What the image or its storage says.
    fn accept_backing(&self) -> Result<()> {
        Ok(())
    }

    /// Drops all data of this layer, so that everything comes from below again; what `commit`
    /// does to an image whose contents went into the one below, and so accepts that as well.
    ///
    /// # Errors
    /// What the image or its storage says; part of the data may be dropped then.
    fn make_empty(&self) -> Result<()>;
}
