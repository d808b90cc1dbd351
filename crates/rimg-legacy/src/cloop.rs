//! Compressed loop images, version 2: a shell script that would mount the image, and blocks of equal
//! size, each a zlib stream, with a table of where they start.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::compress::Coding;
use crate::error::CorruptKind;
use crate::image::{Chunk, Stored};
use rimg_core::{Error, Limits, Match, ProbeWindow, Result, Storage, num};

pub(crate) const FORMAT: &str = "cloop";

/// How the script starts.
const MAGIC: &[u8] = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 \
                       /dev/cloop $1\n";
const SCRIPT_BYTES: u64 = 128;
const MAX_BLOCK_BYTES: u32 = 64 << 20;

rimg_core::on_disk! {
    /// What follows the script; behind it, the offsets.
    struct Header: BigEndian, 8 bytes {
        block_size: u32 = 0,
        num_blocks: u32 = 4,
    }
}

pub(crate) fn probe(window: &ProbeWindow<'_>) -> Match {
    if window.head.starts_with(MAGIC) { Match::Sure } else { Match::No }
}

/// Where the blocks are.
#[derive(Debug)]
pub(crate) struct Table {
    block_bytes: u64,
    /// One for each block, and the end of the last.
    offsets: Vec<u64>,
    size_bytes: u64,
}

impl Table {
    /// Reads the table. The script is not asked for: other ones than [`MAGIC`]'s are in use.
    pub(crate) fn read(file: &dyn Storage, limits: &Limits) -> Result<Self> {
        let len = file.len_bytes().map_err(Error::io("read file length", 0))?;
        let table_at = SCRIPT_BYTES.saturating_add(num::to_u64(Header::SIZE_BYTES));
        let truncated =
            |structure, at| Err(CorruptKind::Truncated(len).at(FORMAT, structure, "bytes", at));
        if len < table_at {
            return truncated("header", SCRIPT_BYTES);
        }
        let mut bytes = [0; Header::SIZE_BYTES];
        file.read_exact_at(&mut bytes, SCRIPT_BYTES)
            .map_err(Error::io("read header", SCRIPT_BYTES))?;
        let header = Header::parse(&bytes);
        let wrong = |kind: CorruptKind| {
            let at = SCRIPT_BYTES.saturating_add(Header::offset_of("block_size"));
            Err(kind.at(FORMAT, "header", "block_size", at))
        };
        let block_bytes = header.block_size;
        if !(512..=MAX_BLOCK_BYTES).contains(&block_bytes) {
            let most = MAX_BLOCK_BYTES.into();
            return wrong(CorruptKind::OutOfRange(block_bytes.into(), 512, most));
        }
        if !block_bytes.is_multiple_of(512) {
            return wrong(CorruptKind::PartOfSector(block_bytes.into()));
        }
        let blocks = u64::from(header.num_blocks);
        let table_bytes = blocks.saturating_add(1).saturating_mul(8);
        if table_at.saturating_add(table_bytes) > len {
            return truncated("offsets", table_at);
        }
        let mut budget = limits.metadata_budget();
        budget.reserve("offsets", table_bytes)?;
        let mut bytes = budget.buffer("offsets", table_bytes)?;
        file.read_exact_at(&mut bytes, table_at).map_err(Error::io("read offsets", table_at))?;
        let offsets: Vec<u64> =
            bytes.as_chunks().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect();
        check(&offsets, block_bytes, table_at)?;
        let block_bytes = u64::from(block_bytes);
        Ok(Self { block_bytes, offsets, size_bytes: blocks.saturating_mul(block_bytes) })
    }

    pub(crate) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn chunk(&self, guest: u64) -> Result<Chunk> {
        let block = guest.checked_div(self.block_bytes).unwrap_or(0);
        let place = self.offsets.get(num::to_usize(block)?..).and_then(|rest| rest.first_chunk());
        let Some([host, end]) = place else { return Err(Error::Misuse("no such block")) };
        Ok(Chunk {
            guest: block.saturating_mul(self.block_bytes),
            len_bytes: self.block_bytes,
            stored: Stored::Encoded {
                coding: Coding::Zlib,
                host: *host,
                len_bytes: end.saturating_sub(*host),
            },
        })
    }
}

/// Offsets only grow, and by no more than a block can take.
fn check(offsets: &[u64], block_bytes: u32, table_at: u64) -> Result<()> {
    let most = u64::from(block_bytes).saturating_mul(2);
    let mut entry_at = table_at;
    for pair in offsets.windows(2) {
        entry_at = entry_at.saturating_add(8);
        let &[start, end] = pair else { continue };
        let wrong = |kind: CorruptKind| Err(kind.at(FORMAT, "offsets", "offset", entry_at));
        match end.checked_sub(start) {
            None => return wrong(CorruptKind::Backwards(end, start)),
            Some(len) if len > most => return wrong(CorruptKind::TooLong(len, most)),
            Some(_) => {}
        }
    }
    Ok(())
}
