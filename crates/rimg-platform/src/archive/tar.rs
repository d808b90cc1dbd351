//! Headers of tar archives in GNU tar's old format, for one sparse file.
//!
//! GNU tar manual, "Basic Tar Format" (`struct oldgnu_header`, `struct sparse_header`).

use core::ops::Range;
use std::io::{self, Write};

/// Headers and data come in blocks of this size.
pub(super) const BLOCK_BYTES: u64 = 512;
/// An archive is a whole number of these, in bytes.
pub(super) const RECORD_BYTES: u64 = 20 * BLOCK_BYTES;

const BLOCK: usize = 512;
/// Where fields of a header are.
const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const MAGIC: Range<usize> = 257..265;
const SPARSE: usize = 386;
const IS_EXTENDED: usize = 482;
const REAL_SIZE: Range<usize> = 483..495;
/// How many runs the header itself lists, and how many each block behind it.
const RUNS_IN_HEADER: usize = 4;
const RUNS_IN_BLOCK: usize = 21;
const BLOCK_IS_EXTENDED: usize = 504;
/// A run is an offset and a length, each a number of 12 bytes.
const NUMBER_BYTES: usize = 12;

/// The magic of this format, version and all.
pub(super) const OLD_GNU: &[u8; 8] = b"ustar  \0";
/// The kind of a file with holes.
pub(super) const SPARSE_FILE: u8 = b'S';
/// The kind of a file without.
pub(super) const REGULAR_FILE: u8 = b'0';

/// A file with holes.
pub(super) struct SparseHeader<'a> {
    pub(super) name: &'a str,
    /// Seconds since 1970.
    pub(super) mtime: u64,
    /// How much data the archive has of it.
    pub(super) stored_bytes: u64,
    pub(super) size_bytes: u64,
}

impl SparseHeader<'_> {
    /// Begins the list of runs, which comes with the header.
    pub(super) fn list<W: Write>(&self, out: W) -> io::Result<RunList<W>> {
        let mut block = [0; BLOCK];
        put(&mut block, NAME, self.name.as_bytes());
        for (field, number) in [(MODE, 0o644), (UID, 0), (GID, 0)] {
            put(&mut block, field, format!("{number:07o}").as_bytes());
        }
        put(&mut block, SIZE, &number(self.stored_bytes));
        put(&mut block, MTIME, &number(self.mtime));
        put(&mut block, TYPE..TYPE + 1, &[SPARSE_FILE]);
        put(&mut block, MAGIC, OLD_GNU);
        put(&mut block, REAL_SIZE, &number(self.size_bytes));
        Ok(RunList { out, block, in_header: true, runs: 0, size_bytes: self.size_bytes })
    }
}

/// The list of runs of data, which is written as it grows.
pub(super) struct RunList<W> {
    out: W,
    block: [u8; BLOCK],
    in_header: bool,
    /// How many are in the block.
    runs: usize,
    size_bytes: u64,
}

impl<W: Write> RunList<W> {
    /// Adds a run behind the others.
    pub(super) fn push(&mut self, run: Range<u64>) -> io::Result<()> {
        let (start, most) =
            if self.in_header { (SPARSE, RUNS_IN_HEADER) } else { (0, RUNS_IN_BLOCK) };
        if self.runs == most {
            self.end_block(true)?;
            self.in_header = false;
            return self.push(run);
        }
        let at = start + self.runs * 2 * NUMBER_BYTES;
        let len = run.end.saturating_sub(run.start);
        put(&mut self.block, at..at + NUMBER_BYTES, &number(run.start));
        put(&mut self.block, at + NUMBER_BYTES..at + 2 * NUMBER_BYTES, &number(len));
        self.runs += 1;
        Ok(())
    }

    /// Ends the list with an empty run at the file's end: so a hole there is seen.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.push(self.size_bytes..self.size_bytes)?;
        self.end_block(false)
    }

    fn end_block(&mut self, goes_on: bool) -> io::Result<()> {
        let flag = if self.in_header { IS_EXTENDED } else { BLOCK_IS_EXTENDED };
        put(&mut self.block, flag..flag + 1, &[u8::from(goes_on)]);
        if self.in_header {
            let sum = checksum(&self.block);
            put(&mut self.block, CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        }
        self.out.write_all(&self.block)?;
        self.block = [0; BLOCK];
        self.runs = 0;
        Ok(())
    }
}

/// What a header says of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) kind: u8,
    pub(super) is_old_gnu: bool,
    /// How much data follows, in bytes.
    pub(super) stored_bytes: u64,
    /// The size of the file, holes and all.
    pub(super) size_bytes: u64,
    /// Whether blocks with more runs follow.
    pub(super) is_extended: bool,
}

impl Header {
    /// What a block says; `None` when it is no header.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Option<Self> {
        let field = |range: Range<usize>| block.get(range).unwrap_or_default();
        if parse_number(field(CHECKSUM)) != Some(u64::from(checksum(block))) {
            return None;
        }
        let name = field(NAME).split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        let kind = block.get(TYPE).copied()?;
        let stored_bytes = parse_number(field(SIZE))?;
        let is_sparse = kind == SPARSE_FILE;
        let size_bytes = if is_sparse { parse_number(field(REAL_SIZE))? } else { stored_bytes };
        let is_extended = is_sparse && block.get(IS_EXTENDED) == Some(&1);
        let is_old_gnu = field(MAGIC) == OLD_GNU;
        Some(Self { name, kind, is_old_gnu, stored_bytes, size_bytes, is_extended })
    }
}

/// Whether another block of runs follows this one.
pub(super) fn is_extended(block: &[u8; BLOCK]) -> bool {
    block.get(BLOCK_IS_EXTENDED) == Some(&1)
}

/// The sum of a header's bytes, the field for the sum itself taken for spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let all: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let field: u32 = block.get(CHECKSUM).unwrap_or_default().iter().map(|b| u32::from(*b)).sum();
    all - field + 8 * u32::from(b' ')
}

/// A number of 12 bytes: in octal, or in binary where that is too short.
fn number(n: u64) -> [u8; NUMBER_BYTES] {
    const IS_BINARY: u8 = 0x80;
    let mut field = [0; NUMBER_BYTES];
    if n < 1 << 33 {
        field[..NUMBER_BYTES - 1].copy_from_slice(format!("{n:011o}").as_bytes());
    } else {
        field[NUMBER_BYTES - 8..].copy_from_slice(&n.to_be_bytes());
        field[0] = IS_BINARY;
    }
    field
}

fn parse_number(field: &[u8]) -> Option<u64> {
    match field {
        [0x80, zeroes @ .., a, b, c, d, e, f, g, h] => {
            let fits = zeroes.iter().all(|byte| *byte == 0);
            fits.then(|| u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
        }
        _ => {
            let text = str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
            u64::from_str_radix(text, 8).ok()
        }
    }
}

/// Writes a field, which has room for all of `bytes`.
fn put(block: &mut [u8; BLOCK], field: Range<usize>, bytes: &[u8]) {
    if let Some(room) = block.get_mut(field).and_then(|field| field.get_mut(..bytes.len())) {
        room.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_too_long_for_octal_are_binary() {
        assert_eq!(&number(0o17), b"00000000017\0");
        assert_eq!(&number((1 << 33) - 1), b"77777777777\0");
        assert_eq!(number(1 << 33), [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        for n in [0, 1, (1 << 33) - 1, 1 << 33, u64::MAX] {
            assert_eq!(parse_number(&number(n)), Some(n));
        }
        assert_eq!(parse_number(b"12 \0"), Some(0o12));
        assert_eq!(parse_number(b"9"), None);
    }
}
