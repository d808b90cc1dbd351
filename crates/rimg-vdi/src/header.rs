//! The header: bytes to a checked [`Header`], and the bytes of a new one.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::error::{CorruptKind, FORMAT};
use crate::spec::{self, image_type};
use core::ops::Range;
use rimg_core::{Error, Result, Uuid, num, on_disk};

on_disk! {
    /// What every version starts with, behind the text.
    struct RawStart: LittleEndian, 72 bytes {
        signature: u32 = 64,
        version: u32 = 68,
    }
}

on_disk! {
    /// Version 1. Offsets count from the start of the file. UUIDs come in halves.
    pub(crate) struct RawHeader: LittleEndian, 456 bytes {
        signature: u32 = 64,
        version: u32 = 68,
        header_size: u32 = 72,
        image_type: u32 = 76,
        image_flags: u32 = 80,
        offset_bmap: u32 = 340,
        offset_data: u32 = 344,
        cylinders: u32 = 348,
        heads: u32 = 352,
        sectors: u32 = 356,
        sector_size: u32 = 360,
        unused: u32 = 364,
        disk_size: u64 = 368,
        block_size: u32 = 376,
        block_extra: u32 = 380,
        blocks_in_image: u32 = 384,
        blocks_allocated: u32 = 388,
        uuid_image_1: u64 = 392,
        uuid_image_2: u64 = 400,
        uuid_last_snap_1: u64 = 408,
        uuid_last_snap_2: u64 = 416,
        uuid_link_1: u64 = 424,
        uuid_link_2: u64 = 432,
        uuid_parent_1: u64 = 440,
        uuid_parent_2: u64 = 448,
    }
}

on_disk! {
    /// Before version 1 neither the header nor the tables could vary in size and place.
    struct RawOldHeader: LittleEndian, 420 bytes {
        image_type: u32 = 72,
        sector_size: u32 = 348,
        disk_size: u64 = 352,
        block_size: u32 = 360,
        blocks_in_image: u32 = 364,
        blocks_allocated: u32 = 368,
        uuid_image_1: u64 = 372,
        uuid_image_2: u64 = 380,
        uuid_last_snap_1: u64 = 388,
        uuid_last_snap_2: u64 = 396,
        uuid_link_1: u64 = 404,
        uuid_link_2: u64 = 412,
    }
}

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageType {
    /// Blocks take space when they are written.
    Dynamic,
    /// Every block has its space from the start.
    Static,
    /// Changes to a parent that may be taken back.
    Undo,
    /// Changes to a parent.
    Differencing,
}

impl ImageType {
    /// Whether there is an image below.
    pub(crate) const fn has_parent(self) -> bool {
        matches!(self, Self::Undo | Self::Differencing)
    }

    fn parse(raw: u32) -> Result<Self, CorruptKind> {
        Ok(match raw {
            image_type::DYNAMIC => Self::Dynamic,
            image_type::STATIC => Self::Static,
            image_type::UNDO => Self::Undo,
            image_type::DIFFERENCING => Self::Differencing,
            other => return Err(CorruptKind::ImageType(other)),
        })
    }

    pub(crate) const fn encode(self) -> u32 {
        match self {
            Self::Dynamic => image_type::DYNAMIC,
            Self::Static => image_type::STATIC,
            Self::Undo => image_type::UNDO,
            Self::Differencing => image_type::DIFFERENCING,
        }
    }
}

/// A header whose every field is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// From before version 1.
    pub(crate) is_old: bool,
    pub(crate) image_type: ImageType,
    /// The size of the disk as the header has it, in bytes.
    pub(crate) disk_bytes: u64,
    /// The size of a block, in bytes: a power of two, at least a sector.
    pub(crate) block_bytes: u32,
    /// Bytes before the data of each block.
    pub(crate) extra_bytes: u32,
    /// How many entries the block map has; enough for the disk.
    pub(crate) blocks: u32,
    /// How many blocks of the file are in use, as the header has it.
    pub(crate) allocated: u32,
    /// Where the block map lies: behind the header, before the data.
    pub(crate) map_offset: u64,
    /// Where block 0 of the file lies.
    pub(crate) data_offset: u64,
    pub(crate) uuid: Uuid,
    /// Changes with the contents.
    pub(crate) modification_uuid: Uuid,
    /// That of the image below, [`Uuid::NIL`] if there is none.
    pub(crate) parent_uuid: Uuid,
    /// The modification UUID that the image below had; [`Uuid::NIL`] where it is not known.
    pub(crate) parent_modification_uuid: Uuid,
}

