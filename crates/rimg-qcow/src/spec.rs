//! Numbers of the format. It has no specification but the images that QEMU makes.

use core::ops::RangeInclusive;

/// Header, magic: "QFI\xfb".
pub(crate) const MAGIC: u32 = 0x5146_49fb;
pub(crate) const VERSION: u32 = 1;

/// Header, cluster_bits.
pub(crate) const CLUSTER_BITS: RangeInclusive<u8> = 9..=16;
/// Header, l2_bits: tables of 512 bytes to 64 KiB.
pub(crate) const L2_BITS: RangeInclusive<u8> = 6..=13;

/// cluster_bits and l2_bits of new images.
pub(crate) const STANDALONE_BITS: (u8, u8) = (12, 9);
/// The same, over a backing file: what is not written of a cluster has to be copied.
pub(crate) const OVERLAY_BITS: (u8, u8) = (9, 12);

/// Disks and files are whole sectors of this many bytes.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// Header, backing_file_size: QEMU refuses longer names.
pub(crate) const MAX_BACKING_NAME_BYTES: u32 = 1023;

/// The largest L1 table, in bytes, that QEMU opens.
pub(crate) const MAX_L1_BYTES: u64 = (1 << 31) - 1;

pub(crate) const MAX_FILE_BYTES: u64 = 1 << 63;

/// Header, crypt_method.
pub(crate) mod crypt {
    pub(crate) const NONE: u32 = 0;
    /// AES-128 in CBC mode.
    pub(crate) const AES: u32 = 1;
}

/// An L2 entry of a compressed cluster.
pub(crate) const COMPRESSED: u64 = 1 << 63;
