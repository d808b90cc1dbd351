//! Numbers of the Parallels Expandable Image File Format specification.

pub(crate) const SECTOR_BYTES: u64 = 512;

/// Header, magic: BAT entries count sectors.
pub(crate) const MAGIC_SECTORS: [u8; 16] = *b"WithoutFreeSpace";
/// Header, magic: BAT entries count clusters.
pub(crate) const MAGIC_CLUSTERS: [u8; 16] = *b"WithouFreSpacExt";

/// Header, version.
pub(crate) const VERSION: u32 = 2;

/// Header, heads: of new images, as QEMU makes them.
pub(crate) const HEADS: u32 = 16;
/// Sectors in a cylinder, which go with that: tracks of 32.
pub(crate) const SECTORS_PER_CYLINDER: u64 = 16 * 32;

/// Header, in_use: the image is open for writing, or was when a program ended.
pub(crate) const IN_USE: u32 = 0x746f_6e59;
/// Header, in_use: closed by somebody who knows the Format Extension.
pub(crate) const CLOSED: u32 = 0x312e_3276;
/// Header, in_use: closed by somebody who does not.
pub(crate) const CLOSED_WITHOUT_EXTENSION: u32 = 0;

/// Header, flags: the image should be considered clear.
pub(crate) const EMPTY_IMAGE: u32 = 1;

pub(crate) const DEFAULT_CLUSTER_BYTES: u64 = 1 << 20;

/// Clusters have less bytes than this.
pub(crate) const MAX_CLUSTER_BYTES: u64 = 1 << 31;

/// A BAT has at most so many entries: its length in bytes has 31 bits.
pub(crate) const MAX_BAT_ENTRIES: u64 = (1 << 29) - 1;

/// Format Extension.
pub(crate) mod extension {
    pub(crate) const MAGIC: u64 = 0xab23_4cef_23dc_ea87;
    /// Magic and checksum come before the features.
    pub(crate) const HEADER_BYTES: usize = 24;
    pub(crate) const END_OF_FEATURES: u64 = 0;
    pub(crate) const DIRTY_BITMAP: u64 = 0x2038_5fae_252c_b34a;
    /// Who cannot load the feature must not change the image.
    pub(crate) const NECESSARY: u64 = 1;
    /// Who does not know the feature leaves it as it is.
    pub(crate) const TRANSIT: u64 = 2;
}

/// DiskDescriptor.xml: the image that the guest writes to, unless TopGUID says otherwise.
pub(crate) const TOP_GUID: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
/// DiskDescriptor.xml: no parent.
pub(crate) const NO_GUID: &str = "{00000000-0000-0000-0000-000000000000}";
