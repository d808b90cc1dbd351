//! Numbers of the QED Image File Format specification.

use core::ops::RangeInclusive;

/// Header, magic: "QED\0", read as the other fields are.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"QED\0");

/// Header, cluster_size: a power of two, in bytes.
pub(crate) const CLUSTER_BYTES: RangeInclusive<u32> = 1 << 12..=1 << 26;

pub(crate) const DEFAULT_CLUSTER_BYTES: u32 = 1 << 16;

/// Header, table_size: a power of two, in clusters.
pub(crate) const TABLE_CLUSTERS: RangeInclusive<u32> = 1..=16;

pub(crate) const DEFAULT_TABLE_CLUSTERS: u32 = 4;

/// Header, image_size: in bytes, a multiple of this.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// No file is longer than an offset of 63 bits.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 63;

/// Longer names cannot be paths, and would only be memory that an image asks for.
pub(crate) const MAX_BACKING_NAME_BYTES: u32 = 4095;

/// Header, features: who does not know one of them must not open the image.
pub(crate) mod feature {
    /// QED_F_BACKING_FILE: the image has a backing file.
    pub(crate) const BACKING_FILE: u64 = 0x01;
    /// QED_F_NEED_CHECK: the image has to be checked before use.
    pub(crate) const NEED_CHECK: u64 = 0x02;
    /// QED_F_BACKING_FORMAT_NO_PROBE: the backing file is raw, whatever it looks like.
    pub(crate) const BACKING_FORMAT_NO_PROBE: u64 = 0x04;

    pub(crate) const ALL: u64 = BACKING_FILE | NEED_CHECK | BACKING_FORMAT_NO_PROBE;
}
