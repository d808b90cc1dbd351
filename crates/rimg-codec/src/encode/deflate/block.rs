//! One block of a stream (RFC 1951 section 3.2.3).

use super::bits::BitWriter;
use super::huffman::{Code, MAX_BITS};
use super::matches::Match;
use super::num::{index, low16, narrow, small, wide};
use super::symbols::*;

/// Literals that follow each other, and the match behind them.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    literals: u32,
    length: u16,
    distance: u16,
}

/// The literals and matches of a block, and how often each symbol occurs.
#[derive(Debug)]
pub(super) struct Block {
    sequences: Vec<Sequence>,
    literal_counts: [u32; LITERALS_AND_LENGTHS],
    distance_counts: [u32; DISTANCES],
    literal_code: Code<LITERALS_AND_LENGTHS>,
    distance_code: Code<DISTANCES>,
}

impl Block {
    pub(super) fn new() -> Self {
        Self {
            sequences: Vec::new(),
            literal_counts: [0; LITERALS_AND_LENGTHS],
            distance_counts: [0; DISTANCES],
            literal_code: Code::new(),
            distance_code: Code::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.sequences.clear();
        self.literal_counts.fill(0);
        self.distance_counts.fill(0);
    }

    /// Adds as many literals and a match.
    #[inline(always)]
    pub(super) fn add_match(&mut self, literals: usize, found: Match) {
        let slot = LENGTH_SLOTS[(found.length - MIN_LENGTH) & 255];
        self.literal_counts[FIRST_LENGTH + usize::from(slot)] += 1;
        self.distance_counts[distance_symbol(narrow(found.distance))] += 1;
        self.sequences.push(Sequence {
            literals: narrow(literals),
            length: low16(found.length),
            distance: low16(found.distance),
        });
    }

    /// Counts the literals, which are what of `bytes` no match covers.
    fn count_literals(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        for sequence in &self.sequences {
            let (run, tail) = rest.split_at(index(sequence.literals));
            for &byte in run {
                self.literal_counts[usize::from(byte)] += 1;
            }
            rest = &tail[usize::from(sequence.length)..];
        }
        for &byte in rest {
            self.literal_counts[usize::from(byte)] += 1;
        }
    }

    /// Writes the block, which stands for `bytes`, in the way that is shortest. `None` when even
    /// that does not fit.
    pub(super) fn write(
        &mut self,
        bytes: &[u8],
        last: bool,
        writer: &mut BitWriter<'_>,
    ) -> Option<()> {
        self.count_literals(bytes);
        self.literal_counts[END_OF_BLOCK] = 1;
        self.literal_code.build(&self.literal_counts, MAX_BITS);
        self.distance_code.build(&self.distance_counts, MAX_BITS);
        let header = CodeHeader::new(&self.literal_code, &self.distance_code);

        let extra = self.extra_bits();
        let dynamic_bits = 3
            + header.bits()
            + self.literal_code.cost(&self.literal_counts)
            + self.distance_code.cost(&self.distance_counts)
            + extra;
        let fixed_bits = 3 + self.fixed_bits() + extra;
        let pieces = wide(bytes.len().div_ceil(MAX_STORED));
        let stored_bits = pieces * (3 + 32 + 7) + wide(bytes.len()) * 8;

        if !writer.has_room(dynamic_bits.min(fixed_bits).min(stored_bits)) {
            return None;
        }
        if stored_bits < dynamic_bits.min(fixed_bits) {
            write_stored(bytes, last, writer);
            return Some(());
        }
        writer.add(u64::from(last), 1);
        if fixed_bits <= dynamic_bits {
            writer.add(FIXED, 2);
            self.use_fixed_codes();
        } else {
            writer.add(DYNAMIC, 2);
            header.write(writer);
        }
        writer.flush();
        self.write_symbols(bytes, writer);
        Some(())
    }

    fn extra_bits(&self) -> u64 {
        let lengths = self.literal_counts[FIRST_LENGTH..].iter().enumerate();
        let lengths = lengths.map(|(slot, &n)| u64::from(n) * u64::from(length_extra_bits(slot)));
        let distances = self.distance_counts.iter().enumerate();
        let distances =
            distances.map(|(symbol, &n)| u64::from(n) * u64::from(distance_extra_bits(symbol)));
        lengths.sum::<u64>() + distances.sum::<u64>()
    }

    fn fixed_bits(&self) -> u64 {
        let literals = self.literal_counts.iter().enumerate();
        let literals: u64 =
            literals.map(|(symbol, &n)| u64::from(n) * u64::from(fixed_length(symbol))).sum();
        literals + 5 * self.distance_counts.iter().map(|&n| u64::from(n)).sum::<u64>()
    }

    fn use_fixed_codes(&mut self) {
        // The code has two more symbols, which never occur, at the end of the eight-bit ones;
        // all codes of nine bits come after them, so they have to be counted.
        let mut literals = Code::<288>::new();
        for (symbol, length) in literals.lengths.iter_mut().enumerate() {
            *length = fixed_length(symbol);
        }
        literals.assign();
        self.literal_code.lengths.copy_from_slice(&literals.lengths[..LITERALS_AND_LENGTHS]);
        self.literal_code.bits.copy_from_slice(&literals.bits[..LITERALS_AND_LENGTHS]);
        self.distance_code.lengths = [5; DISTANCES];
        self.distance_code.assign();
    }

    fn write_symbols(&self, bytes: &[u8], writer: &mut BitWriter<'_>) {
        let literals: [u32; 256] = std::array::from_fn(|byte| {
            u32::from(self.literal_code.bits[byte])
                | u32::from(self.literal_code.lengths[byte]) << COUNT_SHIFT
        });
        let lengths: [u32; 256] = std::array::from_fn(|length| {
            let slot = usize::from(LENGTH_SLOTS[length]);
            let symbol = FIRST_LENGTH + slot;
            let code_len = u32::from(self.literal_code.lengths[symbol]);
            let extra = narrow(length - usize::from(LENGTH_BASES[slot]));
            (u32::from(self.literal_code.bits[symbol]) | extra << code_len)
                | (code_len + length_extra_bits(slot)) << COUNT_SHIFT
        });
        let mut rest = bytes;
        for sequence in &self.sequences {
            let (run, tail) = rest.split_at(index(sequence.literals));
            write_literals(run, &literals, writer);
            rest = &tail[usize::from(sequence.length)..];

            let length = lengths[usize::from(sequence.length).wrapping_sub(MIN_LENGTH) & 255];
            writer.add(u64::from(length & BITS_MASK), length >> COUNT_SHIFT);
            let distance = u32::from(sequence.distance);
            let symbol = distance_symbol(distance);
            let code_len = u32::from(self.distance_code.lengths[symbol]);
            let extra_len = distance_extra_bits(symbol);
            let extra = u64::from(distance - 1) & ((1 << extra_len) - 1);
            let bits = u64::from(self.distance_code.bits[symbol]) | extra << code_len;
            writer.add(bits, code_len + extra_len);
            writer.flush();
        }
        write_literals(rest, &literals, writer);
        let end = END_OF_BLOCK;
        writer
            .add(u64::from(self.literal_code.bits[end]), u32::from(self.literal_code.lengths[end]));
        writer.flush();
    }
}

/// Block types, as written.
const STORED: u64 = 0b00;
const FIXED: u64 = 0b01;
const DYNAMIC: u64 = 0b10;

/// Longest stored block.
const MAX_STORED: usize = 0xffff;

/// Table entries hold bits to write and, from here, how many they are.
const COUNT_SHIFT: u32 = 24;
const BITS_MASK: u32 = (1 << COUNT_SHIFT) - 1;

#[inline(always)]
fn write_literals(run: &[u8], literals: &[u32; 256], writer: &mut BitWriter<'_>) {
    let (threes, rest) = run.as_chunks::<3>();
    for three in threes {
        for &byte in three {
            let literal = literals[usize::from(byte)];
            writer.add(u64::from(literal & BITS_MASK), literal >> COUNT_SHIFT);
        }
        writer.flush();
    }
    for &byte in rest {
        let literal = literals[usize::from(byte)];
        writer.add(u64::from(literal & BITS_MASK), literal >> COUNT_SHIFT);
    }
    writer.flush();
}

fn write_stored(bytes: &[u8], last: bool, writer: &mut BitWriter<'_>) {
    let mut pieces = bytes.chunks(MAX_STORED).peekable();
    while let Some(piece) = pieces.next() {
        let last = last && pieces.peek().is_none();
        writer.add(u64::from(last), 1);
        writer.add(STORED, 2);
        let padding = writer.padding(0);
        writer.add(0, padding);
        writer.flush();
        let len = low16(piece.len());
        writer.add(u64::from(len), 16);
        writer.add(u64::from(!len), 16);
        writer.add_bytes(piece);
    }
}

/// Length of a literal's or length's fixed code (RFC 1951 section 3.2.6).
fn fixed_length(symbol: usize) -> u8 {
    match symbol {
        0..=143 => 8,
        144..=255 => 9,
        256..=279 => 7,
        _ => 8,
    }
}

/// The order in which the lengths of the code length code are written.
const CODE_LENGTH_ORDER: [usize; 19] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The description of a dynamic block's codes (RFC 1951 section 3.2.7).
struct CodeHeader {
    /// Symbols of the code length code with the value of their extra bits.
    items: [(u8, u8); LITERALS_AND_LENGTHS + DISTANCES],
    items_len: usize,
    counts: [u32; 19],
    code: Code<19>,
    literals: usize,
    distances: usize,
    code_lengths: usize,
}

impl CodeHeader {
    fn new(literals: &Code<LITERALS_AND_LENGTHS>, distances: &Code<DISTANCES>) -> Self {
        let used = |lengths: &[u8], least: usize| {
            lengths.iter().rposition(|&length| length != 0).map_or(least, |at| least.max(at + 1))
        };
        let mut header = Self {
            items: [(0, 0); LITERALS_AND_LENGTHS + DISTANCES],
            items_len: 0,
            counts: [0; 19],
            code: Code::new(),
            literals: used(&literals.lengths, FIRST_LENGTH),
            distances: used(&distances.lengths, 1),
            code_lengths: 0,
        };
        let mut lengths = [0_u8; LITERALS_AND_LENGTHS + DISTANCES];
        lengths[..header.literals].copy_from_slice(&literals.lengths[..header.literals]);
        let end = header.literals + header.distances;
        lengths[header.literals..end].copy_from_slice(&distances.lengths[..header.distances]);
        header.add_runs(&lengths[..end]);
        header.code.build(&header.counts, 7);
        let unused = CODE_LENGTH_ORDER.iter().rev();
        let unused = unused.take_while(|&&symbol| header.code.lengths[symbol] == 0).count();
        header.code_lengths = (19 - unused).max(4);
        header
    }