/// Where fields lie that are written by themselves.
pub(crate) mod offset {
    use super::RawHeader;

    pub(crate) const BLOCKS_ALLOCATED: u64 = RawHeader::offset_of("blocks_allocated");
    /// The same in headers before version 1.
    pub(crate) const OLD_BLOCKS_ALLOCATED: u64 = super::RawOldHeader::offset_of("blocks_allocated");
    pub(crate) const MAP: u64 = RawHeader::offset_of("offset_bmap");
    pub(crate) const PARENT_UUID: u64 = RawHeader::offset_of("uuid_link_1");
}

impl Header {
    /// How much of the start of a file [`Header::parse`] wants to see.
    pub(crate) const MAX_BYTES: usize = RawHeader::SIZE_BYTES;

    /// Whether a file that starts so is an image at all.
    pub(crate) fn is_image(start: &[u8]) -> bool {
        start.first_chunk().is_some_and(|start| RawStart::parse(start).signature == spec::SIGNATURE)
    }

    /// Reads a header from the first bytes of a file: [`MAX_BYTES`](Self::MAX_BYTES), or all of a
    /// shorter one.
    pub(crate) fn parse(start: &[u8]) -> Result<Self> {
        if !Self::is_image(start) {
            return Err(Error::WrongFormat { format: FORMAT });
        }
        let version = start.first_chunk().map_or(0, |start| RawStart::parse(start).version);
        let truncated = || CorruptKind::HeaderTruncated.at("header", "length", 0);
        let header = match version >> 16 {
            0 => Self::parse_old(start.first_chunk().ok_or_else(truncated)?),
            1 => Self::parse_current(start.first_chunk().ok_or_else(truncated)?),
            major => {
                let feature = format!("version {major}.{}", version & 0xffff);
                return Err(Error::Unsupported { format: FORMAT, feature });
            }
        }?;
        header.validate()?;
        Ok(header)
    }

    fn parse_current(start: &[u8; RawHeader::SIZE_BYTES]) -> Result<Self> {
        let raw = RawHeader::parse(start);
        if raw.header_size < spec::HEADER_BYTES {
            let kind = CorruptKind::HeaderLength(raw.header_size);
            return Err(kind.at("header", "header_size", RawHeader::offset_of("header_size")));
        }
        if raw.sector_size != 512 {
            let kind = CorruptKind::SectorSize(raw.sector_size);
            return Err(kind.at("header", "sector_size", RawHeader::offset_of("sector_size")));
        }
        Ok(Self {
            is_old: false,
            image_type: ImageType::parse(raw.image_type).map_err(|kind| {
                kind.at("header", "image_type", RawHeader::offset_of("image_type"))
            })?,
            disk_bytes: raw.disk_size,
            block_bytes: raw.block_size,
            extra_bytes: raw.block_extra,
            blocks: raw.blocks_in_image,
            allocated: raw.blocks_allocated,
            map_offset: raw.offset_bmap.into(),
            data_offset: raw.offset_data.into(),
            uuid: uuid(raw.uuid_image_1, raw.uuid_image_2),
            modification_uuid: uuid(raw.uuid_last_snap_1, raw.uuid_last_snap_2),
            parent_uuid: uuid(raw.uuid_link_1, raw.uuid_link_2),
            parent_modification_uuid: uuid(raw.uuid_parent_1, raw.uuid_parent_2),
        })
    }

    fn parse_old(start: &[u8; RawOldHeader::SIZE_BYTES]) -> Result<Self> {
        let raw = RawOldHeader::parse(start);
        let map_offset = num::to_u64(RawOldHeader::SIZE_BYTES);
        let map_bytes = u64::from(raw.blocks_in_image).saturating_mul(spec::ENTRY_BYTES);
        Ok(Self {
            is_old: true,
            image_type: ImageType::parse(raw.image_type).map_err(|kind| {
                kind.at("header", "image_type", RawOldHeader::offset_of("image_type"))
            })?,
            disk_bytes: raw.disk_size,
            block_bytes: raw.block_size,
            extra_bytes: 0,
            blocks: raw.blocks_in_image,
            allocated: raw.blocks_allocated,
            map_offset,
            data_offset: map_offset.saturating_add(map_bytes),
            uuid: uuid(raw.uuid_image_1, raw.uuid_image_2),
            modification_uuid: uuid(raw.uuid_last_snap_1, raw.uuid_last_snap_2),
            parent_uuid: uuid(raw.uuid_link_1, raw.uuid_link_2),
            parent_modification_uuid: Uuid::NIL,
        })
    }

