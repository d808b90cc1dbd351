//! Numbers of the qcow2 specification (QEMU, docs/interop/qcow2), each with its section.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

/// "QFI\xfb", at the start of every image (Header).
pub(crate) const MAGIC: u32 = 0x5146_49fb;

/// Cluster sizes are 512 bytes to 2 MiB (Header, cluster_bits; the upper bound is QEMU's).
pub(crate) const CLUSTER_BITS: core::ops::RangeInclusive<u32> = 9..=21;
/// The cluster size of new images where none is asked for.
pub(crate) const DEFAULT_CLUSTER_BITS: u32 = 16;
/// QEMU's bound on the size of any disk: 2^63 bytes, less 1 GiB for what surrounds it.
pub(crate) const MAX_DISK_BYTES: u64 = (1 << 63) - (1 << 30);
/// QEMU writes the feature name table only where a cluster is larger than this.
pub(crate) const FEATURE_NAMES_ABOVE_CLUSTER_BYTES: u64 = 4096;
/// Extended L2 entries need clusters of at least 16 KiB (Header, incompatible bit 4).
pub(crate) const EXTENDED_L2_MIN_CLUSTER_BITS: u32 = 14;

/// The header of version 2 ends here (Header).
pub(crate) const HEADER_V2_BYTES: u32 = 72;
/// The header of version 3 is at least this long (Header).
pub(crate) const HEADER_V3_BYTES: u32 = 104;
/// The header with the compression type and its padding (Header, "Additional fields").
pub(crate) const HEADER_WITH_COMPRESSION_BYTES: u32 = 112;

/// A backing file name is at most this long (Header, backing_file_size).
pub(crate) const MAX_BACKING_NAME_BYTES: u32 = 1023;

/// QEMU's bound on the active L1 table; others are held to it as well.
pub(crate) const MAX_L1_BYTES: u64 = 32 << 20;
/// QEMU's bound on the entries that the active L1 table needs.
pub(crate) const MAX_L1_ENTRIES_NEEDED: u64 = 0x7fff_ffff;
/// QEMU's bound on the refcount table.
pub(crate) const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// QEMU's bound on the number of snapshots.
pub(crate) const MAX_SNAPSHOTS: u32 = 65_536;
/// QEMU's bound on the extra data of a snapshot table entry.
pub(crate) const MAX_SNAPSHOT_EXTRA_BYTES: u32 = 1024;
/// QEMU's bound on the whole snapshot table.
pub(crate) const MAX_SNAPSHOT_TABLE_BYTES: u64 = 64 << 20;

/// QEMU's bounds on the bitmap directory.
pub(crate) const MAX_BITMAPS: u32 = 65_535;
pub(crate) const MAX_BITMAP_DIRECTORY_BYTES: u64 = 65_536 * 1088;
/// QEMU's bound on the length of a bitmap's name (Bitmap directory, name_size).
pub(crate) const MAX_BITMAP_NAME_BYTES: usize = 1023;
/// QEMU's bounds on what a bit stands for: 512 bytes to 2 GiB (Bitmap directory, granularity_bits).
pub(crate) const BITMAP_GRANULARITY_BITS: core::ops::RangeInclusive<u32> = 9..=31;
/// QEMU's bound on the bits of one bitmap, in bytes.
pub(crate) const MAX_BITMAP_BYTES: u64 = 512 << 20;
/// The type of a dirty tracking bitmap (Bitmap directory, type).
pub(crate) const BITMAP_TYPE_DIRTY: u8 = 1;

/// Flags of a bitmap (Bitmap directory, flags).
pub(crate) mod bitmap_flag {
    /// The bitmap was not saved and may say too little.
    pub(crate) const IN_USE: u32 = 1 << 0;
    /// Every write sets bits.
    pub(crate) const AUTO: u32 = 1 << 1;
    /// Who does not know the extra data may use the bitmap all the same.
    pub(crate) const EXTRA_DATA_COMPATIBLE: u32 = 1 << 2;
    /// What this crate understands.
    pub(crate) const KNOWN: u32 = IN_USE | AUTO | EXTRA_DATA_COMPATIBLE;
}

