//! Numbers of the format, from Microsoft's "Virtual Hard Disk Image Format Specification", version
//! 1.0 (2006); sections by their headings there.

use rimg_core::num;

/// The unit of everything.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// The length of the footer, and of its copy at the start ("Hard Disk Footer Format").
pub(crate) const FOOTER_BYTES: u64 = 512;

/// Versions before Virtual PC 2004 wrote a footer that is a byte shorter.
pub(crate) const OLD_FOOTER_BYTES: u64 = 511;

/// The length of the dynamic disk header ("Dynamic Disk Header Format").
pub(crate) const DYNAMIC_HEADER_BYTES: u64 = 1024;

/// How the footer starts.
pub(crate) const FOOTER_COOKIE: u64 = u64::from_be_bytes(*b"conectix");

/// How the dynamic disk header starts.
pub(crate) const DYNAMIC_COOKIE: u64 = u64::from_be_bytes(*b"cxsparse");

/// `features`: the bit that is always set.
pub(crate) const FEATURES: u32 = 2;

/// The version of the format and of the dynamic disk header.
pub(crate) const VERSION: u32 = 0x0001_0000;

/// `data_offset` where there is nothing.
pub(crate) const NOWHERE: u64 = u64::MAX;

/// Who says that he made images whose size is that of the geometry: QEMU does.
pub(crate) const CREATOR_GEOMETRY: [u8; 4] = *b"qemu";

/// Who says that he made images whose size is the one in the footer.
pub(crate) const CREATOR_SIZE: [u8; 4] = *b"qem2";

/// Those whose images have the size of their geometry.
pub(crate) const GEOMETRY_CREATORS: &[[u8; 4]] = &[*b"vpc ", CREATOR_GEOMETRY];

/// `creator_version` and `creator_host_os` as QEMU writes them.
pub(crate) const CREATOR_VERSION: u32 = 0x0005_0003;
pub(crate) const CREATOR_HOST_OS: u32 = u32::from_be_bytes(*b"Wi2k");

/// Values of `disk_type`.
pub(crate) mod disk_type {
    pub(crate) const FIXED: u32 = 2;
    pub(crate) const DYNAMIC: u32 = 3;
    pub(crate) const DIFFERENCING: u32 = 4;
}

/// Platform codes of parent locators that name files ("Parent Locator").
pub(crate) mod locator {
    /// A path relative to the image, in UTF-16 with the low byte first.
    pub(crate) const W2RU: u32 = u32::from_be_bytes(*b"W2ru");
    /// An absolute path, in the same way.
    pub(crate) const W2KU: u32 = u32::from_be_bytes(*b"W2ku");
}

/// How many parent locators a dynamic disk header has.
pub(crate) const LOCATORS: usize = 8;

/// An entry of the block allocation table of a block that is not there.
pub(crate) const UNUSED: u32 = 0xffff_ffff;

/// The size of an entry of the block allocation table.
pub(crate) const ENTRY_BYTES: u64 = 4;

/// The size of a block unless asked for otherwise ("Block Allocation Table and Data Blocks").
pub(crate) const BLOCK_BYTES: u32 = 2 << 20;

/// The largest block that is taken for possible.
pub(crate) const MAX_BLOCK_BYTES: u32 = 1 << 30;
/// QEMU's bound on the entries of a block allocation table.
pub(crate) const MAX_TABLE_ENTRIES: u32 = 0x1fff_ffff;

/// The largest disk: 2040 GiB.
pub(crate) const MAX_DISK_BYTES: u64 = 2040 << 30;

/// Times count from 2000-01-01 00:00:00 UTC; here as seconds since 1970.
pub(crate) const EPOCH: u64 = 946_684_800;

/// `n` bytes as whole sectors, in bytes.
pub(crate) const fn whole_sectors(n: u64) -> u64 {
    match num::align_up(n, SECTOR_BYTES) {
        Some(aligned) => aligned,
        None => u64::MAX,
    }
}
