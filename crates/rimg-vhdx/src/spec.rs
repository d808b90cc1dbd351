//! Numbers of the format. Sections are those of [MS-VHDX].

use crate::header::Guid;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const TIB: u64 = 1 << 40;

/// Everything outside the header section starts at a multiple of this, in bytes (2.1).
pub(crate) const ALIGN_BYTES: u64 = MIB;

/// No file is longer: offsets of the operating system have 63 bits.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 62;

/// The first bytes of a file (2.2.1).
pub(crate) const FILE_SIGNATURE: u64 = u64::from_le_bytes(*b"vhdxfile");
/// How many bytes of UTF-16 name the creator, behind the signature (2.2.1).
pub(crate) const CREATOR_BYTES: usize = 512;

/// Where the two headers lie (2.2.2).
pub(crate) const HEADER_AT: [u64; 2] = [64 * KIB, 128 * KIB];
pub(crate) const HEADER_SIGNATURE: u32 = u32::from_le_bytes(*b"head");
/// How much of a header its checksum covers, in bytes (2.2.2).
pub(crate) const HEADER_BYTES: usize = 4096;
pub(crate) const VERSION: u16 = 1;
pub(crate) const LOG_VERSION: u16 = 0;

/// Where the two region tables lie (2.2.3).
pub(crate) const REGION_TABLE_AT: [u64; 2] = [192 * KIB, 256 * KIB];
pub(crate) const REGION_TABLE_SIGNATURE: u32 = u32::from_le_bytes(*b"regi");
pub(crate) const REGION_TABLE_BYTES: usize = 64 << 10;
// Both are read at once.
const _: () = assert!(REGION_TABLE_AT[1] - REGION_TABLE_AT[0] == 64 * KIB);
/// How many entries a region table (2.2.3.1) or a metadata table (2.6.1.1) may have.
pub(crate) const MAX_TABLE_ENTRIES: u32 = 2047;

/// Regions (2.2.3.2).
pub(crate) mod region {
    use super::Guid;
    pub(crate) const BAT: Guid = Guid(0x084a_fd9b_5e11_649d_4200_f623_2dc2_7766);
    pub(crate) const METADATA: Guid = Guid(0x6e88_0f05_5f57_feb8_4b9a_4790_8b7c_a206);
    /// The file must not be opened by who does not know the region.
    pub(crate) const REQUIRED: u32 = 1;
}

/// The log (2.3).
pub(crate) mod log {
    pub(crate) const SECTOR_BYTES: u64 = 4096;
    pub(crate) const ENTRY_SIGNATURE: u32 = u32::from_le_bytes(*b"loge");
    pub(crate) const ZERO_SIGNATURE: u32 = u32::from_le_bytes(*b"zero");
    pub(crate) const DATA_SIGNATURE: u32 = u32::from_le_bytes(*b"desc");
    pub(crate) const SECTOR_SIGNATURE: u32 = u32::from_le_bytes(*b"data");
}

/// The metadata region (2.6).
pub(crate) mod metadata {
    use super::Guid;
    pub(crate) const SIGNATURE: u64 = u64::from_le_bytes(*b"metadata");
    pub(crate) const TABLE_BYTES: u32 = 64 << 10;
    /// The longest item, in bytes (2.6.1.2).
    pub(crate) const MAX_ITEM_BYTES: u32 = 1 << 20;
    /// Flags of an entry (2.6.1.2).
    pub(crate) const IS_VIRTUAL_DISK: u32 = 2;
    pub(crate) const IS_REQUIRED: u32 = 4;

    pub(crate) const FILE_PARAMETERS: Guid = Guid(0x6be7_44aa_f033_b6b3_4d43_fa36_caa1_6737);
    pub(crate) const VIRTUAL_DISK_SIZE: Guid = Guid(0xb8f4_3bd8_be5d_11b2_4876_cd1b_2fa5_4224);
    pub(crate) const VIRTUAL_DISK_ID: Guid = Guid(0x46c7_00e0_09c3_ef93_4523_b2e6_beca_12ab);
    pub(crate) const LOGICAL_SECTOR_SIZE: Guid = Guid(0x5fab_faa8_33f2_47ba_4709_a96f_8141_bf1d);
    pub(crate) const PHYSICAL_SECTOR_SIZE: Guid = Guid(0x56c5_5152_88e9_c99c_4471_445d_cda3_48c7);
    pub(crate) const PARENT_LOCATOR: Guid = Guid(0x0cab_3448_d8d3_f7ab_454d_b30b_a8d3_5f2d);

    /// Flags of the file parameters (2.6.2.1).
    pub(crate) const LEAVE_BLOCKS_ALLOCATED: u32 = 1;
    pub(crate) const HAS_PARENT: u32 = 2;

    /// The type of the parent locators that the format defines (2.6.2.6.1).
    pub(crate) const VHDX_PARENT_LOCATOR: Guid = Guid(0x1359_44e9_b825_89b7_4a81_d19e_b04a_efb7);
}

pub(crate) const MIN_BLOCK_BITS: u32 = 20;
pub(crate) const MAX_BLOCK_BITS: u32 = 28;
/// The largest disk in bytes (2.6.2.2).
pub(crate) const MAX_DISK_BYTES: u64 = 64 * TIB;
/// How many sectors a sector bitmap block describes, as a power of two (2.4).
pub(crate) const SECTORS_PER_BITMAP_BITS: u32 = 23;
/// The size of a sector bitmap block in bytes (2.4.2).
pub(crate) const BITMAP_BLOCK_BYTES: u64 = MIB;
pub(crate) const BAT_ENTRY_BYTES: u64 = 8;

/// What a file starts with, up to the headers: the header section (2.2).
pub(crate) const HEADER_SECTION_BYTES: u64 = MIB;