    fn validate(&self) -> Result<()> {
        let field = |name: &'static str| {
            let offset = if self.is_old { 0 } else { RawHeader::offset_of(name) };
            move |kind: CorruptKind| kind.at("header", name, offset)
        };
        let block = self.block_bytes;
        if !block.is_power_of_two() || !(512..=spec::MAX_BLOCK_BYTES).contains(&block) {
            return Err(field("block_size")(CorruptKind::BlockSize(block)));
        }
        if self.extra_bytes > block || !self.extra_bytes.is_multiple_of(512) {
            return Err(field("block_extra")(CorruptKind::BlockExtra(self.extra_bytes)));
        }
        let room = u64::from(self.blocks).saturating_mul(block.into());
        if self.disk_bytes > room {
            let kind = CorruptKind::DiskSize { disk: self.disk_bytes, room };
            return Err(field("disk_size")(kind));
        }
        Ok(())
    }

    /// Refuses a block map that lies where something else is.
    pub(crate) fn check_place(&self) -> Result<()> {
        let map_end = self.map_offset.saturating_add(self.map_bytes());
        if !self.is_behind_header() || map_end > self.data_offset {
            return Err(self.wrong_place());
        }
        Ok(())
    }

    /// As [`check_place`](Self::check_place), but for a map that merely overlaps the data: what QEMU
    /// refuses when it reads the header.
    pub(crate) fn check_bounds(&self) -> Result<()> {
        let sectors = [self.map_offset, self.data_offset];
        let is_aligned = sectors.iter().all(|at| at.is_multiple_of(spec::SECTOR_BYTES));
        if !self.is_behind_header() || !is_aligned || u64::from(self.blocks) > spec::MAX_BLOCKS {
            self.check_place()?;
        }
        Ok(())
    }

    fn is_behind_header(&self) -> bool {
        let end = if self.is_old { RawOldHeader::SIZE_BYTES } else { Self::MAX_BYTES };
        self.map_offset >= num::to_u64(end)
    }

    fn wrong_place(&self) -> Error {
        let (at, len) = (self.map_offset, self.map_bytes());
        let offset = if self.is_old { 0 } else { offset::MAP };
        let kind = CorruptKind::MapPlace { at, len, data: self.data_offset };
        kind.at("header", "offset_bmap", offset)
    }

    /// The size of the disk in bytes: whole sectors, even where the header has a piece of one.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.disk_bytes.next_multiple_of(spec::SECTOR_BYTES)
    }

    /// The length of the block map in bytes.
    pub(crate) fn map_bytes(&self) -> u64 {
        u64::from(self.blocks).saturating_mul(spec::ENTRY_BYTES)
    }

    /// From one block of the file to the next, in bytes.
    pub(crate) fn stride(&self) -> u64 {
        u64::from(self.block_bytes).saturating_add(self.extra_bytes.into())
    }

    /// Where the data of block `index` of the file begins.
    pub(crate) fn block_at(&self, index: u32) -> u64 {
        let before = u64::from(index).saturating_mul(self.stride());
        self.data_offset.saturating_add(before).saturating_add(self.extra_bytes.into())
    }

    /// Where the number of blocks in use lies.
    pub(crate) const fn allocated_at(&self) -> u64 {
        if self.is_old { offset::OLD_BLOCKS_ALLOCATED } else { offset::BLOCKS_ALLOCATED }
    }

    /// The bytes of a new image's header, up to its block map.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let [uuid_image_1, uuid_image_2] = halves(self.uuid);
        let [uuid_last_snap_1, uuid_last_snap_2] = halves(self.modification_uuid);
        let [uuid_link_1, uuid_link_2] = halves(self.parent_uuid);
        let [uuid_parent_1, uuid_parent_2] = halves(self.parent_modification_uuid);
        let raw = RawHeader {
            signature: spec::SIGNATURE,
            version: spec::VERSION,
            header_size: spec::HEADER_BYTES,
            image_type: self.image_type.encode(),
            image_flags: 0,
            // Both were checked against the number of blocks, or come from 32 bits.
            offset_bmap: u32::try_from(self.map_offset).unwrap_or(u32::MAX),
            offset_data: u32::try_from(self.data_offset).unwrap_or(u32::MAX),
            cylinders: 0,
            heads: 0,
            sectors: 0,
            sector_size: 512,
            unused: 0,
            disk_size: self.disk_bytes,
            block_size: self.block_bytes,
            block_extra: self.extra_bytes,
            blocks_in_image: self.blocks,
            blocks_allocated: self.allocated,
            uuid_image_1,
            uuid_image_2,
            uuid_last_snap_1,
            uuid_last_snap_2,
            uuid_link_1,
            uuid_link_2,
            uuid_parent_1,
            uuid_parent_2,
        };
        let mut bytes = raw.encode().to_vec();
        for (byte, letter) in bytes.iter_mut().take(spec::TEXT_BYTES).zip(spec::TEXT) {
            *byte = *letter;
        }
        bytes
    }

    /// The bytes of all that a change of size changes, for the offset [`offset::MAP`]: they lie
    /// within one sector.
    pub(crate) fn encode_layout(&self) -> Vec<u8> {
        self.encode().get(LAYOUT).unwrap_or_default().to_vec()
    }
}

