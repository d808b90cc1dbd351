//! Numbers of the format. There is no specification but VirtualBox itself: the names of fields are
//! those of its documentation and of the description at <http://formats.kaitai.io/vdi/>.

/// What stands behind the text at the start of every image.
pub(crate) const SIGNATURE: u32 = 0xbeda_107f;

/// The version that is written: 1.1.
pub(crate) const VERSION: u32 = 0x0001_0001;

/// The text of new images, the one that QEMU writes: tools tell images by it.
pub(crate) const TEXT: &[u8] = b"<<< QEMU VM Virtual Disk Image >>>\n";

/// The length of the text, in bytes.
pub(crate) const TEXT_BYTES: usize = 64;

/// `header_size` of new images: what follows the version, up to the parent's UUID.
pub(crate) const HEADER_BYTES: u32 = 0x180;

/// Where the block map of new images lies.
pub(crate) const MAP_OFFSET: u32 = 512;

/// The unit of the disk's size and of a new image's tables.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// The size of a block unless asked for otherwise.
pub(crate) const BLOCK_BYTES: u32 = 1 << 20;

/// The largest block that is taken for possible.
pub(crate) const MAX_BLOCK_BYTES: u32 = 1 << 30;

/// The most blocks that QEMU and, at 1 MiB each, rimg create a disk with.
pub(crate) const MAX_BLOCKS: u64 = 0x1fff_ff80;

/// The size of an entry of the block map.
pub(crate) const ENTRY_BYTES: u64 = 4;

/// Values of `image_type`.
pub(crate) mod image_type {
    pub(crate) const DYNAMIC: u32 = 1;
    pub(crate) const STATIC: u32 = 2;
    pub(crate) const UNDO: u32 = 3;
    pub(crate) const DIFFERENCING: u32 = 4;
}

/// Entries of the block map that are not the number of a block in the file.
pub(crate) mod entry {
    /// Never written: what is below, or zeroes.
    pub(crate) const FREE: u32 = 0xffff_ffff;
    /// Discarded: zeroes, whatever is below.
    pub(crate) const DISCARDED: u32 = 0xffff_fffe;
}
