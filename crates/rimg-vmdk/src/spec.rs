//! Numbers of VMware's technical note "Virtual Disk Format 5.0", by its sections. What it leaves
//! out, seSparse, was learned from images.

/// The unit of every offset and count in headers and tables, in bytes.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// "Hosted Sparse Extents": `SparseExtentHeader`.
pub(crate) mod sparse {
    /// `KDMV` as a little-endian number.
    pub(crate) const MAGIC: u32 = 0x564d_444b;
    /// The highest version that is known.
    pub(crate) const MAX_VERSION: u32 = 3;
    /// Entries in a grain table.
    pub(crate) const GTES_PER_GT: u32 = 512;
    /// Sectors in a grain, unless somebody wants otherwise.
    pub(crate) const GRAIN_SECTORS: u64 = 128;
    /// Larger grains than 64 MiB are damage.
    pub(crate) const MAX_GRAIN_SECTORS: u64 = 1 << 17;
    /// "The grain directory is at the end: see the footer."
    pub(crate) const GD_AT_END: u64 = u64::MAX;
    /// Bytes that end-of-line conversions would change, from offset 73.
    pub(crate) const END_OF_LINE_TEST: [u8; 4] = *b"\n \r\n";
    /// A grain that reads as zeroes, in extents with that flag.
    pub(crate) const ZEROED_GRAIN: u64 = 1;

    /// Bits of `flags`.
    pub(crate) mod flag {
        /// The end-of-line test is valid.
        pub(crate) const END_OF_LINE_TEST: u32 = 1;
        /// There is a second grain directory.
        pub(crate) const REDUNDANT_TABLES: u32 = 1 << 1;
        /// A table entry of 1 is a grain of zeroes.
        pub(crate) const ZEROED_GRAINS: u32 = 1 << 2;
        /// Grains are compressed.
        pub(crate) const COMPRESSED: u32 = 1 << 16;
        /// Markers tell what follows.
        pub(crate) const MARKERS: u32 = 1 << 17;
    }

    /// Values of `compressAlgorithm`.
    pub(crate) mod compression {
        pub(crate) const NONE: u16 = 0;
        /// RFC 1951 in the wrapping of RFC 1950.
        pub(crate) const DEFLATE: u16 = 1;
    }
}

/// "Stream-Optimized Compressed Sparse Extents": markers.
pub(crate) mod marker {
    pub(crate) const END_OF_STREAM: u32 = 0;
    pub(crate) const GRAIN_TABLE: u32 = 1;
    pub(crate) const GRAIN_DIRECTORY: u32 = 2;
    pub(crate) const FOOTER: u32 = 3;
    /// Bytes of a grain marker before the grain's own.
    pub(crate) const GRAIN_HEADER_BYTES: u64 = 12;
    /// Footer marker, footer and end-of-stream marker, in sectors.
    pub(crate) const FOOTER_SECTORS: u64 = 3;
}

/// "ESXi Host Sparse Extents": `COWDisk_Header`.
pub(crate) mod cowd {
    /// `COWD` as a little-endian number.
    pub(crate) const MAGIC: u32 = 0x4457_4f43;
    pub(crate) const VERSION: u32 = 1;
    pub(crate) const GTES_PER_GT: u32 = 4096;
}

/// seSparse extents of ESXi 6.5 and later.
pub(crate) mod sesparse {
    pub(crate) const CONST_MAGIC: u64 = 0xcafe_babe;
    pub(crate) const VOLATILE_MAGIC: u64 = 0xcafe_cafe;
    /// 2.1.
    pub(crate) const VERSION: u64 = 0x2_0000_0001;
    pub(crate) const GRAIN_SECTORS: u64 = 8;
    pub(crate) const GT_SECTORS: u64 = 64;
    /// The upper half of the entry of a grain directory that has a table.
    pub(crate) const GD_ALLOCATED: u64 = 0x1000_0000;

    /// The upper four bits of a grain table's entries; an entry of 0 is unallocated.
    pub(crate) mod entry {
        /// Given back by the guest.
        pub(crate) const UNMAPPED: u64 = 1;
        pub(crate) const ZERO: u64 = 2;
        pub(crate) const ALLOCATED: u64 = 3;
    }
}

/// "The Descriptor File".
pub(crate) mod descriptor {
    /// How descriptor files begin.
    pub(crate) const FIRST_LINE: &str = "# Disk DescriptorFile";
    /// The content ID of "no parent".
    pub(crate) const NO_PARENT: u32 = u32::MAX;
    /// Longer texts than this are no descriptors, in bytes.
    pub(crate) const MAX_BYTES: u64 = 1 << 20;
    /// Sectors kept for a descriptor in an extent.
    pub(crate) const EMBEDDED_SECTORS: u64 = 20;
    /// What an extent of the `twoGbMaxExtent` types has at most, in bytes.
    pub(crate) const SPLIT_BYTES: u64 = 1 << 31;
    /// More extents than this are refused: each is an open file.
    pub(crate) const MAX_EXTENTS: usize = 65_000;
}