/// Incompatible features (Header, bytes 72-79).
pub(crate) mod incompatible {
    /// Refcounts may be inconsistent.
    pub(crate) const DIRTY: u64 = 1 << 0;
    /// Any data structure may be corrupt: no writing.
    pub(crate) const CORRUPT: u64 = 1 << 1;
    /// Guest data lies in an external file.
    pub(crate) const DATA_FILE: u64 = 1 << 2;
    /// The compression type is not zlib.
    pub(crate) const COMPRESSION_TYPE: u64 = 1 << 3;
    /// L2 entries are extended by bitmaps.
    pub(crate) const EXTENDED_L2: u64 = 1 << 4;
    /// What this crate understands.
    pub(crate) const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
}

/// Compatible features (Header, bytes 80-87).
pub(crate) mod compatible {
    /// Refcounts may be updated late, under the dirty bit.
    pub(crate) const LAZY_REFCOUNTS: u64 = 1 << 0;
}

/// Autoclear features (Header, bytes 88-95).
pub(crate) mod autoclear {
    /// The bitmaps extension is consistent with the data.
    pub(crate) const BITMAPS: u64 = 1 << 0;
    /// The external data file is a raw image of the guest's disk.
    pub(crate) const DATA_FILE_RAW: u64 = 1 << 1;
}

/// Header extension types (Header extensions).
pub(crate) mod extension {
    /// The end of the list.
    pub(crate) const END: u32 = 0;
    /// The backing file's format name.
    pub(crate) const BACKING_FORMAT: u32 = 0xe279_2aca;
    /// Names for feature bits.
    pub(crate) const FEATURE_NAMES: u32 = 0x6803_f857;
    /// Where the persistent bitmaps are.
    pub(crate) const BITMAPS: u32 = 0x2385_2875;
    /// Where the LUKS header is.
    pub(crate) const ENCRYPTION: u32 = 0x0537_be77;
    /// The external data file's name.
    pub(crate) const DATA_FILE_NAME: u32 = 0x4441_5441;
}

/// One entry of the feature name table: type, bit, 46 bytes of name.
pub(crate) const FEATURE_NAME_BYTES: usize = 48;

/// Encryption methods (Header, crypt_method).
pub(crate) mod crypt {
    /// Not encrypted.
    pub(crate) const NONE: u32 = 0;
    /// AES-CBC with the passphrase as key.
    pub(crate) const AES: u32 = 1;
    /// LUKS.
    pub(crate) const LUKS: u32 = 2;
}

/// LUKS headers are kept from being overwritten as far as this; with key material they take 2 MiB.
pub(crate) const MAX_GUARDED_LUKS_BYTES: u64 = 16 << 20;

/// Compression types (Header, byte 104).
pub(crate) mod compression {
    /// Deflate.
    pub(crate) const ZLIB: u8 = 0;
    /// Zstandard.
    pub(crate) const ZSTD: u8 = 1;
}

/// Bits 9-55 of L1, L2 and refcount table entries are the offset (L1 table entry and others).
pub(crate) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// The refcount table's offset may use all bits from 9 up.
pub(crate) const REFCOUNT_TABLE_OFFSET_MASK: u64 = 0xffff_ffff_ffff_fe00;
/// Bit 63 of L1 and L2 entries: the refcount is exactly one.
pub(crate) const COPIED: u64 = 1 << 63;
/// Bit 62 of L2 entries: the cluster is compressed.
pub(crate) const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of standard cluster descriptors: the cluster reads as zeroes (version 3).
pub(crate) const ZERO: u64 = 1;
/// Bits of L1 entries that have no meaning.
pub(crate) const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of standard L2 entries that have no meaning; bit 0 is added where it has none either.
pub(crate) const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// Bits of refcount table entries that have no meaning.
pub(crate) const REFCOUNT_TABLE_RESERVED: u64 = 0x1ff;

/// A cluster with extended L2 entries has this many subclusters (Extended L2 entries).
pub(crate) const SUBCLUSTERS: u32 = 32;
/// Compressed lengths are counted in sectors of this size (Compressed clusters descriptor).
pub(crate) const SECTOR_BYTES: u64 = 512;
/// The half of an extended entry's bitmap that says which subclusters are allocated; the other
/// half says which read as zeroes (Extended L2 entries).
pub(crate) const ALLOCATED_BITS: u64 = 0xffff_ffff;
