//! Blocks, chunks, and where their entries lie in the block allocation table.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::CorruptKind;
use crate::spec;

/// The sizes that decide how the disk is cut into blocks; every combination is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    block: BlockBits,
    logical: SectorSize,
}

/// The size of a payload block as a power of two: 20 to 28.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockBits(u32);

impl BlockBits {
    pub(crate) fn of_bytes(bytes: u32) -> Result<Self, CorruptKind> {
        let bits = bytes.trailing_zeros();
        let is_possible = (spec::MIN_BLOCK_BITS..=spec::MAX_BLOCK_BITS).contains(&bits);
        if bytes.is_power_of_two() && is_possible {
            Ok(Self(bits))
        } else {
            Err(CorruptKind::BlockSize(bytes))
        }
    }

    pub(crate) const fn bytes(self) -> u64 {
        1 << self.0
    }
}

/// The size of a sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SectorSize {
    Of512,
    Of4096,
}

impl SectorSize {
    pub(crate) fn of_bytes(bytes: u32) -> Result<Self, CorruptKind> {
        match bytes {
            512 => Ok(Self::Of512),
            4096 => Ok(Self::Of4096),
            other => Err(CorruptKind::SectorSize(other)),
        }
    }

    pub(crate) const fn bytes(self) -> u32 {
        match self {
            Self::Of512 => 512,
            Self::Of4096 => 4096,
        }
    }

    const fn bits(self) -> u32 {
        match self {
            Self::Of512 => 9,
            Self::Of4096 => 12,
        }
    }
}

impl Geometry {
    pub(crate) const fn new(block: BlockBits, logical: SectorSize) -> Self {
        Self { block, logical }
    }

    pub(crate) const fn block_bytes(self) -> u64 {
        self.block.bytes()
    }

    pub(crate) const fn sector_bytes(self) -> u64 {
        1 << self.logical.bits()
    }

    /// The block that a guest byte lies in.
    pub(crate) const fn block_of(self, guest: u64) -> u64 {
        guest >> self.block.0
    }

    /// The first guest byte of a block.
    pub(crate) const fn start_of(self, block: u64) -> u64 {
        block << self.block.0
    }

    /// Where a guest byte lies in its block.
    pub(crate) const fn in_block(self, guest: u64) -> u64 {
        guest & (self.block_bytes().wrapping_sub(1))
    }

    /// How many payload blocks a disk has.
    pub(crate) const fn blocks_for(self, size_bytes: u64) -> u64 {
        size_bytes.div_ceil(self.block_bytes())
    }

    /// The chunk ratio, as a power of two: how many blocks one sector bitmap describes (2.5).
    const fn ratio_bits(self) -> u32 {
        // Never negative, as the largest block has 2^28 bytes.
        spec::SECTORS_PER_BITMAP_BITS.wrapping_add(self.logical.bits()).wrapping_sub(self.block.0)
    }

    /// How many payload blocks a chunk has.
    pub(crate) const fn blocks_per_chunk(self) -> u64 {
        1 << self.ratio_bits()
    }

    /// The entry of a payload block: each chunk's are followed by one for its sector bitmap.
    pub(crate) const fn entry_of(self, block: u64) -> u64 {
        block.wrapping_add(block >> self.ratio_bits())
    }

    /// The entry of the sector bitmap that describes a block.
    pub(crate) const fn bitmap_entry_of(self, block: u64) -> u64 {
        let chunk = block >> self.ratio_bits();
        let behind = chunk.wrapping_add(1) << self.ratio_bits();
        behind.wrapping_add(chunk)
    }

    /// The payload block of an entry; `None` for one of a sector bitmap.
    pub(crate) const fn block_of_entry(self, entry: u64) -> Option<u64> {
        let stride = self.blocks_per_chunk().wrapping_add(1);
        // Never by 0: there is at least the bitmap's own.
        let (Some(chunk), Some(within)) = (entry.checked_div(stride), entry.checked_rem(stride))
        else {
            return None;
        };
        if within == self.blocks_per_chunk() {
            None
        } else {
            Some((chunk << self.ratio_bits()).wrapping_add(within))
        }
    }

    /// How many entries the table of a disk has (2.5): those behind the last payload block are
    /// left out where there is no parent.
    pub(crate) const fn entries_for(self, size_bytes: u64, has_parent: bool) -> u64 {
        let blocks = self.blocks_for(size_bytes);
        if blocks == 0 {
            return 0;
        }
        let last = blocks.wrapping_sub(1);
        if has_parent {
            self.bitmap_entry_of(last).wrapping_add(1)
        } else {
            self.entry_of(last).wrapping_add(1)
        }
    }

    /// Where the bits of a block's sectors lie in its sector bitmap, in bytes.
    pub(crate) const fn bits_at(self, block: u64) -> u64 {
        let within = block & (self.blocks_per_chunk().wrapping_sub(1));
        within.wrapping_mul(self.bits_bytes())
    }

    /// How many bytes the bits of one block's sectors take.
    pub(crate) const fn bits_bytes(self) -> u64 {
        self.block_bytes() >> self.logical.bits() >> 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(block: u32, sector: u32) -> Geometry {
        Geometry::new(BlockBits::of_bytes(block).unwrap(), SectorSize::of_bytes(sector).unwrap())
    }

    #[test]
    fn sizes_that_cannot_be_are_named() {
        for bytes in [0, 1, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 29] {
            assert_eq!(BlockBits::of_bytes(bytes), Err(CorruptKind::BlockSize(bytes)));
        }
        for bytes in [0, 1, 256, 1024, 8192] {
            assert_eq!(SectorSize::of_bytes(bytes), Err(CorruptKind::SectorSize(bytes)));
        }
    }

    #[test]
    fn entries_of_bitmaps_stand_behind_each_chunk() {
        // The example of the specification: a ratio of 128 with blocks of 32 MiB.
        let g = geometry(32 << 20, 512);
        assert_eq!(g.blocks_per_chunk(), 128);
        assert_eq!([0, 127, 128, 255, 256].map(|block| g.entry_of(block)), [0, 127, 129, 256, 258]);
        assert_eq!([0, 127, 128].map(|block| g.bitmap_entry_of(block)), [128, 128, 257]);
        for block in [0, 127, 128, 300, 1000] {
            assert_eq!(g.block_of_entry(g.entry_of(block)), Some(block));
            assert_eq!(g.block_of_entry(g.bitmap_entry_of(block)), None);
        }
    }

    #[test]
    fn the_last_bitmap_has_an_entry_only_over_a_parent() {
        let g = geometry(1 << 20, 512);
        assert_eq!(g.blocks_per_chunk(), 4096);
        for (size, plain, over_parent) in
            [(0, 0, 0), (1, 1, 4097), (4 << 30, 4096, 4097), ((4 << 30) + 512, 4098, 8194)]
        {
            assert_eq!(g.entries_for(size, false), plain, "{size}");
            assert_eq!(g.entries_for(size, true), over_parent, "{size}");
        }
    }

    #[test]
    fn bits_of_a_chunk_fill_its_bitmap() {
        for (block, sector) in [(1 << 20, 512), (256 << 20, 512), (1 << 20, 4096), (1 << 28, 4096)]
        {
            let g = geometry(block, sector);
            let last = g.blocks_per_chunk() - 1;
            assert_eq!(g.bits_at(last) + g.bits_bytes(), spec::BITMAP_BLOCK_BYTES);
            assert_eq!(g.bits_at(last + 1), 0);
        }
    }
}