/// From the place of the block map to the number of blocks in use.
const LAYOUT: Range<usize> = 340..392;
const _: () = assert!(
    num::to_u64(LAYOUT.start) == offset::MAP
        && num::to_u64(LAYOUT.end) == offset::BLOCKS_ALLOCATED + 4
);

/// A UUID from its halves as VirtualBox stores them.
fn uuid(first: u64, second: u64) -> Uuid {
    let both = u128::from(first) | u128::from(second).wrapping_shl(64);
    Uuid::from_mixed_endian(both.to_le_bytes())
}

fn halves(uuid: Uuid) -> [u64; 2] {
    let bytes = uuid.to_mixed_endian();
    let (words, _) = bytes.as_chunks::<8>();
    let half = |index: usize| words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
    [half(0), half(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = Uuid(*b"0123456789abcdef");

    fn header() -> Header {
        Header {
            is_old: false,
            image_type: ImageType::Dynamic,
            disk_bytes: 10 << 20,
            block_bytes: 1 << 20,
            extra_bytes: 0,
            blocks: 10,
            allocated: 3,
            map_offset: 512,
            data_offset: 1024,
            uuid: UUID,
            modification_uuid: Uuid::NIL,
            parent_uuid: Uuid::NIL,
            parent_modification_uuid: Uuid::NIL,
        }
    }

    #[test]
    fn a_header_goes_both_ways() {
        let bytes = header().encode();
        assert_eq!(Header::parse(&bytes).unwrap(), header());
        assert!(bytes.starts_with(b"<<< QEMU VM Virtual Disk Image >>>\n\0"));
        // Groups of a UUID are stored with their lowest byte first.
        assert_eq!(&bytes[0x188..0x198], b"3210547689abcdef");
        assert_eq!(header().encode_layout(), bytes[0x154..0x188]);
    }

    #[test]
    fn headers_before_version_1_have_their_tables_behind_them() {
        let mut bytes = vec![0; 420];
        bytes[64..68].copy_from_slice(&spec::SIGNATURE.to_le_bytes());
        bytes[68..72].copy_from_slice(&2_u32.to_le_bytes());
        bytes[72] = 1;
        bytes[352..360].copy_from_slice(&0x00a0_0001_u64.to_le_bytes());
        bytes[360..364].copy_from_slice(&0x0010_0000_u32.to_le_bytes());
        bytes[364] = 11;
        bytes[368] = 2;
        let parsed = Header::parse(&bytes).unwrap();
        assert!(parsed.is_old);
        assert_eq!((parsed.map_offset, parsed.data_offset), (420, 464));
        assert_eq!((parsed.blocks, parsed.allocated), (11, 2));
        assert_eq!(parsed.size_bytes(), 0x00a0_0200);
        assert_eq!(parsed.block_at(1), 464 + (1 << 20));
    }
}