    /// Describes code lengths, with symbols for runs of them.
    fn add_runs(&mut self, lengths: &[u8]) {
        for run in lengths.chunk_by(|a, b| a == b) {
            let value = run[0];
            let mut left = run.len();
            if value == 0 {
                while left >= 11 {
                    let times = left.min(138);
                    self.add(18, small(times - 11));
                    left -= times;
                }
                if left >= 3 {
                    self.add(17, small(left - 3));
                    left = 0;
                }
            } else if left >= 4 {
                self.add(value, 0);
                left -= 1;
                while left >= 3 {
                    let times = left.min(6);
                    self.add(16, small(times - 3));
                    left -= times;
                }
            }
            for _ in 0..left {
                self.add(value, 0);
            }
        }
    }

    fn add(&mut self, symbol: u8, extra: u8) {
        self.items[self.items_len] = (symbol, extra);
        self.items_len += 1;
        self.counts[usize::from(symbol)] += 1;
    }

    fn bits(&self) -> u64 {
        let extra = self.counts[16] * 2 + self.counts[17] * 3 + self.counts[18] * 7;
        5 + 5 + 4 + 3 * wide(self.code_lengths) + self.code.cost(&self.counts) + u64::from(extra)
    }

    fn write(&self, writer: &mut BitWriter<'_>) {
        writer.add(wide(self.literals - FIRST_LENGTH), 5);
        writer.add(wide(self.distances - 1), 5);
        writer.add(wide(self.code_lengths - 4), 4);
        for &symbol in &CODE_LENGTH_ORDER[..self.code_lengths] {
            writer.flush();
            writer.add(u64::from(self.code.lengths[symbol]), 3);
        }
        for &(symbol, extra) in &self.items[..self.items_len] {
            writer.flush();
            let extra_len = match symbol {
                16 => 2,
                17 => 3,
                18 => 7,
                _ => 0,
            };
            let symbol = usize::from(symbol);
            let code_len = u32::from(self.code.lengths[symbol]);
            writer.add(u64::from(self.code.bits[symbol]), code_len);
            writer.add(u64::from(extra), extra_len);
        }
        writer.flush();
    }
}
