//! The trailer: the last 512 bytes of the file, or few bytes before.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::FORMAT;
use crate::error::CorruptKind;
use rimg_core::{Error, Result, Storage, num};

const MAGIC: &[u8] = b"koly";
const BYTES: usize = 512;
/// How far from the end of the file it may start, in bytes.
const MAX_FROM_END: u64 = 1023;

rimg_core::on_disk! {
    /// The trailer ("koly block").
    struct Numbers: BigEndian, 512 bytes {
        version: u32 = 4,
        header_size: u32 = 8,
        data_fork_offset: u64 = 24,
        rsrc_fork_offset: u64 = 40,
        rsrc_fork_length: u64 = 48,
        xml_offset: u64 = 216,
        xml_length: u64 = 224,
        sector_count: u64 = 492,
    }
}

/// What the trailer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    /// Where it lies itself.
    pub(super) at: u64,
    /// What the offsets of chunks count from.
    pub(super) data_fork_at: u64,
    /// Where and how long the resource fork is, where there is one.
    pub(super) resource_fork: Option<(u64, u64)>,
    /// Where and how long the property list is, where there is one.
    pub(super) plist: Option<(u64, u64)>,
    /// How large the disk is, in sectors; 0 where it does not say.
    pub(super) sectors: u64,
}

/// Where in the last bytes of a file the trailer starts.
pub(super) fn find(tail: &[u8]) -> Option<usize> {
    let last = tail.len().checked_sub(BYTES)?;
    (0..=last).rev().find(|start| tail.get(*start..).is_some_and(|rest| rest.starts_with(MAGIC)))
}

impl Trailer {
    pub(super) fn read(file: &dyn Storage) -> Result<Self> {
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        let tail_at = len.saturating_sub(MAX_FROM_END);
        let mut tail = vec![0; num::to_usize(len.saturating_sub(tail_at))?];
        file.read_exact_at(&mut tail, tail_at).map_err(Error::io("read trailer", tail_at))?;
        let start = find(&tail).ok_or(Error::WrongFormat { format: FORMAT })?;
        let at = tail_at.saturating_add(num::to_u64(start));
        let bytes = tail.get(start..).and_then(<[u8]>::first_chunk);
        Self::parse(bytes.ok_or(Error::WrongFormat { format: FORMAT })?, at)
    }

    fn parse(bytes: &[u8; BYTES], at: u64) -> Result<Self> {
        let numbers = Numbers::parse(bytes);
        if numbers.version != 4 || numbers.header_size != 512 {
            let feature = format!(
                "trailer of version {} with {} bytes",
                numbers.version, numbers.header_size
            );
            return Err(Error::Unsupported { format: FORMAT, feature });
        }
        let place = |field, offset: u64, length: u64| {
            if length == 0 {
                return Ok(None);
            }
            if offset.checked_add(length).is_none_or(|end| end > at) {
                let field_at = at.saturating_add(Numbers::offset_of(field));
                let kind = CorruptKind::Overflow(offset, length);
                return Err(kind.at(FORMAT, "trailer", field, field_at));
            }
            Ok(Some((offset, length)))
        };
        Ok(Self {
            at,
            data_fork_at: numbers.data_fork_offset,
            resource_fork: place(
                "rsrc_fork_offset",
                numbers.rsrc_fork_offset,
                numbers.rsrc_fork_length,
            )?,
            plist: place("xml_offset", numbers.xml_offset, numbers.xml_length)?,
            sectors: numbers.sector_count,
        })
    }
}
