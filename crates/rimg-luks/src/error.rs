//! What can be wrong with an image beside its header, whose errors rimg-crypto has.

use crate::FORMAT;
use rimg_core::{Error, HostOffset, Location};

/// What is wrong with a field. Where the field is stands in the error around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptKind {
    #[error("the file of {len} bytes ends before the data at offset {data_at:#x}")]
    NoData { data_at: u64, len: u64 },
    #[error("{len} bytes of data at offset {data_at:#x} are more than the file of {file} has")]
    DataTruncated { data_at: u64, len: u64, file: u64 },
    #[error("{0} bytes of data are no whole sectors")]
    PartOfSector(u64),
}

impl CorruptKind {
    /// The full error: what is wrong, with which field, at which offset of the file.
    pub(crate) fn at(self, field: &'static str, offset: u64) -> Error {
        Error::Corrupt {
            format: FORMAT,
            at: Location { structure: "LUKS header", field, offset: HostOffset(offset) },
            source: Box::new(self),
        }
    }
}
