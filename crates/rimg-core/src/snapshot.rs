//! Internal snapshots.

use crate::{BlockImage, Result};

/// The internal snapshots of an image.
pub trait Snapshots: Send + Sync {
    /// All of them, in the order in which the image lists them.
    ///
    /// # Errors
    /// What the image or its storage says.
    fn list(&self) -> Result<Vec<SnapshotInfo>>;

    /// The disk as it was, read-only; `None` when no snapshot fits.
    ///
    /// # Errors
    /// What the image or its storage says.
    fn open(&self, wanted: &SnapshotSelector<'_>) -> Result<Option<Box<dyn BlockImage>>>;

    /// Taking, restoring and deleting them, when the image was opened for writing.
    fn editor(&self) -> Option<&dyn SnapshotEdit> {
        None
    }
}

/// Changing the internal snapshots of an image.
///
/// Nobody else may be writing to the image meanwhile.
pub trait SnapshotEdit: Send + Sync {
    /// Keeps the disk as it is now. Returns what the image recorded, with the identifier that it
    /// chose.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) when the image cannot hold one more; otherwise what
    /// the image or its storage says, and the image is as before.
    fn create(&self, new: &NewSnapshot<'_>) -> Result<SnapshotInfo>;

    /// Makes the disk what it was, its size included; `false` when no snapshot fits.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    fn apply(&self, wanted: &SnapshotSelector<'_>) -> Result<bool>;

    /// Drops a snapshot, and frees what nobody else uses; `false` when none fits.
    ///
    /// # Errors
    /// [`Error::Misuse`](crate::Error::Misuse) while a disk from [`Snapshots::open`] is there
    /// still; otherwise as for [`create`](Self::create).
    fn delete(&self, wanted: &SnapshotSelector<'_>) -> Result<bool>;
}

/// What the caller decides of a new snapshot. The time is the caller's: two runs with the same
/// time make the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewSnapshot<'a> {
    /// Its name; may be empty and may repeat.
    pub name: &'a str,
    /// Seconds since the Unix epoch.
    pub date_seconds: u32,
    /// The part below a second, in nanoseconds.
    pub date_nanoseconds: u32,
}

/// How a user names a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotSelector<'a> {
    /// A bare word: an identifier, or else a name.
    IdOrName(&'a str),
    /// Both or one of them; all that are given must fit.
    Fields {
        /// The unique identifier.
        id: Option<&'a str>,
        /// The name.
        name: Option<&'a str>,
    },
}

/// What an image knows of one of its snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotInfo {
    /// Unique within the image.
    pub id: String,
    /// Given by the user; may be empty and may repeat.
    pub name: String,
    /// When it was taken: seconds since the Unix epoch.
    pub date_seconds: u32,
    /// The part below a second, in nanoseconds.
    pub date_nanoseconds: u32,
    /// How long the guest had been running, in nanoseconds.
    pub vm_clock_nanoseconds: u64,
    /// The size of the saved state of the machine in bytes; 0 where only the disk was saved.
    pub vm_state_bytes: u64,
    /// Instructions executed, where recorded.
    pub icount: Option<u64>,
    /// The size of the disk at that time in bytes.
    pub disk_size_bytes: u64,
}
