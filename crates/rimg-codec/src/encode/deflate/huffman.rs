//! Prefix codes of limited length (RFC 1951 section 3.2.2).

use super::num::{index, low16, narrow, small};

/// Longest code of a literal, length or distance.
pub(super) const MAX_BITS: usize = 15;

/// A canonical code: of each symbol its bits, in the order in which they are written, and how
/// many.
#[derive(Debug, Clone)]
pub(super) struct Code<const SYMBOLS: usize> {
    pub(super) bits: [u16; SYMBOLS],
    pub(super) lengths: [u8; SYMBOLS],
}

impl<const SYMBOLS: usize> Code<SYMBOLS> {
    pub(super) const fn new() -> Self {
        Self { bits: [0; SYMBOLS], lengths: [0; SYMBOLS] }
    }

    /// The shortest code for symbols that occur `counts` times, of at most `max_bits` each.
    ///
    /// It is complete, as strict readers demand: if fewer than two symbols occur, others are
    /// given the rest of it.
    pub(super) fn build(&mut self, counts: &[u32; SYMBOLS], max_bits: usize) {
        self.lengths = [0; SYMBOLS];
        let mut used = [0_u32; SYMBOLS];
        let mut used_len = 0;
        for (symbol, &count) in counts.iter().enumerate() {
            if count != 0 {
                // Sorts by count, then by symbol. Clusters are far too short for 23 bits.
                used[used_len] = count << SYMBOL_BITS | narrow(symbol);
                used_len += 1;
            }
        }
        let used = &mut used[..used_len];
        if used.len() < 2 {
            let only = index(used.first().map_or(0, |&key| key & SYMBOL_MASK));
            self.lengths[only] = 1;
            self.lengths[usize::from(only == 0)] = 1;
        } else {
            used.sort_unstable();
            let mut per_length = code_lengths(used);
            limit(&mut per_length, max_bits);
            let mut rarest_first = used.iter();
            for length in (1..=max_bits).rev() {
                for &key in rarest_first.by_ref().take(index(per_length[length])) {
                    self.lengths[index(key & SYMBOL_MASK)] = small(length);
                }
            }
        }
        self.assign();
    }

    /// Gives each symbol its bits by its length.
    pub(super) fn assign(&mut self) {
        let mut per_length = [0_u16; MAX_BITS + 1];
        for &length in &self.lengths {
            per_length[usize::from(length)] += 1;
        }
        per_length[0] = 0;
        let mut next = [0_u16; MAX_BITS + 1];
        for length in 1..=MAX_BITS {
            next[length] = (next[length - 1] + per_length[length - 1]) << 1;
        }
        for (bits, &length) in self.bits.iter_mut().zip(&self.lengths) {
            if length != 0 {
                let next = &mut next[usize::from(length)];
                *bits = next.reverse_bits() >> (16 - length);
                *next = next.wrapping_add(1);
            }
        }
    }

    /// Bits that symbols of these counts take, extra bits aside.
    pub(super) fn cost(&self, counts: &[u32; SYMBOLS]) -> u64 {
        let bits = |(&count, &length): (&u32, &u8)| u64::from(count) * u64::from(length);
        counts.iter().zip(&self.lengths).map(bits).sum()
    }
}

/// Lowest bits of a key that are the symbol; the others are its count.
const SYMBOL_BITS: u32 = 9;
const SYMBOL_MASK: u32 = (1 << SYMBOL_BITS) - 1;

/// More than a code of clusters can grow to without a limit.
const MAX_DEPTH: usize = 40;

