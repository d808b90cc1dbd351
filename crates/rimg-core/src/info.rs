//! What an image says of itself.

use crate::{SnapshotInfo, Uuid};

/// What an image says of itself, for `info` and for callers that want to know before they read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageInfo {
    /// The format's name.
    pub format: &'static str,
    /// The size of the guest's disk in bytes.
    pub virtual_size_bytes: u64,
    /// The size of a cluster (grain, block) in bytes, where the format has such.
    pub cluster_bytes: Option<u64>,
    /// The size of the parts of a cluster that can be there without the others, in bytes, where
    /// clusters have such.
    pub subcluster_bytes: Option<u64>,
    /// Whether guest data is encrypted.
    pub encrypted: bool,
    /// Whether the image was not closed properly.
    pub dirty: bool,
    /// The name of the backing file, as the image gives it.
    pub backing_file: Option<String>,
    /// The format of the backing file, as the image gives it.
    pub backing_format: Option<String>,
    /// The name of the external data file, as the image gives it.
    pub data_file: Option<String>,
    /// Whether blocks have their places before they are written to, so that data may lie in holes
    /// of the file; `None` where the image does not say.
    pub preallocated: Option<bool>,
    /// What images above note of this one, to know it again; not shown.
    pub identity: Option<ImageIdentity>,
    /// Internal snapshots.
    pub snapshots: Vec<SnapshotInfo>,
    /// What only this format has, in the order and under the names of its reference
    /// implementation's JSON ("compression-type").
    pub specific: Vec<(&'static str, InfoValue)>,
}

impl ImageInfo {
    /// The smallest part of the disk that this image can have while what is around it comes from
    /// below, in bytes, where there is one.
    #[must_use]
    pub fn granule_bytes(&self) -> Option<u64> {
        self.subcluster_bytes.or(self.cluster_bytes).filter(|&bytes| bytes != 0)
    }
}

/// What tells an image, and what it holds, from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageIdentity {
    /// That of the image, whatever it holds.
    pub uuid: Uuid,
    /// When it was made, in the unit and from the epoch of its format.
    pub timestamp: u64,
}

/// A value in [`ImageInfo::specific`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InfoValue {
    /// A truth value.
    Bool(bool),
    /// A count or a size.
    Number(u64),
    /// A text.
    Text(String),
    /// Values in a row.
    List(Vec<InfoValue>),
    /// Named values.
    Map(Vec<(&'static str, InfoValue)>),
}