/// How many codes there are of each length, without a limit, given two or more keys in ascending
/// order, which stay as they are.
fn code_lengths(keys: &[u32]) -> [u32; MAX_DEPTH] {
    // The two lightest nodes are joined until one is left. Leaves are in order, and so are the
    // nodes made of them: the lightest is at the head of one of two queues.
    let leaves = keys.len();
    let mut weights = [0_u32; 288];
    let mut parents = [0_u16; 288];
    let mut leaf_parents = [0_u16; 288];
    let (mut leaf, mut inner) = (0, 0);
    for made in 0..leaves - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            let leaf_is_lighter =
                leaf < leaves && (inner == made || keys[leaf] >> SYMBOL_BITS <= weights[inner]);
            if leaf_is_lighter {
                weight += keys[leaf] >> SYMBOL_BITS;
                leaf_parents[leaf] = low16(made);
                leaf += 1;
            } else {
                weight += weights[inner];
                parents[inner] = low16(made);
                inner += 1;
            }
        }
        weights[made] = weight;
    }
    let mut depths = [0_u8; 288];
    let root = leaves - 2;
    for node in (0..root).rev() {
        depths[node] = depths[usize::from(parents[node])] + 1;
    }
    let mut per_length = [0; MAX_DEPTH];
    for &parent in &leaf_parents[..leaves] {
        per_length[usize::from(depths[usize::from(parent)]) + 1] += 1;
    }
    per_length
}

/// Shortens codes longer than `max_bits`, at the cost of lengthening shorter ones.
fn limit(per_length: &mut [u32; MAX_DEPTH], max_bits: usize) {
    let too_long: u32 = per_length[max_bits + 1..].iter().sum();
    if too_long == 0 {
        return;
    }
    per_length[max_bits + 1..].fill(0);
    per_length[max_bits] += too_long;
    // In units of the longest code, a complete code takes up exactly `whole`.
    let whole = 1_u32 << max_bits;
    let mut taken: u32 =
        (1..=max_bits).map(|length| per_length[length] << (max_bits - length)).sum();
    while taken > whole {
        // One code of the longest becomes the twin of a shorter one, which grows by a bit.
        let shorter = (1..max_bits).rev().find(|&length| per_length[length] != 0);
        let Some(shorter) = shorter else { break };
        per_length[max_bits] -= 1;
        per_length[shorter] -= 1;
        per_length[shorter + 1] += 2;
        taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_complete_and_within_the_limit() {
        let mut fibonacci = [0; 30];
        (fibonacci[0], fibonacci[1]) = (1, 1);
        for n in 2..fibonacci.len() {
            fibonacci[n] = fibonacci[n - 1] + fibonacci[n - 2];
        }
        let mut two = [0; 30];
        (two[4], two[29]) = (1, 1000);
        let mut one = [0; 30];
        one[29] = 5;
        for counts in [fibonacci, [1; 30], [0; 30], two, one] {
            for max_bits in [5, 7, 15] {
                let mut code = Code::new();
                code.build(&counts, max_bits);
                let taken: u32 =
                    code.lengths.iter().filter(|&&l| l != 0).map(|&l| 1 << (15 - l)).sum();
                assert_eq!(taken, 1 << 15, "{counts:?} in {max_bits} bits");
                assert!(code.lengths.iter().all(|&length| usize::from(length) <= max_bits));
                let coded =
                    counts.iter().zip(&code.lengths).all(|(&n, &length)| n == 0 || length != 0);
                assert!(coded);
            }
        }
    }

    #[test]
    fn frequent_symbols_have_short_codes() {
        let counts = [50, 3, 20, 1, 9, 9];
        let mut code = Code::new();
        code.build(&counts, MAX_BITS);
        assert_eq!(code.lengths, [1, 5, 2, 5, 4, 3]);
        assert_eq!(code.cost(&counts), 50 + 15 + 40 + 5 + 36 + 27);
    }

    #[test]
    fn canonical_codes_are_those_of_the_rfc() {
        // The example of section 3.2.2, with the bits in the order in which they are written.
        let mut code = Code::<8>::new();
        code.lengths = [3, 3, 3, 3, 3, 2, 4, 4];
        code.assign();
        assert_eq!(code.bits, [0b010, 0b110, 0b001, 0b101, 0b011, 0b00, 0b0111, 0b1111]);
    }
}
